internal import ArgumentParser
internal import ControlAPI
internal import WireGuard

struct RouteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "route",
        abstract: "Show or change which prefixes lie behind which connection.",
        discussion: """
            A route has two sides: packets for the prefix are sent to the connection, and packets from the prefix are \
            taken from it. What is changed here lasts until vgwd restarts, or with --save until it is changed again.

              vgwctl route list
              vgwctl route get 10.20.0.10
              vgwctl route add 10.30.0.0/16 via aws-vpc
              vgwctl route del 10.30.0.0/16
            """,
        subcommands: [List.self, Get.self, Add.self, Delete.self],
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
                    Table.Cell(route.prefix), Table.Cell(route.connection.isEmpty ? "-" : route.connection),
                    Table.Cell(route.origin.rawValue + (route.isSaved == true ? ", saved" : "")),
                    Table.Cell(state) { route.installed ? $0 : palette.yellow($0) },
                ]
            }
            return table.rendered(palette)
        }
    }

    struct Get: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "get",
            abstract: "Say which way a packet to an address would take now, and why, step by step.",
            discussion: """
                  vgwctl route get 10.20.0.10                                     a packet of this host's own
                  vgwctl route get 10.20.0.10 --from 192.168.10.5 --iif eth1      one that a host of the LAN sends

                The two may differ: rules of others look at sources, marks and interfaces. The kernel answers for a packet \
                without a mark, and names the route and the rule that took it.

                The exit status is 0 when a tunnel would carry it, and 1 otherwise.
                """)

        @OptionGroup var target: SocketOption

        @Argument(help: "The address, such as 10.20.0.10 or 2001:db8:20::10.")
        var destination: String

        @Option(help: ArgumentHelp("The packet's source.", valueName: "address"))
        var from: String?

        @Option(help: ArgumentHelp("The interface that the packet comes by.", valueName: "device"))
        var iif: String?

        @Flag(help: "Print it as JSON, for programs.")
        var json = false

        func validate() throws {
            if let from, IPAddress(from) == nil {
                throw ValidationError("'\(from)' is no address: write --from 192.168.10.5")
            }
            guard iif == nil || from != nil else {
                throw ValidationError("a packet that comes by \(iif ?? "") has a source: add --from ADDRESS")
            }
            guard IPAddress(destination) != nil else {
                throw ValidationError("'\(destination)' is no address: write 10.20.0.10 or 2001:db8:20::10")
            }
        }

        func run() async throws {
            let way: RouteExplanation = try await target.client.get(
                APIPath.routeGet,
                query: [(APIPath.destinationParameter, destination)]
                    + (from.map { [(APIPath.sourceParameter, $0)] } ?? [])
                    + (iif.map { [(APIPath.incomingParameter, $0)] } ?? []))
            if json {
                print(String(decoding: try JSON.encode(way, pretty: true), as: UTF8.self))
            } else {
                print(Self.lines(way, Palette(isOn: Terminal.hasColour)).joined(separator: "\n"))
            }
            if way.verdict != .tunnel { throw ExitCode(Failure.Status.refused.rawValue) }
        }

        static func lines(_ way: RouteExplanation, _ palette: Palette) -> [String] {
            var first: String
            switch way.verdict {
            case .tunnel: first = "\(way.destination) by " + palette.green("tunnel \(way.tunnel ?? "?")")
            case .unreachable: first = "\(way.destination) " + palette.red("unreachable")
            case .elsewhere: first = "\(way.destination) " + palette.yellow("not by any tunnel")
            default: first = "\(way.destination) \(way.verdict.rawValue)"
            }
            if let connection = way.connection { first += " of connection \(connection)" }
            var outer: [String] = []
            if let endpoint = way.endpoint { outer.append("to \(endpoint)") }
            if let interface = way.interface { outer.append("out of \(interface)") }
            if let source = way.source { outer.append("from \(source)") }
            return [outer.isEmpty ? first : "\(first), \(outer.joined(separator: " "))"]
                + way.steps.enumerated().map { "  \($0.offset + 1). \($0.element)" }
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "add", abstract: "Send a prefix to a connection.",
            usage: "vgwctl route add <prefix> via <connection> [--save] [--socket <path>]",
            discussion: """
                  vgwctl route add 10.30.0.0/16 via aws-vpc          until vgwd restarts
                  vgwctl route add 10.30.0.0/16 via aws-vpc --save   after that too
                """)

        @OptionGroup var target: SocketOption

        @Argument(help: "The prefix, such as 10.30.0.0/16 or 2001:db8:30::/48.")
        var prefix: String

        @Argument(help: "The word 'via'.")
        var via: String

        @Argument(help: "The name of the connection, as 'vgwctl status' shows it.")
        var connection: String

        @Flag(help: "Keep it when vgwd restarts.")
        var save = false

        func validate() throws {
            try Prefixes.validate(prefix)
            guard via == "via" else {
                throw ValidationError(
                    "'\(via)' stands where 'via' belongs: vgwctl route add \(prefix) via CONNECTION")
            }
        }

        func run() async throws {
            let request = RouteRequest(prefix: prefix, connection: connection, save: save ? true : nil)
            let entry: RouteEntry = try await target.client.post(APIPath.routes, request)
            let note =
                entry.installed ? "" : " (not installed in the kernel\(entry.reason.map { ": \($0)" } ?? ""))"
            print("added \(entry.prefix) via \(entry.connection)\(note)")
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "del",
            abstract: "Take out a prefix that was added here, or let go of a guarded one.",
            discussion: """
                  vgwctl route del 10.30.0.0/16          a saved one is back after a restart
                  vgwctl route del 10.30.0.0/16 --save   for good

                A prefix that a routing daemon announced once stays unreachable when nobody announces it any more, so \
                that nothing sent there leaves in clear. This lets go of it, where its site is gone for good.
                """, aliases: ["delete"])

        @OptionGroup var target: SocketOption

        @Argument(help: "The prefix, as 'vgwctl route list' shows it.")
        var prefix: String

        @Flag(help: "Also when vgwd restarts.")
        var save = false

        func validate() throws { try Prefixes.validate(prefix) }

        func run() async throws {
            let entry: RouteEntry = try await target.client.delete(
                APIPath.routes,
                query: [(APIPath.prefixParameter, prefix)] + (save ? [(APIPath.saveParameter, "1")] : []))
            print(
                entry.isGuarded == true
                    ? "let go of \(entry.prefix): any route takes it now"
                    : "removed \(entry.prefix) via \(entry.connection)")
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
