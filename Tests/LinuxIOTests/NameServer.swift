import CLinux
import Glibc
import LinuxIO
import Synchronization
import TestSupport
import WireGuard

@_silgen_name("unshare") private func systemUnshare(_ flags: Int32) -> Int32

/// A name server with a few names, on a thread of its own, in the network namespace of whoever makes it.
final class NameServer: Sendable {
    enum Record: Sendable {
        case address(String, ttl: UInt32)
        case alias(String, ttl: UInt32)
    }

    enum Reply: Sendable {
        /// Those that fit the question's type, aliases first.
        case records([Record])
        case code(UInt8)
        case silence
    }

    static let nameError: UInt8 = 3
    static let serverFailure: UInt8 = 2

    let endpoint: Endpoint
    private let isStopped = Atomic(false)
    private let names: Mutex<[String: Reply]>
    private let asked = Atomic(0)
    private let silentType: UInt16?

    /// `silentType` gets no answer: 1 for A, 28 for AAAA.
    init(port: UInt16, silentType: UInt16? = nil, _ names: [String: Reply]) throws {
        endpoint = Endpoint(address: IPAddress("127.0.0.1")!, port: port)
        self.names = Mutex(names)
        self.silentType = silentType
        let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let code = unsafe withUnsafePointer(to: address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe bind(socket, address, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard code == 0 else { throw TestFailure(description: "name server: errno \(errno)") }
        var patience = timeval(tv_sec: 0, tv_usec: 20_000)
        _ = unsafe setsockopt(
            socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        _ = try Thread.spawn(name: "name-server") { [self] in
            while !isStopped.load(ordering: .acquiring) { serve(socket) }
            close(socket)
        }
    }

    func stop() { isStopped.store(true, ordering: .releasing) }

    func set(_ name: String, _ reply: Reply) { names.withLock { $0[name] = reply } }

    var questionCount: Int { asked.load(ordering: .acquiring) }

    private func serve(_ socket: Int32) {
        var buffer = [UInt8](repeating: 0, count: 1500)
        var from = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let count = unsafe withUnsafeMutablePointer(to: &from) { from in
            unsafe from.withMemoryRebound(to: sockaddr.self, capacity: 1) { from in
                unsafe recvfrom(socket, &buffer, buffer.count, 0, from, &length)
            }
        }
        guard count > 12 else { return }
        asked.add(1, ordering: .releasing)
        guard let answer = answer(Array(buffer[..<count])) else { return }
        _ = unsafe withUnsafePointer(to: from) { from in
            unsafe from.withMemoryRebound(to: sockaddr.self, capacity: 1) { from in
                unsafe sendto(socket, answer, answer.count, 0, from, length)
            }
        }
    }

    /// RFC 1035, section 4.
    private func answer(_ query: [UInt8]) -> [UInt8]? {
        var labels: [String] = []
        var offset = 12
        while query[offset] != 0 {
            let length = Int(query[offset])
            labels.append(String(decoding: query[(offset + 1)...(offset + length)], as: UTF8.self))
            offset += 1 + length
        }
        let type = UInt16(query[offset + 1]) << 8 | UInt16(query[offset + 2])
        let question = Array(query[12..<(offset + 5)])
        let name = labels.joined(separator: ".").lowercased()
        guard type != silentType else { return nil }
        var code = Self.nameError
        var records: [UInt8] = []
        var count: UInt8 = 0
        switch names.withLock({ $0[name] }) {
        case .silence: return nil
        case .code(let other): code = other
        case .records(let found):
            code = 0
            var owner: [UInt8] = [0xc0, 12]
            for record in found {
                switch record {
                case .alias(let target, let ttl):
                    let data = Self.name(target)
                    records += owner + [0, 5, 0, 1] + Self.bytes(ttl) + [0, UInt8(data.count)] + data
                    owner = data
                    count += 1
                case .address(let text, let ttl):
                    let address = IPAddress(text)!
                    guard type == (address.family == .v4 ? 1 : 28) else { continue }
                    records += owner + [0, UInt8(type), 0, 1] + Self.bytes(ttl)
                    records += [0, UInt8(address.bytes.count)] + address.bytes
                    count += 1
                }
            }
        case nil: break
        }
        return query[..<2] + [0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0] + question + records
    }

    private static func bytes(_ value: UInt32) -> [UInt8] {
        (0..<4).reversed().map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    private static func name(_ text: String) -> [UInt8] {
        text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
    }
}

/// Runs `body` on a thread of its own, in a network namespace and a mount namespace of its own, where
/// /etc/hosts and /etc/resolv.conf are the two files in the folder that it is given.
func withOwnNames(_ body: @escaping @Sendable (_ folder: String) throws -> Void) throws {
    try withFolder { folder in
        let failure = Mutex<(any Error)?>(nil)
        try shell("touch \(folder)/hosts \(folder)/resolv.conf")
        try withoutActuallyEscaping(body) { body in
            let thread = try Thread.spawn(name: "own-names") {
                do {
                    let newMounts: Int32 = 0x0002_0000
                    let newNetwork: Int32 = 0x4000_0000
                    guard systemUnshare(newMounts | newNetwork) == 0 else {
                        throw TestFailure(description: "these tests need root: errno \(errno)")
                    }
                    try shell(
                        "mount --make-rprivate / && ip link set lo up && mount --bind \(folder)/hosts /etc/hosts"
                            + " && mount --bind \(folder)/resolv.conf /etc/resolv.conf")
                    try body(folder)
                } catch {
                    failure.withLock { $0 = error }
                }
            }
            thread.join()
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }
}
