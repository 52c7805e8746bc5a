internal import ArgumentParser
internal import ControlAPI

struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened: tunnels up and down, failovers, routes, drills, hooks.",
        discussion: """
            The gateway keeps the last 1,000 events of its run. Each is a line: when (UTC), what, where, in words, and \
            in brackets from what to what and why. What a drill has made happen is marked 'drill'.

              vgwctl events
              vgwctl events --follow                            go on until Ctrl-C, or the gateway ends
              vgwctl events --follow --json | while read -r event; do ...; done
              vgwctl events --since 17 --json | jq -r 'select(.kind == "failover") | .to'

            The exit status of --follow is 69 once the gateway has ended. Numbers begin anew then: a number that it \
            has not reached yet stands for all of its events.
            """)

    @OptionGroup var target: SocketOption

    @Flag(name: [.customShort("f"), .long], help: "Go on with what happens from now on.")
    var follow = false

    @Flag(help: "Print each event as JSON on a line, for programs.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "Only those after this one: the sequence in its JSON.", valueName: "number"))
    var since: UInt64?

    func run() async throws {
        var query: [(String, String)] = []
        if let since { query.append((APIPath.sinceParameter, String(since))) }
        if follow { query.append((APIPath.followParameter, "1")) }
        let text = EventText(palette: Palette(isOn: Terminal.hasColour))
        let output = Output()
        try await target.client.lines(APIPath.events, query: query) { bytes in
            // As it came: a newer gateway may say more than this program knows.
            if json { return try await output.write(bytes + [UInt8(ascii: "\n")]) }
            let line: EventLine
            do {
                line = try JSON.decode(from: bytes)
            } catch {
                throw Failure(
                    .protocolBroken, "the gateway sent an event that this vgwctl cannot read",
                    hint: "Are vgwd and vgwctl of the same version?")
            }
            try await output.write(Array((StandardOutput.shown(text.line(for: line)) + "\n").utf8))
        }
        if follow { throw Failure(.unavailable, "the gateway has ended") }
    }
}

/// Events as a person reads them, one a line.
struct EventText {
    var palette = Palette(isOn: false)

    /// As long as the longest kind but few, and as most names.
    private static let kindWidth = 18
    private static let subjectWidth = 16

    func line(for line: EventLine) -> String {
        switch line {
        case .event(let event): self.line(for: event)
        case .lost(let count):
            palette.yellow(count == 1 ? "1 event is missing here" : "\(count) events are missing here")
        }
    }

    private func line(for event: GatewayEvent) -> String {
        let subject = [event.connection, event.tunnel].compactMap { $0 }.joined(separator: "/")
        let kind = padded(event.kind.rawValue, Self.kindWidth)
        var text = "\(milliseconds(event.time))  \(paint(kind, event.kind, isDrill: event.drill == true))  "
        text += "\(padded(subject.isEmpty ? "-" : subject, Self.subjectWidth))  \(event.message)"
        let change =
            switch (event.from, event.to) {
            case (let from?, let to?): "\(from) to \(to)"
            case (let from?, nil): "from \(from)"
            case (nil, let to?): "to \(to)"
            case (nil, nil): ""
            }
        let why = [change, event.reason ?? "", event.drill == true ? "drill" : ""].filter { !$0.isEmpty }
            .joined(separator: ", ")
        if !why.isEmpty { text += " " + palette.dim("(\(why))") }
        return text
    }

    /// Nobody reads nanoseconds.
    private func milliseconds(_ time: String) -> String {
        guard let point = time.firstIndex(of: "."), time.hasSuffix("Z") else { return time }
        return time[..<point] + time[point...].prefix(4) + "Z"
    }

    private func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    private func paint(_ text: String, _ kind: GatewayEvent.Kind, isDrill: Bool) -> String {
        switch kind {
        case .tunnelUp, .tunnelJoined, .connectionUp, .routeRestored: palette.green(text)
        case _ where isDrill: palette.yellow(text)
        case .tunnelDown, .connectionDown, .routeUnreachable, .hookFailed: palette.red(text)
        case .tunnelDegraded, .tunnelLeft, .failover, .drillStarted: palette.yellow(text)
        default: text
        }
    }
}
