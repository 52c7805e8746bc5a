import LinuxIO
import TestSupport
import Testing
import WireGuard

/// Whether a packet filter could let through what goes between a network behind this host and a tunnel: rulesets as
/// programs make them, in the kernel.
@Suite struct NetfilterVerdictTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var what: String
        var script: String
        /// Chains that drop everything from `lan` to `vgw0`, and the other way.
        var out: [String] = []
        var back: [String] = []
        var family = IPAddress.Family.v4

        var testDescription: String { what }
    }

    /// What Docker makes, by iptables-nft.
    private static let docker = """
        iptables-nft -P FORWARD DROP
        for chain in DOCKER-USER DOCKER-FORWARD DOCKER-CT DOCKER; do iptables-nft -N $chain; done
        iptables-nft -A FORWARD -j DOCKER-USER
        iptables-nft -A FORWARD -j DOCKER-FORWARD
        iptables-nft -A DOCKER-FORWARD -j DOCKER-CT
        iptables-nft -A DOCKER-FORWARD -o docker0 -j DOCKER
        iptables-nft -A DOCKER-FORWARD -i docker0 -j ACCEPT
        iptables-nft -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A DOCKER ! -i docker0 -o docker0 -j DROP

        """

    private static let cases = [
        Case(what: "no rules", script: ":"),
        Case(what: "Docker", script: docker, out: ["FORWARD"], back: ["FORWARD"]),
        Case(
            what: "Docker, and its users' chain lets the tunnel through",
            script: docker
                + "iptables-nft -I DOCKER-USER -i vgw0 -j ACCEPT; iptables-nft -I DOCKER-USER -o vgw0 -j ACCEPT"
        ),
        Case(
            what: "Docker, and one direction is let through",
            script: docker + "iptables-nft -I DOCKER-USER -o vgw0 -j ACCEPT", back: ["FORWARD"]),
        Case(
            what: "ufw: what is established, and ICMP",
            script: """
                iptables-nft -P FORWARD DROP; iptables-nft -N ufw-before-forward; iptables-nft -N ufw-user-forward
                iptables-nft -A FORWARD -j ufw-before-forward
                iptables-nft -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
                iptables-nft -A ufw-before-forward -m state --state ESTABLISHED -j ACCEPT
                iptables-nft -A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
                iptables-nft -A ufw-before-forward -j ufw-user-forward
                """, out: ["FORWARD"], back: ["FORWARD"]),
        Case(
            what: "iptables, and a port",
            script: "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -p tcp --dport 443 -j ACCEPT"),
        Case(
            what: "iptables, and new connections into the tunnel",
            script:
                "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -o vgw+ -m conntrack --ctstate NEW -j ACCEPT",
            back: ["FORWARD"]),
        Case(
            what: "iptables: the other family", script: "iptables-nft -P FORWARD DROP", family: .v6),
        Case(
            what: "ip6tables", script: "ip6tables-nft -P FORWARD DROP", out: ["FORWARD"], back: ["FORWARD"],
            family: .v6),
        Case(
            what: "nftables, by policy",
            script: nft("policy drop; ct state { established, related } accept; ct status dnat accept"),
            out: ["f"], back: ["f"]),
        Case(
            what: "nftables, by a map of states",
            script: nft(
                "policy drop; ct state vmap { established : accept, related : accept, invalid : drop }"),
            out: ["f"], back: ["f"]),
        Case(
            what: "nftables, by a set of interfaces",
            script: nft(#"policy drop; iifname { "vgw0", "lan" } accept"#)),
        Case(
            what: "nftables, by a set of other interfaces",
            script: nft(#"policy drop; iifname { "eth8", "eth9" } oifname { "eth8", "lan" } accept"#),
            out: ["f"],
            back: ["f"]),
        Case(
            what: "nftables, by a map of interfaces",
            script: nft(#"policy drop; iifname vmap { "lan" : accept, "vgw0" : drop }"#), back: ["f"]),
        Case(
            what: "nftables, by interface number", script: nft("policy drop; iif lan accept"), back: ["f"]),
        Case(
            what: "nftables, by addresses", script: nft("policy drop; ip saddr 192.168.10.0/24 accept"),
            back: []),
        Case(
            what: "firewalld: the policy accepts, and the last rule rejects",
            script: nft(
                #"policy accept; iifname "lo" accept; jump zones; reject with icmpx admin-prohibited"#,
                more:
                    #"chain zones { iifname "eth0" goto public; goto public; }; chain public { oifname "eth0" accept; }"#
            ),
            out: ["f"], back: ["f"]),
        Case(
            what: "a chain that returns before its drop",
            script: nft("policy accept; jump a", more: "chain a { return; drop; }")),
        Case(
            what: "a rate that may be reached", script: nft("policy drop; limit rate 10/second accept")),
        Case(
            what: "only TCP is dropped", script: nft("policy accept; meta l4proto tcp drop")),
        Case(
            what: "TCP and UDP are dropped",
            script: nft("policy accept; meta nfproto ipv4 meta l4proto { tcp, udp } counter drop"),
            out: ["f"], back: ["f"]
        ),
        Case(
            what: "another family's chain", script: nft("policy drop", family: "ip6")),
        Case(
            what: "a second base chain drops what the first accepts",
            script: nft("policy accept; accept")
                + "; nft 'add table inet g; add chain inet g late { type filter hook forward priority 10; policy drop; }'",
            out: ["late"], back: ["late"]),
        Case(
            what: "another hook",
            script:
                "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; policy drop; }'"
        ),
    ]

    private static func nft(_ rules: String, family: String = "inet", more: String = "") -> String {
        "nft 'table \(family) t { \(more); chain f { type filter hook forward priority 0; \(rules); }; }'"
    }

    @Test(arguments: cases)
    func `what a ruleset cannot let pass between two interfaces is found, and nothing else`(_ one: Case)
        throws
    {
        try inNamespace {
            try shell(
                "set -e; ip link add vgw0 type veth peer name vgw1; ip link add lan type veth peer name lan1\n\(one.script)"
            )
            let netlink = try Netlink()
            let lan = try #require(try netlink.link("lan"))
            let tun = try #require(try netlink.link("vgw0"))
            let ruleset = try NetfilterRuleset.read()
            let out = NetfilterVerdict.chains(
                of: ruleset, dropping: .init(family: one.family, from: lan, to: tun))
            let back = NetfilterVerdict.chains(
                of: ruleset, dropping: .init(family: one.family, from: tun, to: lan))
            #expect(out.map(\.name) == one.out)
            #expect(back.map(\.name) == one.back)
            let generation = try NetfilterRuleset.currentGeneration()
            #expect(ruleset.generation == generation)
            try shell("nft add table inet another")
            #expect(try NetfilterRuleset.currentGeneration() != generation)
        }
    }

    @Test func `a ruleset of ten thousand rules is read and judged in a moment`() throws {
        try inNamespace {
            try shell(
                """
                { echo 'table inet t { chain f { type filter hook forward priority 0; policy drop;'
                seq 10000 | sed 's/.*/iifname "eth&" tcp dport & accept;/'
                echo '}; }'; } | nft -f -
                """)
            let link = NetlinkLink(index: 1, name: "vgw0", mtu: 1420, isUp: true)
            let began = ContinuousClock.now
            let ruleset = try NetfilterRuleset.read()
            let chains = NetfilterVerdict.chains(
                of: ruleset, dropping: .init(family: .v4, from: link, to: link))
            #expect(chains.map(\.name) == ["f"])
            #expect(ContinuousClock.now - began < .seconds(10), "a debug build, on a busy machine")
        }
    }
}
