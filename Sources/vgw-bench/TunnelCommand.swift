internal import ArgumentParser
internal import FoundationEssentials
internal import Glibc

/// The end-to-end comparison.
struct TunnelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tunnel",
        abstract: "Sends the same work through each daemon (the default).",
        discussion: """
            Builds two network namespaces joined by a veth pair and sends the same traffic through each \
            implementation in turn, round after round, so that a machine whose speed drifts is unfair to none of \
            them: the bare veth, vgwd with its ciphers and with none (the ceiling), and, where installed, \
            wireguard-go, OpenVPN and fastd. Quote the ratios: absolute figures hold for one machine on one day.

            Needs root, iproute2, iperf3 and wg. Touches nothing outside its namespaces, and removes them \
            also when it is interrupted; what was measured until then is reported. Progress goes to standard \
            error, the table to standard output. The exit status is 1 when something failed.

              sudo vgw-bench --peer newest=/tmp/wireguard-go --peer boringtun=/usr/local/bin/boringtun-cli
              sudo vgw-bench --only vgwd-chacha,vgwd-null --reference vgwd-null --work tcp-1,tcp-4 --rounds 6
              sudo vgw-bench --rounds 1 --seconds 2 --json result.json
            """)

    @Option(help: "Rounds; each runs all the work through every implementation.")
    var rounds = 4

    @Option(help: "Seconds of traffic a measurement.")
    var seconds = 5

    @Option(
        help: ArgumentHelp(
            "Another daemon that runs as 'PATH -f INTERFACE' and is set up with wg. Repeatable.",
            valueName: "name=path"))
    var peer: [String] = []

    @Option(help: ArgumentHelp("Only these implementations.", valueName: "name,name"))
    var only: String?

    @Option(
        help: ArgumentHelp(
            "Only this work: \(Work.all.map(\.name).joined(separator: ", ")).", valueName: "name,name"))
    var work: String?

    @Option(
        help: ArgumentHelp(
            "What ratios are taken to; the last --peer if not given, or else wireguard-go.",
            valueName: "name"))
    var reference: String?

    @Option(
        help: ArgumentHelp(
            "The vgwd to measure, as it is; if not given, the one beside this program, built anew.",
            valueName: "path"))
    var vgwd: String?

    @Option(help: ArgumentHelp("Writes every value of every round here, as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard (1...100).contains(rounds) else { throw ValidationError("--rounds is 1 to 100") }
        guard (1...60).contains(seconds) else { throw ValidationError("--seconds is 1 to 60") }
        for peer in peer {
            let parts = peer.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, FileManager.default.isExecutableFile(atPath: String(parts[1])) else {
                throw ValidationError("--peer \(peer): takes NAME=PATH of a program")
            }
        }
        if let vgwd, !FileManager.default.isExecutableFile(atPath: vgwd) {
            throw ValidationError("--vgwd \(vgwd): no program is there")
        }
        for name in Self.names(work) where !Work.all.contains(where: { $0.name == name }) {
            throw ValidationError(
                "--work knows \(Work.all.map(\.name).joined(separator: ", ")), not '\(name)'")
        }
    }

    func run() async throws {
        // There are keys among what is written.
        umask(0o077)
        let outcome: Comparison
        do {
            outcome = try await Interrupt.watching { try await compare() }
        } catch is CancellationError {
            throw ExitCode(128 + Interrupt.signal)
        }
        if Interrupt.signal != 0 { Progress.say("interrupted; this is what was measured until then") }
        let report = outcome.report
        print(report.table)
        if let json { try ReportFile(report).write(to: json) }
        if Interrupt.signal != 0 { throw ExitCode(128 + Interrupt.signal) }
        if !report.measurements.troubles.isEmpty { throw ExitCode.failure }
    }

    private func compare() async throws -> Comparison {
        try await Self.checkRequirements()
        let folder = BuildFolder()
        if vgwd == nil {
            try await folder.update()
            guard FileManager.default.isExecutableFile(atPath: folder.vgwd) else {
                throw Failure("no vgwd at \(folder.vgwd): build it first, or name it with --vgwd")
            }
        }
        let catalogue = try await Catalogue(
            vgwd: vgwd ?? folder.vgwd, nullCipher: folder.nullCipher, peers: peer)
        let chosen = try catalogue.chosen(Self.names(only))
        let works = Self.names(work)
        var comparison = Comparison(
            rounds: rounds, seconds: seconds, implementations: chosen,
            absent: only == nil ? catalogue.absent : [],
            works: Work.all.filter { works.isEmpty || works.contains($0.name) },
            reference: try reference(among: chosen))
        await comparison.run()
        return comparison
    }

    private func reference(among chosen: [Implementation]) throws -> String? {
        let lastPeer = peer.last?.split(separator: "=").first.map(String.init)
        let name = reference ?? lastPeer ?? "wireguard-go"
        if chosen.contains(where: { $0.name == name }) { return name }
        guard reference == nil else { throw Failure("--reference \(name) is not among what is measured") }
        return nil
    }

    private static func checkRequirements() async throws {
        guard geteuid() == 0 else { throw Failure("needs root, for network namespaces and TUN devices") }
        for (program, package) in [
            ("ip", "iproute2"), ("ss", "iproute2"), ("iperf3", "iperf3"), ("wg", "wireguard-tools"),
            ("ping", "iputils-ping"),
        ] where await Shell.find(program) == nil {
            throw Failure("needs \(program): apt-get install \(package)")
        }
    }

    private static func names(_ list: String?) -> [String] {
        (list ?? "").split(separator: ",").map(String.init)
    }
}
