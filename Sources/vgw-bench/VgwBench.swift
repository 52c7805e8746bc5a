internal import ArgumentParser
internal import Dispatch
internal import Glibc

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
            TunnelCommand.self, FailoverCommand.self, ConnectionsCommand.self, MicroCommand.self,
            InstructionsCommand.self, PassCommand.self, Blast.self, Sink.self, Echo.self, HandshakeStorm.self,
        ],
        defaultSubcommand: TunnelCommand.self)
}

/// Not an asynchronous `main`: that ends the first thread and goes on in others, which valgrind does not survive
/// (seen with 3.19). So what is to run under it begins here.
@main
enum Main {
    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        if arguments.first == PassCommand.configuration.commandName {
            return PassCommand.main(Array(arguments.dropFirst()))
        }
        let end = DispatchSemaphore(value: 0)
        Task.detached {
            await VgwBench.main()
            end.signal()
        }
        end.wait()
    }
}
