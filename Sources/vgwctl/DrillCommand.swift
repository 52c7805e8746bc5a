internal import ArgumentParser
internal import ControlAPI
internal import NIOCore

struct DrillCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drill",
        abstract: "Cut the active tunnel of a connection for a while, and see how long traffic is lost.",
        discussion: """
            The tunnel is taken away as a cut cable would take it: without a word to either end. Live probes measure \
            when it is noticed and when traffic passes again; then the tunnel is put back. It disturbs real traffic \
            for as long as the report says traffic was lost; a connection without another tunnel that is up is refused. \
            When vgwctl ends before its time, by Ctrl-C or a hang-up, the tunnel is put back at once.

              vgwctl drill aws-vpc
              vgwctl drill aws-vpc --for 30s --json

            Probes go to the far gateway, and to the connection's health targets behind it: those answer by the far \
            site's own way back, which the far gateway does not. Without targets nothing is known of that way.

            The exit status is 0 only if both answered again while the tunnel was cut, and within the connection's rto \
            where it has one; otherwise it is 1.
            """)

    @OptionGroup var target: SocketOption

    @Argument(help: "The name of the connection, as 'vgwctl status' shows it.")
    var connection: String

    @Option(
        name: .customLong("for"),
        help: ArgumentHelp("How long the tunnel stays cut: 1s to 5m.", valueName: "duration"))
    var duration = Seconds(value: DrillRequest.defaultDuration)

    @Flag(help: "Print the report as JSON, for programs.")
    var json = false

    func validate() throws {
        guard DrillRequest.durationRange.contains(duration.value) else {
            throw ValidationError("a drill takes 1 second to 5 minutes")
        }
    }

    func run() async throws {
        var client = target.client
        client.timeout = .milliseconds(Int64((duration.value + DrillRequest.patience) * 1000))
        if !json, Terminal.isInteractive {
            print("cutting the active tunnel of \(connection) for \(DrillText.seconds(duration.value)) ...")
        }
        let report: DrillReport = try await client.post(
            APIPath.drill(ControlClient.pathEncoded(connection)), DrillRequest(duration: duration.value))
        if json {
            print(String(decoding: try JSON.encode(report, pretty: true), as: UTF8.self))
        } else {
            print(
                DrillText(palette: Palette(isOn: Terminal.hasColour)).lines(for: report).joined(
                    separator: "\n"))
        }
        if !report.isPassed { throw ExitCode(Failure.Status.refused.rawValue) }
    }
}

/// A drill's report as a person reads it.
struct DrillText {
    var palette = Palette(isOn: false)

    func lines(for report: DrillReport) -> [String] {
        var rows = [
            ("cut", "\(report.tunnel) of \(report.connection), for \(Self.seconds(report.duration))"),
            ("detected", report.timeToDetect.map { "after \(Self.seconds($0))" } ?? palette.red("never")),
            (
                "recovered",
                (report.timeToRecover.map { "after \(Self.seconds($0))" } ?? palette.red("never"))
                    + ", gateway to gateway"
            ),
            ("probes lost", "\(report.probesLost) of \(report.probesSent)"),
        ]
        if let gap = report.longestGap { rows.append(("longest gap", Self.seconds(gap))) }
        if let targets = report.targets {
            let back =
                targets.timeToRecover.map { "back after \(Self.seconds($0))" } ?? palette.red("never back")
            let lost = "\(targets.probesLost) of \(targets.probesSent) probes lost"
            rows.append(
                ("targets", "\(back), \(lost), longest gap \(Self.seconds(targets.longestGap))"))
        }
        let active = [report.activeBefore, report.activeDuring, report.activeAfter].map { $0 ?? "none" }
        rows.append(("active tunnel", "\(active[0]), then \(active[1]), at the end \(active[2])"))
        if let rto = report.rto {
            let verdict = report.rtoMet == true ? palette.green("met") : palette.red("missed")
            rows.append(("objective", "\(Self.seconds(rto)): \(verdict)"))
        }
        let width = rows.map(\.0.count).max() ?? 0
        return rows.map { name, value in
            name + String(repeating: " ", count: width - name.count) + "  " + value
        } + report.notes.map { "note: \($0)" }
            + [report.isPassed ? palette.green("passed") : palette.red("failed")]
    }

    /// `340 ms`, `1.25 s`, `10 s`.
    static func seconds(_ value: Double) -> String {
        guard value.isFinite, value >= 0, value < 1e9 else { return "?" }
        let milliseconds = Int((value * 1000).rounded())
        if milliseconds < 1000 { return "\(milliseconds) ms" }
        let hundredths = milliseconds / 10 % 100
        if hundredths == 0 { return "\(milliseconds / 1000) s" }
        return "\(milliseconds / 1000).\(hundredths < 10 ? "0" : "")\(hundredths) s"
    }
}
