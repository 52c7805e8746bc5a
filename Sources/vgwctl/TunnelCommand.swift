internal import ArgumentParser
internal import ControlAPI

struct TunnelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tunnel",
        abstract: "Look at one tunnel closely, take it down, or prefer it to the others of its connection.",
        discussion: """
            What is ordered here lasts until it is ordered otherwise, or vgwd restarts.

              vgwctl tunnel show zone-a
              vgwctl tunnel down zone-a       carry nothing by it: before work on its link, say
              vgwctl tunnel up zone-a
              vgwctl tunnel prefer zone-b     use it whenever it is healthy, whatever the priorities say
              vgwctl tunnel unprefer zone-b   let the priorities decide again
            """,
        subcommands: [Show.self, Down.self, Up.self, Prefer.self, Unprefer.self])

    struct Name: ParsableArguments {
        @OptionGroup var target: SocketOption

        @Argument(help: "The name of the tunnel, as 'vgwctl status' shows it.")
        var name: String

        var path: String { APIPath.tunnel(ControlClient.pathEncoded(name)) }

        func order(_ order: TunnelOrder) async throws {
            let tunnel: TunnelStatus =
                order == .unprefer
                ? try await target.client.delete("\(path)/\(TunnelOrder.prefer.rawValue)")
                : try await target.client.post("\(path)/\(order.rawValue)")
            print(TunnelText.line(for: tunnel))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Show all that is known of a tunnel.",
            discussion: "  vgwctl tunnel show zone-a")

        @OptionGroup var tunnel: Name

        @Flag(help: "Print it as JSON, for programs.")
        var json = false

        func run() async throws {
            let status: TunnelStatus = try await tunnel.target.client.get(tunnel.path)
            if json {
                print(String(decoding: try JSON.encode(status, pretty: true), as: UTF8.self))
            } else {
                let text = TunnelText(
                    width: Terminal.width, palette: Palette(isOn: Terminal.hasColour))
                print(text.lines(for: status).joined(separator: "\n"))
            }
        }
    }

    struct Down: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "down", abstract: "Take a tunnel out of use until 'vgwctl tunnel up'.",
            discussion: """
                Its connection goes on by another tunnel; where there is none, it is down.

                  vgwctl tunnel down zone-a
                """)

        @OptionGroup var tunnel: Name

        func run() async throws { try await tunnel.order(.down) }
    }

    struct Up: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "up", abstract: "Use a tunnel again that was taken down.",
            discussion: "  vgwctl tunnel up zone-a")

        @OptionGroup var tunnel: Name

        func run() async throws { try await tunnel.order(.up) }
    }

    struct Prefer: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "prefer",
            abstract: "Send a connection's traffic by this tunnel whenever it is healthy.",
            discussion: """
                The priorities decide while it is not, and again after 'vgwctl tunnel unprefer'. A connection prefers \
                one tunnel: preferring another takes its place.

                  vgwctl tunnel prefer zone-b
                """)

        @OptionGroup var tunnel: Name

        func run() async throws { try await tunnel.order(.prefer) }
    }

    struct Unprefer: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "unprefer", abstract: "Let the priorities decide again.",
            discussion: "  vgwctl tunnel unprefer zone-b")

        @OptionGroup var tunnel: Name

        func run() async throws { try await tunnel.order(.unprefer) }
    }
}

/// One tunnel as a person reads it.
struct TunnelText {
    var width = Prose.width
    var palette = Palette(isOn: false)

    /// After an order: `zone-a of aws-vpc: disabled`.
    static func line(for tunnel: TunnelStatus) -> String {
        var line = "\(tunnel.name) of \(tunnel.connection): \(tunnel.state.rawValue)"
        if tunnel.isActive == true { line += ", active" }
        if tunnel.isPreferred == true { line += ", preferred" }
        if let reason = tunnel.reason { line += " (\(reason))" }
        return line
    }

    func lines(for tunnel: TunnelStatus) -> [String] {
        var state = palette.paint(tunnel.state.rawValue, tunnel.state)
        if let since = tunnel.since { state += " for \(TimeText.span(since))" }
        if tunnel.isActive == true { state += ", active" }
        if tunnel.isPreferred == true { state += ", preferred" }
        var rows: [(String, String?)] = [
            ("tunnel", "\(tunnel.name) of \(tunnel.connection)"),
            ("state", state),
            ("reason", tunnel.reason.map { $0 + (tunnel.reasonCode.map { " (\($0))" } ?? "") }),
            ("hint", tunnel.hint),
            ("held down", tunnel.holdDown.flatMap { $0 > 0 ? "for \(Human.left($0)) more" : nil }),
            ("endpoint", tunnel.endpoint ?? "not known"),
            ("configured", tunnel.configuredEndpoint),
            ("leaves by", tunnel.underlayDevice),
            (
                "path MTU",
                tunnel.pathMTU.map { String($0) }
                    ?? tunnel.assumedMTU.map { "not found yet: \($0) is assumed" }
            ),
            (
                "not probed",
                tunnel.notProbed.map {
                    "\($0): handshakes tell when the far end is gone, which takes a minute or two"
                }
            ),
        ]
        if let local = tunnel.insideLocal, let remote = tunnel.insideRemote {
            rows.append(("inside", "\(local) to \(remote)"))
        }
        for window in tunnel.windows ?? [] {
            rows.append(("last \(window.seconds) s", Self.words(window)))
        }
        if tunnel.isProbed == true, tunnel.windows == nil { rows.append(("probes", "no answer")) }
        rows += [
            ("priority", tunnel.priority.map { String($0) }),
            ("weight", tunnel.weight.map { String($0) }),
            ("handshake", Human.ago(tunnel.lastHandshakeAge)),
            ("heard", Human.ago(tunnel.lastReceivedAge)),
            ("received", "\(Human.bytes(tunnel.rxBytes)) in \(tunnel.rxPackets) packets"),
            ("sent", "\(Human.bytes(tunnel.txBytes)) in \(tunnel.txPackets) packets"),
            ("waiting", tunnel.stagedPackets == 0 ? nil : "\(tunnel.stagedPackets) packets, for a session"),
            ("keepalive", tunnel.persistentKeepalive == 0 ? "off" : "every \(tunnel.persistentKeepalive) s"),
            ("cipher", tunnel.cipher),
            ("pre-shared key", tunnel.hasPresharedKey ? "yes" : "none"),
            ("public key", tunnel.publicKey),
        ]
        return StatusReport.aligned(rows, width: width)
    }

    private static func words(_ window: WindowStatus) -> String {
        guard let loss = window.loss else { return "no probe" }
        guard let trip = window.roundTrip else { return "\(Human.percent(loss)) lost" }
        let jitter = window.jitter.map { ", jitter \(Human.milliseconds($0))" } ?? ""
        return "round trip \(Human.milliseconds(trip))\(jitter), \(Human.percent(loss)) lost"
    }
}
