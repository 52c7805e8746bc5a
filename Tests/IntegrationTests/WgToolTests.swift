internal import FoundationEssentials
internal import Testing

extension Integration {
    /// `wg` and `wg-quick`, unchanged, drive vgwd as they drive another implementation.
    @Suite struct WgTool {
        /// The same orders to both; after each the same answers.
        @Test("wg show, set, setconf, addconf and syncconf give what wireguard-go gives")
        func sameAnswers() async throws {
            try await Lab.run { lab in
                let ours = try await Tunnel.make(
                    in: lab, Pairing(initiator: .driven, responder: .wireguardGo))
                try await ours.start()
                let (a, b, c) = (
                    try await KeyPair.generate(), try await KeyPair.generate(), try await KeyPair.generate()
                )
                let psk = try lab.write(try await KeyPair.presharedKey() + "\n", to: "psk")
                let whole = try lab.write(
                    """
                    [Interface]
                    PrivateKey = \(a.privateKey)
                    ListenPort = 51999
                    FwMark = 0x1234

                    [Peer]
                    PublicKey = \(b.publicKey)
                    AllowedIPs = 10.1.0.0/16, 10.2.0.0/16, fd01::/48, 10.3.3.3/32
                    Endpoint = 203.0.113.1:1111
                    PersistentKeepalive = 17

                    [Peer]
                    PublicKey = \(c.publicKey)
                    PresharedKey = \(try await KeyPair.presharedKey())
                    AllowedIPs = 0.0.0.0/0, ::/0
                    Endpoint = [2001:db8::1]:2222

                    """, to: "whole.conf")
                let part = try lab.write(
                    """
                    [Interface]
                    PrivateKey = \(a.privateKey)
                    ListenPort = 51998

                    [Peer]
                    PublicKey = \(c.publicKey)
                    AllowedIPs = 10.9.0.0/16, 10.2.0.0/16

                    """, to: "part.conf")
                let orders = [
                    ("setconf", whole),
                    ("set", "peer \(b.publicKey) persistent-keepalive 0 allowed-ips 10.1.0.0/17,fd02::/64"),
                    // An allowed prefix belongs to one peer: giving it to another takes it away.
                    ("set", "peer \(c.publicKey) allowed-ips 10.1.0.0/17"),
                    ("set", "peer \(b.publicKey) preshared-key \(psk) endpoint '[2001:db8::7]:777'"),
                    ("set", "peer \(b.publicKey) preshared-key /dev/null"),
                    ("set", "fwmark 0"),
                    ("set", "listen-port 52000"),
                    // There and back: the first sockets must be closed by then.
                    ("set", "listen-port 52001"),
                    ("set", "listen-port 52000"),
                    ("set", "peer \(a.publicKey) allowed-ips 10.55.0.0/16"),  // our own key: ignored
                    ("set", "peer \(c.publicKey) remove"),
                    ("addconf", part),
                    ("syncconf", whole),
                    ("syncconf", part),
                    ("set", "peer \(b.publicKey) allowed-ips 0.0.0.0/0 endpoint 203.0.113.9:9"),
                    ("set", "private-key /dev/null"),
                ]
                for (verb, rest) in orders {
                    for gateway in [ours.onprem, ours.vpc] {
                        try await gateway.wg("\(verb) \(gateway.interface) \(rest)")
                    }
                    let (left, right) = (try await ours.onprem.settled(), try await ours.vpc.settled())
                    try #require(left == right, "after wg \(verb) \(rest)")
                }
                let whole1 = try await ours.onprem.wg("show \(ours.onprem.interface)")
                try #require(whole1.hasPrefix("interface: \(ours.onprem.interface)"))
                try #require(try await Shell.run("wg show interfaces").contains(ours.onprem.interface))
            }
        }

