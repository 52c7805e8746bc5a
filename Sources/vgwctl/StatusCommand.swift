internal import ArgumentParser
internal import ControlAPI

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show every connection and tunnel, and why one is down.",
        discussion: """
            A tunnel is 'up' with a session, 'connecting' while a handshake is under way, 'idle' while nothing needed \
            one, 'degraded' past its limits of loss or delay, 'disabled' by an operator, and 'down' when handshakes \
            fail or nobody answers probes: then the reason stands below the table. '*' marks the tunnels that carry \
            the traffic of a connection of several; round-trip time and loss are of the last 10 s.

              vgwctl status
              vgwctl status --drops            what is dropped, by reason
              vgwctl tunnel show zone-a        all that is known of one tunnel
              vgwctl status --json | jq -r '.connections[].tunnels[] | select(.state != "up") | .name'
            """)

    @OptionGroup var target: SocketOption

    @Flag(help: "Print the whole status as JSON, for programs.")
    var json = false

    @Flag(help: "Show the dropped packets by reason too.")
    var drops = false

    @Flag(help: "Show the public keys too.")
    var keys = false

    func run() async throws {
        let status: GatewayStatus = try await target.client.get(APIPath.status)
        if json {
            print(String(decoding: try JSON.encode(status, pretty: true), as: UTF8.self))
        } else {
            let report = StatusReport(
                showsDrops: drops, showsKeys: keys, palette: Palette(isOn: Terminal.hasColour))
            print(report.lines(for: status).joined(separator: "\n"))
        }
    }
}
