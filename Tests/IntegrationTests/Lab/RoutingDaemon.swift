internal import FoundationEssentials
internal import Testing

/// BIRD or FRR at a site of a bundle, set up as conf/examples/bgp-bird.conf and bgp-frr.conf say: with a lab's
/// addresses in them, and shorter times.
struct RoutingDaemon: Sendable {
    enum Kind: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case bird
        case frr

        var testDescription: String { rawValue }
    }

    let kind: Kind
    let lab: Lab
    let site: Site
    /// Vgwd's.
    let interface: String

    init(_ kind: Kind, beside gateway: Gateway) {
        self.kind = kind
        lab = gateway.lab
        site = gateway.site
        interface = gateway.interface
    }

    private var namespace: String { lab.namespace(site) }
    private var birdSocket: String { "\(lab.directory)/bird-\(site).ctl" }
    /// FRR's daemons give up their rights before they make their sockets, and a lab's folder is root's alone.
    private var pathSpace: String { "vgwit-\(lab.id)\(site.letter)" }

    func start(announcing prefix: String) async throws {
        switch kind {
        case .bird:
            let file = try writeConfiguration(announcing: [prefix])
            try await lab.start(
                ["bird", "-f", "-c", file, "-s", birdSocket, "-P", "\(birdSocket).pid"], name: "bird-\(site)",
                in: namespace)
            try await eventually("BIRD answers") { try await ask("show status").succeeded }
        case .frr:
            let folder = "/run/frr/\(pathSpace)"
            lab.removeAtEnd(folder)
            try await Shell.run("install -d -o frr -g frr /run/frr \(folder)")
            for daemon in ["zebra", "staticd", "bgpd"] {
                try await lab.start(
                    ["/usr/lib/frr/\(daemon)", "-f", "/dev/null", "-N", pathSpace, "-P", "0"],
                    name: "\(daemon)-\(site)", in: namespace)
                try await eventually("\(daemon) listens") {
                    try await Shell.attempt("test -S \(folder)/\(daemon).vty").succeeded
                }
            }
            let answer = try await vtysh("-f \(try writeConfiguration(announcing: [prefix]))")
            // It goes on behind a line that it does not know.
            try #require(answer.succeeded && !answer.output.contains("line "), "\(answer)")
        }
    }

    /// In place of what it announced before. BIRD only.
    func announce(_ prefixes: [String]) async throws {
        _ = try writeConfiguration(announcing: prefixes)
        let answer = try await ask("configure")
        guard answer.succeeded else { throw answer }
    }

    /// How its sessions are.
    func sessions() async throws -> String {
        switch kind {
        case .bird: try await ask("show protocols").output
        case .frr: try await vtysh("-c 'show bgp summary'").output
        }
    }

    private func ask(_ text: String) async throws -> CommandResult {
        try await Shell.attempt("birdc -s \(birdSocket) \(text)", in: namespace)
    }

    private func vtysh(_ arguments: String) async throws -> CommandResult {
        try await Shell.attempt("vtysh -N \(pathSpace) \(arguments)", in: namespace)
    }

    // MARK: Configuration

    private func writeConfiguration(announcing prefixes: [String]) throws -> String {
        var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        parts.removeLast(4)
        let example = parts.joined(separator: "/") + "/conf/examples/bgp-\(kind).conf"
        var text = try String(contentsOfFile: example, encoding: .utf8)
        func replace(_ old: String, _ new: String) throws {
            try #require(text.contains(old), "\(example) does not have \(old)")
            text = text.replacing(old, with: new)
        }
        let (ours, theirs) = site == .onprem ? ("65010", "65001") : ("65001", "65010")
        try replace("65010", "@ours@")
        try replace("65001", theirs)
        try replace("@ours@", ours)
        try replace("vgw0", interface)
        try replace("router-id 192.168.10.1".replacing("-", with: kind == .bird ? " " : "-"), routerID)
        switch kind {
        case .bird:
            try replace(
                "route 192.168.10.0/24 unreachable;",
                prefixes.map { "route \($0) unreachable;" }.joined(separator: "\n    "))
            try replace("hold time 9;", "hold time 3; connect delay time 1;")
            try replace("keepalive time 3;", "keepalive time 1;")
            try replace("connect retry time 5;", "connect retry time 1;")
            try replace("error wait time 3, 30;", "error wait time 1, 2;")
        case .frr:
            try replace("192.168.10.0/24", prefixes[0])
            try replace("timers 3 9", "timers 1 3")
            try replace("timers connect 5", "timers connect 1")
        }
        for (wire, number) in [(Wire.link, 101), (.internet, 102)] {
            try replace("169.254.\(number).2", "@near@")
            try replace("169.254.\(number).1", "@far@")
            try replace("@near@", wire.inside(site))
            try replace("@far@", wire.inside(site.other))
        }
        return try lab.write(text, to: "\(kind)-\(site).conf")
    }

    private var routerID: String {
        (kind == .bird ? "router id " : "router-id ") + site.underlay(.v4)
    }
}
