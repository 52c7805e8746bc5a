internal import ArgumentParser
internal import FoundationEssentials
internal import WireGuard

/// The parts of a packet's way, each by itself and beside what it cannot be faster than.
struct MicroCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "micro",
        abstract: "Measures the parts: sealing and opening, segmentation, routes, the switch.",
        discussion: """
            One thread, no socket, no root. Works are measured in turn, round after round; the table shows \
            nanoseconds a packet, lookup or route (median, least … most) and the ratio to libsodium called in a loop. What \
            is done for each of many routes takes as long for one of 100,000 as for one of 1,000, or nearly.

              vgw-bench micro
              vgw-bench micro --rounds 20 --json micro.json
            """)

    @Option(help: "Rounds; each measures every work once.")
    var rounds = 10

    @Option(help: ArgumentHelp("Writes every value of every round here, as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard (1...1000).contains(rounds) else { throw ValidationError("--rounds is 1 to 1000") }
    }

    func run() throws {
        guard sodiumIsReady else { throw Failure("libsodium could not be initialised") }
        var report = MicroReport()
        for _ in 0..<rounds {
            for cipher in Cipher.available { try measure(cipher, into: &report) }
            measureTables(into: &report)
            try measureRoutes(into: &report)
        }
        print(Machine.this().line)
        print(report.table)
        if let json { try report.write(to: json) }
    }

    private func measure(_ cipher: Cipher, into report: inout MicroReport) throws {
        // Enough packets for some milliseconds each.
        for size in [64, 256, 512, 1420, 8920] {
            let count = 4_000_000 / (size + 300) / 64 * 64
            var loop = SodiumLoop(cipher: cipher, size: size)
            let bare = loop.pass(count)
            let reference = "libsodium, \(cipher.rawValue), \(size) B"
            report.add("\(reference), seal", bare.sealing, count)
            report.add("\(reference), open", bare.opening, count)
            try pass(.single(size), cipher, count: count, against: reference, into: &report)
            guard size == 1420 else { continue }
            for shape in [PacketShape.tcpSuperpacket(packetSize: size), .udpSuperpacket(packetSize: size)] {
                try pass(shape, cipher, count: count, against: reference, into: &report)
            }
        }
    }

    private func pass(
        _ shape: PacketShape, _ cipher: Cipher, count: Int, against reference: String,
        into report: inout MicroReport
    ) throws {
        var loop = PacketLoop(cipher: cipher)
        let inBatch = PacketLoop.reads(of: shape) * shape.packets
        let batches = max(1, count / inBatch)
        let times = loop.pass(shape, batches: batches, opens: true)
        guard loop.problems.isEmpty else { throw Failure("\(shape.name): dropped \(loop.problems)") }
        let name = "vgwd, \(cipher.rawValue), \(shape.name)"
        report.add("\(name), out", times.sealing, batches * inBatch, against: "\(reference), seal")
        report.add("\(name), in", times.opening, batches * inBatch, against: "\(reference), open")
    }

    private func measureTables(into report: inout MicroReport) {
        for size in [1, 10, 100, 1000, 10_000, 100_000] {
            let loop = TableLoop(prefixes: size)
            report.add("route lookup among \(size)", loop.lookups(200_000), 200_000)
            if size == 10 { report.add("failover switch", loop.switches(1_000_000), 1_000_000) }
        }
    }

    private func measureRoutes(into report: inout MicroReport) throws {
        for size in [1000, 10_000, 100_000] {
            let loop = RouteLoop(count: size)
            report.add("reading one of \(size) routes", try loop.reading(), size)
            report.add("choosing who carries one of \(size)", loop.choosing(), size)
            report.add("forwarding one of \(size)", loop.forwarding(), size)
            report.add("planning one of \(size) for the kernel", loop.planning(), size)
            report.add("wg: moving one of \(size) to another peer", try loop.moving(), size)
            report.add("wg: removing one of \(size)", try loop.removing(), size)
        }
    }
}