        @Test(
            "a tunnel set up from a file and set again by syncconf keeps its session",
            arguments: Pairing.allAndDriven)
        func syncKeepsSession(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing) { tunnel in
                for gateway in [tunnel.onprem, tunnel.vpc] {
                    let before = try await gateway.peer()
                    let file = try tunnel.lab.write(gateway.wgConfiguration(), to: "same.conf")
                    try await gateway.wg("syncconf \(gateway.interface) \(file)")
                    let after = try await gateway.peer()
                    try #require(after.latestHandshake == before.latestHandshake)
                    try #require(after.endpoint == before.endpoint)
                }
                try await tunnel.ping(from: .vpc, .v4)
            }
        }

        @Test("an endpoint begins no handshake: a packet does, or a persistent keepalive")
        func firstHandshake() async throws {
            try await sideBySide([Gateway.Kind.driven, .wireguardGo], [0, 5]) {
                try await Self.firstHandshake($0, keepalive: $1)
            }
        }

        private static func firstHandshake(_ kind: Gateway.Kind, keepalive: Int) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(
                    in: lab, Pairing(initiator: kind, responder: .configured), keepalive: keepalive)
                try await tunnel.start()
                let endpoint = try #require(tunnel.onprem.settings.endpoint)
                let peer = tunnel.onprem.settings.peerPublicKey
                try await tunnel.onprem.wg("set \(tunnel.onprem.interface) peer \(peer) endpoint \(endpoint)")
                if keepalive == 0 {
                    try #require(try await tunnel.onprem.peer().sent == 0)
                    try await tunnel.reach(from: .onprem)
                }
                try await eventually("a handshake completes") {
                    try await tunnel.onprem.peer().latestHandshake > 0
                }
            }
        }

        @Test(
            "a peer is reached through another peer of the interface, and one whose way leads to itself harms nobody",
            arguments: [Gateway.Kind.driven, .wireguardGo])
        func onion(_ other: Gateway.Kind) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, Pairing(initiator: .driven, responder: other))
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                let (here, there) = ("172.31.242.1", "172.31.242.2")
                let inner = Gateway(
                    lab: lab, site: .vpc, kind: other,
                    settings: Gateway.Settings(
                        keys: try await KeyPair.generate(),
                        peerPublicKey: tunnel.onprem.settings.keys.publicKey, listenPort: 51821, mtu: 1340,
                        routes: ["\(here)/32"], addresses: ["\(there)/32"]),
                    suffix: "i")
                try await inner.start()
                let interface = tunnel.onprem.interface
                let peer = "set \(interface) peer \(inner.settings.keys.publicKey)"
                try await tunnel.onprem.wg(
                    "\(peer) allowed-ips \(there)/32 endpoint \(Site.vpc.inside(.v4)):51821")
                try await Shell.run(
                    "ip addr add \(here)/32 dev \(interface) && ip route add \(there) dev \(interface) src \(here)",
                    in: tunnel.onprem.namespace)
                let ping = "ping -n -c 1 -W 2 \(there)"
                try await eventually("the inner peer answers") {
                    try await Shell.attempt(ping, in: tunnel.onprem.namespace).succeeded
                }
                try await tunnel.onprem.wg("\(peer) endpoint \(there):51821")
                #expect(try await !Shell.attempt(ping, in: tunnel.onprem.namespace).succeeded)
                try await tunnel.reach(from: .onprem)
            }
        }

        @Test(
            "wg-quick brings an initiator up and down", arguments: [Gateway.Kind.configured, .wireguardGo],
            [false, true])
        func quick(_ other: Gateway.Kind, everything: Bool) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, Pairing(initiator: .driven, responder: other))
                try await tunnel.vpc.start()
                if everything {
                    // What onprem sends to anywhere arrives; vpc also takes it from there.
                    try await Shell.run("ip addr add 203.0.113.77/32 dev lo", in: tunnel.vpc.namespace)
                }
                let quick = try await WgQuick(lab: lab, gateway: tunnel.onprem, everything: everything)
                try await quick.run("up")
                try await tunnel.reach(from: .onprem)
                for family in Family.allCases { try await tunnel.ping(from: .vpc, family) }
                if everything {
                    try await Shell.run("ping -c 2 -i 0.1 -W 5 203.0.113.77", in: tunnel.onprem.namespace)
                }
                try await quick.bringDown()
            }
        }

        @Test(
            "wg-quick brings a responder up and down", arguments: [Gateway.Kind.configured, .wireguardGo])
        func quickResponder(_ other: Gateway.Kind) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, Pairing(initiator: other, responder: .driven))
                let quick = try await WgQuick(lab: lab, gateway: tunnel.vpc, everything: false)
                try await quick.run("up")
                try await tunnel.onprem.start()
                try await tunnel.reach(from: .onprem)
                for site in Site.allCases {
                    for family in Family.allCases { try await tunnel.ping(from: site, family) }
                }
                try await quick.bringDown()
            }
        }
    }
}

