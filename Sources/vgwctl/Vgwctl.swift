internal import ArgumentParser
internal import ControlAPI
internal import Glibc

@main
struct Entry {
    static func main() async {
        // Whatever this program writes is for its user alone.
        _ = umask(0o077)
        do {
            var command = try Vgwctl.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            failure.exit()
        } catch {
            let status = Vgwctl.exitCode(for: error).rawValue
            // It may repeat an argument. An answer, such as --help's, goes to standard output.
            let text = Vgwctl.fullMessage(for: error)
            if status == 0 {
                if !text.isEmpty { print(text) }
            } else {
                _ = dup2(STDERR_FILENO, STDOUT_FILENO)
                if !text.isEmpty { Swift.print(Printable.escaping(text, keepsLines: true)) }
            }
            Glibc.exit(status)
        }
    }
}

struct Vgwctl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vgwctl",
        abstract: "Look after a vgwd gateway: see its tunnels, change its routes, make its keys.",
        discussion: """
            A gateway has connections, one for each far site; a connection has tunnels, each a WireGuard peer.

              New link between two sites:    vgwctl pair
              From an existing wg-quick:     vgwctl import /etc/wireguard/wg0.conf
              Is it up, and if not, why:     vgwctl status [CONNECTION]
              What is being dropped:         vgwctl status --drops
              What happened, and happens:    vgwctl events --follow
              Which way a packet takes:      vgwctl route get 10.20.0.10
              A prefix for now:              vgwctl route add 10.30.0.0/16 via aws-vpc
              Before work on a link:         vgwctl tunnel down zone-a
              Would a cut be survived:       vgwctl drill aws-vpc

            Exit statuses: 0 done; 1 the gateway refused; 2 and 3 of 'status' alone, for a connection that is degraded or \
            down; 64 wrong usage; 65 wrong input; 69 no gateway answers; \
            73 a file cannot be written; 74 a file cannot be read; 76 the answer makes no sense; 77 not allowed.
            """,
        version: Release.version,
        subcommands: [
            StatusCommand.self, EventsCommand.self, RouteCommand.self, TunnelCommand.self, DrillCommand.self,
            PairCommand.self, ImportCommand.self, GenkeyCommand.self,
            PubkeyCommand.self, GenpskCommand.self,
        ])
}

/// Where the daemon listens.
struct SocketOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The control socket of the gateway to talk to.",
            discussion: "Without it VGWD_SOCKET of the environment, then \(APIPath.defaultSocket).",
            valueName: "path"))
    var socket: String?

    var client: ControlClient { ControlClient(socket: path) }

    private var path: String {
        if let socket { return socket }
        let given = Environment["VGWD_SOCKET"] ?? ""
        return given.isEmpty ? APIPath.defaultSocket : given
    }
}
