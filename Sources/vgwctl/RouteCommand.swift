internal import ArgumentParser
internal import ControlAPI
internal import WireGuard

struct RouteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "route",
        abstract: "Show or change which prefixes lie behind which connection.",
        discussion: """
            A route has two sides: packets for the prefix are sent to the connection, and packets from the prefix are \
            taken from it. What is changed here lasts until vgwd restarts; for good, write it into its configuration.

              vgwctl route list
              vgwctl route add 10.30.0.0/16 via aws-vpc
              vgwctl route del 10.30.0.0/16
            """,
        subcommands: [List.self, Add.self, Delete.self],
        defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list",
            abstract: "Show every route with its connection and whether the kernel has it.")

        @OptionGroup var target: SocketOption

        @Flag(help: "Print the routes as JSON, for programs.")
        var json = false

        func run() async throws {
            let list: RouteList = try await target.client.get(APIPath.routes)
            if json {
                print(String(decoding: try JSON.encode(list, pretty: true), as: UTF8.self))
            } else {
                print(Self.lines(list, Palette(isOn: Terminal.hasColour)).joined(separator: "\n"))
            }
        }

        static func lines(_ list: RouteList, _ palette: Palette) -> [String] {
            guard !list.routes.isEmpty else { return ["There is no route."] }
            var table = Table(header: ["PREFIX", "CONNECTION", "ORIGIN", "INSTALLED"])
            table.rows = list.routes.map { route in
                let state = route.installed ? "yes" : "no" + (route.reason.map { ": \($0)" } ?? "")
                return [
                    Table.Cell(route.prefix), Table.Cell(route.connection), Table.Cell(route.origin.rawValue),
                    Table.Cell(state) { route.installed ? $0 : palette.yellow($0) },
                ]
            }
            return table.rendered(palette)
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "add", abstract: "Send a prefix to a connection until vgwd restarts.",
            usage: "vgwctl route add <prefix> via <connection> [--socket <path>]",
            discussion: "  vgwctl route add 10.30.0.0/16 via aws-vpc")

        @OptionGroup var target: SocketOption

        @Argument(help: "The prefix, such as 10.30.0.0/16 or 2001:db8:30::/48.")
        var prefix: String

        @Argument(help: "The word 'via'.")
        var via: String

        @Argument(help: "The name of the connection, as 'vgwctl status' shows it.")
        var connection: String

        func validate() throws {
            try Prefixes.validate(prefix)
            guard via == "via" else {
                throw ValidationError(
                    "'\(via)' stands where 'via' belongs: vgwctl route add \(prefix) via CONNECTION")
            }
        }

        func run() async throws {
            let request = RouteRequest(prefix: prefix, connection: connection)
            let entry: RouteEntry = try await target.client.post(APIPath.routes, request)
            let note =
                entry.installed ? "" : " (not installed in the kernel\(entry.reason.map { ": \($0)" } ?? ""))"
            print("added \(entry.prefix) via \(entry.connection)\(note)")
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "del", abstract: "Take a prefix from its connection until vgwd restarts.",
            discussion: "  vgwctl route del 10.30.0.0/16", aliases: ["delete"])

        @OptionGroup var target: SocketOption

        @Argument(help: "The prefix, as 'vgwctl route list' shows it.")
        var prefix: String

        func validate() throws { try Prefixes.validate(prefix) }

        func run() async throws {
            let entry: RouteEntry = try await target.client.delete(
                APIPath.routes, query: [(APIPath.prefixParameter, prefix)])
            print("removed \(entry.prefix) via \(entry.connection)")
        }
    }
}

/// Prefixes as people type them.
enum Prefixes {
    static func parse(_ text: String) throws(Failure) -> IPPrefix {
        guard let prefix = IPPrefix(text) else {
            throw Failure(
                .data, "'\(text)' is no prefix",
                hint: "write an address and a length: 10.20.0.0/16, 2001:db8::/48")
        }
        guard prefix == prefix.network else {
            throw Failure(
                .data, "\(text) has bits set past its length",
                hint: "write \(prefix.network), or \(IPPrefix(host: prefix.address)) for the one address")
        }
        return prefix
    }

    /// As a usage error.
    static func validate(_ text: String) throws {
        do {
            _ = try parse(text)
        } catch {
            throw ValidationError([error.message, error.hint].compactMap { $0 }.joined(separator: "; "))
        }
    }
}
