internal import FoundationEssentials
internal import Testing

/// BIRD or FRR at a site of a bundle, set up as the files of conf/examples say: with a lab's addresses in
/// them, and shorter times.
struct RoutingDaemon: Sendable {
    enum Kind: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case bird
        case frr

        var testDescription: String { rawValue }
    }

    let kind: Kind
    let lab: Lab
    let namespace: String
    /// Unique in the lab: of logs and sockets.
    let name: String
    /// Vgwd's.
    let interface: String

    init(_ kind: Kind, beside gateway: Gateway) {
        self.init(
            kind, in: gateway.lab, namespace: gateway.namespace, name: gateway.name,
            interface: gateway.interface)
    }

    init(_ kind: Kind, in lab: Lab, namespace: String, name: String, interface: String) {
        self.kind = kind
        self.lab = lab
        self.namespace = namespace
        self.name = name
        self.interface = interface
    }

    private var birdSocket: String { "\(lab.directory)/bird-\(name).ctl" }
    /// FRR's daemons give up their rights before they make their sockets, and a lab's folder is root's alone.
    private var pathSpace: String { "vgwit-\(lab.id)\(name)" }

    /// With the office's example, as one of two sites that announce a prefix each.
    func start(announcing prefix: String, at site: Site) async throws {
        try await start(configuration(announcing: [prefix], at: site))
    }

    /// With an example, and shorter times than it has.
    func start(_ configuration: String) async throws {
        let file = try lab.write(configuration, to: "\(kind)-\(name).conf")
        switch kind {
        case .bird:
            try await lab.start(
                ["bird", "-f", "-c", file, "-s", birdSocket, "-P", "\(birdSocket).pid"], name: "bird-\(name)",
                in: namespace)
            try await eventually("BIRD answers") { try await ask("show status").succeeded }
        case .frr:
            let folder = "/run/frr/\(pathSpace)"
            lab.removeAtEnd(folder)
            try await Shell.run("install -d -o frr -g frr /run/frr \(folder)")
            for daemon in ["zebra", "staticd", "bfdd", "bgpd"] {
                try await lab.start(
                    ["/usr/lib/frr/\(daemon)", "-f", "/dev/null", "-N", pathSpace, "-P", "0"],
                    name: "\(daemon)-\(name)", in: namespace)
                try await eventually("\(daemon) listens") {
                    try await Shell.attempt("test -S \(folder)/\(daemon).vty").succeeded
                }
            }
            let answer = try await vtysh("-f \(file)")
            // It goes on behind a line that it does not know.
            try #require(answer.succeeded && !answer.output.contains("line "), "\(answer)")
        }
    }

    /// In place of what it announced before. BIRD only.
    func announce(_ prefixes: [String], at site: Site) async throws {
        _ = try lab.write(configuration(announcing: prefixes, at: site), to: "\(kind)-\(name).conf")
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

    /// How many of its BFD sessions are up.
    func bfdSessionsUp() async throws -> Int {
        switch kind {
        case .bird:
            try await ask("show bfd sessions").output.split(separator: "\n").count { $0.contains(" Up ") }
        case .frr:
            try await vtysh("-c 'show bfd peers brief'").output.split(separator: "\n").count {
                $0.lowercased().split(separator: " ").contains("up")
            }
        }
    }

    private func ask(_ text: String) async throws -> CommandResult {
        try await Shell.attempt("birdc -s \(birdSocket) \(text)", in: namespace)
    }

    private func vtysh(_ arguments: String) async throws -> CommandResult {
        try await Shell.attempt("vtysh -N \(pathSpace) \(arguments)", in: namespace)
    }

    // MARK: Configuration

    /// A file of conf/examples, with this interface and shorter times in it.
    func example(_ file: String) throws -> String {
        var text = try Self.text(ofExample: file)
        func replace(_ old: String, _ new: String) throws {
            try #require(text.contains(old), "\(file) does not have \(old)")
            text = text.replacing(old, with: new)
        }
        try replace("vgw0", interface)
        switch kind {
        case .bird:
            try replace("hold time 9;", "hold time 3; connect delay time 1;")
            try replace("keepalive time 3;", "keepalive time 1;")
            try replace("connect retry time 5;", "connect retry time 1;")
            try replace("error wait time 3, 30;", "error wait time 1, 2;")
        case .frr:
            try replace("timers 3 9", "timers 1 3")
            try replace("timers connect 5", "timers connect 1")
        }
        return text
    }

    static func text(ofExample file: String) throws -> String {
        var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        parts.removeLast(4)
        return try String(
            contentsOfFile: parts.joined(separator: "/") + "/conf/examples/\(file)", encoding: .utf8)
    }

    private func configuration(announcing prefixes: [String], at site: Site) throws -> String {
        let file = "bgp-\(kind).conf"
        var text = try example(file)
        func replace(_ old: String, _ new: String) throws {
            try #require(text.contains(old), "\(file) does not have \(old)")
            text = text.replacing(old, with: new)
        }
        let (ours, theirs) = site == .onprem ? ("65010", "65001") : ("65001", "65010")
        try replace("65010", "@ours@")
        try replace("65001", theirs)
        try replace("@ours@", ours)
        let word = kind == .bird ? "router id " : "router-id "
        try replace("\(word)192.168.10.1", word + site.underlay(.v4))
        switch kind {
        case .bird:
            try replace(
                "route 192.168.10.0/24 unreachable;",
                prefixes.map { "route \($0) unreachable;" }.joined(separator: "\n    "))
        case .frr: try replace("192.168.10.0/24", prefixes[0])
        }
        for (wire, number) in [(Wire.link, 101), (.internet, 102)] {
            try replace("169.254.\(number).2", "@near@")
            try replace("169.254.\(number).1", "@far@")
            try replace("@near@", wire.inside(site))
            try replace("@far@", wire.inside(site.other))
        }
        return text
    }
}
