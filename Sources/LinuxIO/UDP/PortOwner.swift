internal import Glibc

/// A process that has a UDP port of this network namespace open.
package struct PortOwner: Hashable, Sendable {
    package let process: Int32
    /// As the kernel calls it: 15 characters at most, and the program's to choose.
    package let name: String

    /// Other processes than this one, the lowest number first. Empty where the port is free, and where this process may
    /// not see who has it: only root sees the descriptors of every user.
    package static func all(ofUDPPort port: UInt16) -> [PortOwner] {
        let inodes = Set(
            ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"].flatMap { path -> [UInt64] in
                guard let table = try? AtomicFile.read(path, limit: tableLimit) else { return [] }
                return Self.inodes(ofPort: port, in: String(decoding: table.bytes, as: UTF8.self))
            })
        guard !inodes.isEmpty else { return [] }
        let sockets = Set(inodes.map { "socket:[\($0)]" })
        let processes = System.entries(of: "/proc").compactMap { Int32($0) }.filter { $0 != getpid() }
        return processes.sorted().filter { process in
            let folder = "/proc/\(process)/fd"
            return System.entries(of: folder).contains { descriptor in
                System.linkTarget("\(folder)/\(descriptor)").map { sockets.contains($0) } ?? false
            }
        }.map { PortOwner(process: $0, name: name(of: $0)) }
    }

    /// The sockets in a table of /proc/net whose local port it is.
    static func inodes(ofPort port: UInt16, in table: String) -> [UInt64] {
        table.split(separator: "\n").dropFirst().compactMap { line in
            let fields = line.split(separator: " ")
            guard fields.count > 9, let colon = fields[1].lastIndex(of: ":"),
                UInt16(fields[1][fields[1].index(after: colon)...], radix: 16) == port
            else { return nil }
            return UInt64(fields[9])
        }
    }

    private static func name(of process: Int32) -> String {
        let text = try? AtomicFile.read("/proc/\(process)/comm", limit: 64)
        return String(decoding: (text?.bytes ?? []).prefix { $0 != 0x0a }, as: UTF8.self)
    }

    /// Some 100,000 sockets.
    private static let tableLimit = 16 << 20
}
