internal import ArgumentParser
internal import ControlAPI

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show every connection and tunnel, and why one is down.",
        discussion: """
            A tunnel is 'up' with a session, 'connecting' while a handshake is under way, 'idle' while nothing needed \
            one, 'degraded' past its limits of loss or delay, 'disabled' by an operator, and 'down' when handshakes \
            fail or nobody answers probes: then the reason stands below the table. Connections in trouble come first; \
            '3/4' is three tunnels of four that are up, and '*' marks those that carry the traffic of a connection of \
            several. Of many tunnels those of a connection that is well share a line. Round-trip time and loss are of \
            the last 10 s. Columns are as many as the terminal has room for.

              vgwctl status
              vgwctl status aws-vpc            all that is known of one connection
              vgwctl status --drops            what is dropped, by reason
              vgwctl tunnel show zone-a        all that is known of one tunnel
              vgwctl status --json | jq -r '.connections[].tunnels[] | select(.state != "up") | .name'

            The exit status, with --json too, tells how the connections are that were asked for: 0 all usable; 2 one \
            is degraded or connecting, or has a tunnel that is not up; 3 one is down. Others are failures, as \
            'vgwctl --help' has them.
            """)

    @OptionGroup var target: SocketOption

    @Argument(help: "Only this connection, with all that is known of it.")
    var connection: String?

    @Flag(help: "Print the status as JSON, for programs.")
    var json = false

    @Flag(help: "Show the dropped packets of the gateway by reason too.")
    var drops = false

    @Flag(help: "Show the public keys too.")
    var keys = false

    func run() async throws {
        let status: GatewayStatus = try await target.client.get(APIPath.status)
        let report = StatusReport(
            showsDrops: drops, showsKeys: keys, width: Terminal.width,
            palette: Palette(isOn: Terminal.hasColour))
        guard let name = connection else {
            try show(status, report.lines(for: status))
            return try end(Condition.worst(of: status.connections))
        }
        guard let found = status.connections.first(where: { $0.name == name }) else {
            throw Failure(.refused, "there is no connection \(name)", hint: "'vgwctl status' lists them")
        }
        try show(found, report.lines(for: found, of: status))
        try end(Condition(found))
    }

    private func show(_ value: some Encodable, _ lines: [String]) throws {
        print(
            json
                ? String(decoding: try JSON.encode(value, pretty: true), as: UTF8.self)
                : lines.joined(separator: "\n"))
    }

    private func end(_ condition: Condition?) throws {
        if let condition, condition.exitStatus != 0 { throw ExitCode(condition.exitStatus) }
    }
}
