internal import ArgumentParser
internal import Glibc

@main
struct VgwBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vgw-bench",
        abstract: "The judge: measures vgwd beside other VPN daemons, in one run.",
        discussion: """
            Without a subcommand it does what 'tunnel' does, with the same options.

              sudo swift run -c release vgw-bench
              sudo swift run -c release vgw-bench --peer newest=/usr/local/bin/wireguard-go --json result.json
              vgw-bench tunnel --help
            """,
        subcommands: [
            TunnelCommand.self, Blast.self, Sink.self, Echo.self, HandshakeStorm.self,
        ],
        defaultSubcommand: TunnelCommand.self)
}
