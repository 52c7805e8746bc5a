internal import Glibc

/// Somebody at a far site who sees the probes that come to it, and sends whatever replies to them: in place of the kernel,
/// which answers none from here on. IPv4 alone.
final class ProbeForger {
    /// An echo request of a vgwd, or what is made of it.
    struct Packet {
        private static let body = 20
        private(set) var bytes: [UInt8]

        /// Nil for all that is no probe of a vgwd.
        fileprivate init?(_ bytes: [UInt8]) {
            let magic = Array("vgwd".utf8)
            guard bytes.count >= 52, bytes[0] == 0x45, bytes[9] == 1, bytes[Self.body] == 8,
                Array(bytes[28..<32]) == magic
            else { return nil }
            self.bytes = bytes
        }

        var source: String { bytes[12..<16].map(String.init).joined(separator: ".") }
        var destination: String { bytes[16..<20].map(String.init).joined(separator: ".") }

        /// What the one who was asked replies to the one who asked, or somebody else to somebody else.
        /// - Parameters:
        ///   - other: a probe whose token is put in place of the right one.
        ///   - purpose: what the reply says it is for; nil is what was asked.
        func reply(
            from source: String? = nil, to destination: String? = nil, tokenOf other: Packet? = nil,
            purpose: UInt16? = nil
        ) -> Packet {
            var reply = self
            reply.bytes.replaceSubrange(12..<16, with: Self.address(source ?? self.destination))
            reply.bytes.replaceSubrange(16..<20, with: Self.address(destination ?? self.source))
            reply.bytes[Self.body] = 0
            if let other { reply.bytes.replaceSubrange(34..<42, with: other.bytes[34..<42]) }
            if let purpose {
                reply.bytes.replaceSubrange(50..<52, with: [UInt8(purpose >> 8), UInt8(purpose & 0xff)])
            }
            reply.sum()
            return reply
        }

        private mutating func sum() {
            for (field, range) in [(10, 0..<20), (22, 20..<bytes.count)] {
                bytes[field] = 0
                bytes[field + 1] = 0
                var sum = stride(from: range.lowerBound, to: range.upperBound, by: 2).reduce(UInt32(0)) {
                    $0 + UInt32(bytes[$1]) << 8 + ($1 + 1 < range.upperBound ? UInt32(bytes[$1 + 1]) : 0)
                }
                while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
                bytes[field] = UInt8(truncatingIfNeeded: ~sum >> 8)
                bytes[field + 1] = UInt8(truncatingIfNeeded: ~sum)
            }
        }

        private static func address(_ text: String) -> [UInt8] {
            text.split(separator: ".").compactMap { UInt8($0) }
        }
    }

    private let lab: Lab
    private let site: Site
    private let receiver: Int32
    private var senders: [String: Int32] = [:]

    init(at site: Site, in lab: Lab) async throws {
        self.lab = lab
        self.site = site
        receiver = try RawPeer.inNamespace(lab.namespace(site)) { try Self.socket(Int32(IPPROTO_ICMP)) }
        try await answer(false)
    }

    deinit {
        close(receiver)
        for sender in senders.values { close(sender) }
    }

    /// Whether the kernel answers.
    func answer(_ isHonest: Bool) async throws {
        try await Shell.run(
            "sysctl -qw net.ipv4.icmp_echo_ignore_all=\(isHonest ? 0 : 1)", in: lab.namespace(site))
    }

    private static func socket(_ transport: Int32) throws -> Int32 {
        let fd = Glibc.socket(
            AF_INET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue),
            transport)
        guard fd >= 0 else { throw LabError("raw socket: errno \(errno)") }
        return fd
    }

    /// Probes that came since it was asked last, those to each address in order.
    func receive() -> [Packet] {
        var packets: [Packet] = []
        while true {
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 2048) { buffer, count in
                count = max(unsafe recv(receiver, buffer.baseAddress!, buffer.count, 0), 0)
            }
            guard !bytes.isEmpty else { return packets }
            if let packet = Packet(bytes) { packets.append(packet) }
        }
    }

    /// Sends by an interface of the site.
    func send(_ packet: Packet, by interface: String) throws {
        let fd = try senders[interface] ?? open(interface)
        senders[interface] = fd
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = unsafe packet.bytes.withUnsafeBytes {
            unsafe $0.loadUnaligned(fromByteOffset: 16, as: UInt32.self)
        }
        let sent = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe sendto(
                    fd, packet.bytes, packet.bytes.count, 0, address,
                    socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard sent == packet.bytes.count else { throw LabError("\(packet.destination): errno \(errno)") }
    }

    private func open(_ interface: String) throws -> Int32 {
        let fd = try RawPeer.inNamespace(lab.namespace(site)) { try Self.socket(Int32(IPPROTO_RAW)) }
        let name = Array(interface.utf8)
        guard unsafe setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, socklen_t(name.count)) == 0 else {
            throw LabError("\(interface): errno \(errno)")
        }
        return fd
    }
}
