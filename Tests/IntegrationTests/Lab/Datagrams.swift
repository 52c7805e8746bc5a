internal import FoundationEssentials
internal import Glibc
internal import TestSupport

/// Junk, replays and forgeries: bytes put on the wire where no WireGuard would put them.
extension Lab {
    /// Sends each as one UDP datagram from a socket of the namespace. In order; nothing waits for an answer.
    func send(_ datagrams: [[UInt8]], to address: String, port: Int = 51820, from namespace: String)
        async throws
    {
        let folder = "\(directory)/datagrams"
        try await Shell.run("rm -rf \(folder); mkdir \(folder)")
        for (number, bytes) in datagrams.enumerated() {
            let name = String(100_000 + number)
            _ = try write(bytes, to: "datagrams/\(name)")
        }
        // One write of `cat` is one datagram.
        try await Shell.run(
            "for file in \(folder)/*; do cat \"$file\" >/dev/udp/\(address)/\(port) || exit; done",
            in: namespace)
    }

    /// Puts whole IP packets into a TUN device as its host would, without the kernel having looked at them.
    func inject(_ packets: [[UInt8]], into gateway: Gateway) async throws {
        for packet in packets {
            let file = try write(packet, to: "inject")
            try await Shell.run(
                "socat -u -b 65536 OPEN:\(file) INTERFACE:\(gateway.interface)", in: gateway.namespace)
        }
    }

    /// Starts to record what passes an interface; it records when this returns.
    func capture(_ interface: String, in namespace: String, name: String = "capture") async throws -> Capture
    {
        let path = "\(directory)/\(name).pcap"
        let process = try await start(
            ["tcpdump", "-i", interface, "-s", "0", "-U", "--immediate-mode", "-Z", "root", "-w", path],
            name: name, in: namespace)
        try await eventually("tcpdump listens") { self.log(of: process).contains("listening on") }
        return Capture(process: process, path: path)
    }
}

/// A recording of frames.
struct Capture: Sendable {
    let process: BackgroundProcess
    let path: String

    /// All that were recorded.
    func stop() async throws -> [[UInt8]] {
        process.signal(SIGINT)
        try await process.waitForExit()
        return try frames()
    }

    /// Returns once a frame for which the condition holds is in the file.
    func holds(_ what: String, _ condition: @Sendable ([UInt8]) -> Bool) async throws {
        try await eventually("\(what) is recorded") { try frames().contains(where: condition) }
    }

    /// Returns once a frame with these bytes somewhere in it is in the file.
    func holds(_ bytes: [UInt8]) async throws {
        try await holds("a frame with \(bytes)") { $0.holds(bytes) }
    }

    /// What is in the file by now: 24 bytes, then 16 bytes before each frame, with its length at 8, all in this
    /// machine's byte order.
    private func frames() throws -> [[UInt8]] {
        let file = try [UInt8](Data(contentsOf: URL(filePath: path)))
        var frames: [[UInt8]] = []
        var position = 24
        while position + 16 <= file.count {
            let length = (0..<4).reduce(0) { $0 | Int(file[position + 8 + $1]) << (8 * $1) }
            position += 16
            guard position + length <= file.count else { break }
            frames.append(Array(file[position..<position + length]))
            position += length
        }
        return frames
    }
}

/// A UDP datagram in a captured Ethernet frame, IPv4 without options or IPv6 without extensions; no fragment.
struct CapturedDatagram: Sendable {
    let destination: [UInt8]
    let destinationPort: Int
    let payload: [UInt8]

    init?(frame: [UInt8]) {
        guard frame.count > 14 + 28 else { return nil }
        let transport: Int
        switch (frame[12], frame[13]) {
        case (0x08, 0x00)
        where frame[14] == 0x45 && frame[14 + 9] == 17 && frame[14 + 6] & 0x3f == 0 && frame[14 + 7] == 0:
            transport = 14 + 20
            destination = Array(frame[14 + 16..<14 + 20])
        case (0x86, 0xdd) where frame[14 + 6] == 17:
            transport = 14 + 40
            destination = Array(frame[14 + 24..<14 + 40])
        default: return nil
        }
        guard frame.count >= transport + 8 else { return nil }
        let length = Int(frame[transport + 4]) << 8 | Int(frame[transport + 5])
        guard length >= 8, frame.count >= transport + length else { return nil }
        destinationPort = Int(frame[transport + 2]) << 8 | Int(frame[transport + 3])
        payload = Array(frame[transport + 8..<transport + length])
    }
}

extension SplitMix {
    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) }
    }
}
