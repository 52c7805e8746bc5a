internal import LinuxIO

/// UDP ports that only a process with CAP_NET_BIND_SERVICE may open, which vgwd's unit does not give.
enum LowPort {
    /// Where systemd/low-port.conf gives it to the unit.
    static let dropIn = "/etc/systemd/system/\(SystemFiles.serviceUser).service.d/low-port.conf"

    /// The first port that every process may open here.
    static var firstFree: UInt16 {
        let bytes = (try? AtomicFile.read("/proc/sys/net/ipv4/ip_unprivileged_port_start", limit: 64))?.bytes
        return UInt16(String(decoding: (bytes ?? []).prefix { $0 > 0x20 }, as: UTF8.self)) ?? 1024
    }

    static func remedy(_ port: UInt16) -> String {
        "give vgwd CAP_NET_BIND_SERVICE (systemd: install systemd/low-port.conf as \(dropIn)), or write a port that is "
            + "not below \(firstFree)"
    }
}