/// `wg-quick` with its own folder first in the path: a copy of the tool, and of `ip` one that has no kernel
/// WireGuard, so that the same happens on machines whose kernel has it.
struct WgQuick {
    private let gateway: Gateway
    private let folder: String
    private let file: String

    init(lab: Lab, gateway: Gateway, everything: Bool) async throws {
        self.gateway = gateway
        folder = "\(lab.directory)/bin"
        let settings = gateway.settings
        try await Shell.run(
            """
            mkdir \(folder) && cp $(command -v wg-quick) \(folder)/ && ln -s \(Programs.path("vgwd")) \(folder)/
            cat >\(folder)/ip <<'END'
            #!/bin/bash
            [[ "$*" == *"type wireguard"* ]] && { echo "Error: Unknown device type." >&2; exit 2; }
            PATH=/usr/sbin:/usr/bin:/sbin:/bin exec ip "$@"
            END
            chmod 755 \(folder)/ip
            """)
        let routes = everything ? ["0.0.0.0/0", "::/0"] : settings.routes
        let endpoint = settings.endpoint.map { "Endpoint = \($0)" } ?? ""
        file = try lab.write(
            """
            [Interface]
            PrivateKey = \(settings.keys.privateKey)
            ListenPort = \(settings.listenPort)
            Address = \(settings.addresses.joined(separator: ", "))
            MTU = \(settings.mtu)

            [Peer]
            PublicKey = \(settings.peerPublicKey)
            AllowedIPs = \(routes.joined(separator: ", "))
            \(endpoint)

            """, to: "\(gateway.interface).conf")
    }

    /// Shows that it is vgwd that runs there, and that nothing of it is left after `down`.
    func bringDown() async throws {
        let names = try await Shell.run(
            "cat $(ip netns pids \(gateway.namespace) | sed 's|.*|/proc/&/comm|')")
        try #require(names.contains(Lab.reference ? "wireguard-go" : "vgwd"), "running: \(names)")
        try await run("down")
        try #require(try await !gateway.hasInterface())
        try await eventually("the daemon has ended") {
            try await Shell.run("ip netns pids \(gateway.namespace)").isEmpty
        }
    }

    func run(_ verb: String) async throws {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin"
        let log = "\(gateway.lab.directory)/wg-quick.log"
        let result = try await Shell.attempt(
            "[ -e /sys/module/wireguard ] && mount -t tmpfs none /sys/module; "
                + "\(folder)/wg-quick \(verb) \(file) >>\(log) 2>&1 </dev/null",
            in: gateway.namespace,
            environment: [
                "PATH": "\(folder):\(path)",
                "WG_QUICK_USERSPACE_IMPLEMENTATION": Lab.reference ? "wireguard-go" : "vgwd",
                "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1",
            ])
        guard result.succeeded else {
            throw LabError("wg-quick \(verb): \(try await Shell.run("cat \(log)"))")
        }
    }
}

extension Gateway {
    /// What `wg` shows of the settings, without what differs by nature and in an order that does not matter.
    func settled() async throws -> [String] {
        try await wg("show \(interface) dump").split(separator: "\n").enumerated().map { number, line in
            var fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            guard number > 0, fields.count == 8 else { return fields.joined(separator: " ") }
            fields[3] = fields[3].split(separator: ",").sorted().joined(separator: ",")
            // Handshake time and the two byte counters.
            fields.removeSubrange(4...6)
            return fields.joined(separator: " ")
        }.sorted()
    }
}
