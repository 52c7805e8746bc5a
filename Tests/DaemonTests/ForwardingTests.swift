import Daemon
internal import GatewayCore
import LinuxIO
import TestSupport
import Testing
import WireGuard

/// Whether this host forwards between the networks behind it and its tunnels.
@Suite struct ForwardingTests {
    private static let setUp = """
        ip link add lan type veth peer name lan2; ip link set lan up; ip link set lan2 up
        ip link add wan type veth peer name wan2; ip link set wan up; ip link set wan2 up
        ip tuntap add vgw0 mode tun; ip link set vgw0 up
        ip addr add 192.168.10.1/24 dev lan; ip addr add 192.0.2.10/24 dev wan
        sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lan.disable_ipv6=0
        ip addr add fd10::1/64 dev lan nodad
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

        """

    private static func problems(
        _ script: String, families: Set<IPAddress.Family> = [.v4], outer: Set<String> = ["wan"]
    ) throws -> [ForwardingProblem] {
        try inNamespace {
            try shell("set -e\n" + setUp + script)
            let question = ForwardingSurvey.Question(
                interface: "vgw0", outerInterfaces: outer, families: families,
                networks: LocalNetwork.all(except: "vgw0"))
            return ForwardingSurvey(question).problems
        }
    }

    @Test func `a host that forwards has no problem`() throws {
        #expect(try Self.problems(":", families: [.v4, .v6]) == [])
    }

    /// What is set, the families carried, what is said and what is to be done.
    private static let switches: [(String, Set<IPAddress.Family>, [String], String)] = [
        (
            "net.ipv4.ip_forward=0", [.v4, .v6], ["does not forward IPv4 packets (net.ipv4.ip_forward = 0)"],
            "sysctl -w net.ipv4.ip_forward=1"
        ),
        ("net.ipv4.ip_forward=0", [.v6], [], ""),
        (
            "net.ipv6.conf.all.forwarding=0", [.v4, .v6],
            ["does not forward IPv6 packets (net.ipv6.conf.all.forwarding = 0)"],
            "sysctl -w net.ipv6.conf.all.forwarding=1"
        ),
        ("net.ipv6.conf.all.forwarding=0", [.v4], [], ""),
        (
            "net.ipv4.conf.lan.forwarding=0", [.v4],
            ["does not forward what comes by lan (net.ipv4.conf.lan.forwarding = 0)"],
            "sysctl -w net.ipv4.conf.lan.forwarding=1"
        ),
        (
            "net.ipv4.conf.vgw0.forwarding=0", [.v4],
            ["does not forward what comes by vgw0 (net.ipv4.conf.vgw0.forwarding = 0)"],
            "sysctl -w net.ipv4.conf.vgw0.forwarding=1"
        ),
        // Nothing that is to be forwarded comes by it.
        ("net.ipv4.conf.wan.forwarding=0", [.v4], [], ""),
    ]

    @Test(arguments: switches)
    func `a setting that keeps the kernel from forwarding is named, with the command that mends it`(
        setting: String, families: Set<IPAddress.Family>, says: [String], remedy: String
    ) throws {
        let problems = try Self.problems("sysctl -qw \(setting)", families: families)
        #expect(problems.count == says.count)
        for (problem, words) in zip(problems, says) {
            #expect(problem.description.contains(words))
            #expect(problem.remedy.contains(remedy) && problem.remedy.contains("/etc/sysctl.d/vgwd.conf"))
            #expect(problem.remedy.hasPrefix("what is behind lan does not get into the tunnels"))
        }
    }

    @Test func `a host with no other interface may use its tunnels alone, and the words say so`() throws {
        let problems = try Self.problems("ip addr flush dev lan; sysctl -qw net.ipv4.ip_forward=0")
        #expect(problems.count == 1)
        #expect(
            problems.first?.remedy.hasPrefix("only its own packets get into the tunnels: where other hosts")
                == true)
    }

    @Test func `networks of containers and other tunnels are none behind this gateway`() throws {
        let problems = try Self.problems(
            """
            ip link add docker0 type bridge; ip link set docker0 up; ip addr add 172.17.0.1/16 dev docker0
            sysctl -qw net.ipv4.conf.docker0.forwarding=0
            """)
        #expect(problems == [])
    }

    /// Whose rules, and what lets the tunnel through.
    private static let firewalls: [(String, chain: String, command: String)] = [
        (
            "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER",
            "chain FORWARD of nftables' table ip filter",
            "iptables -I DOCKER-USER -i vgw0 -j ACCEPT; iptables -I DOCKER-USER -o vgw0 -j ACCEPT"
        ),
        (
            "iptables-nft -P FORWARD DROP", "chain FORWARD of nftables' table ip filter",
            "iptables -I FORWARD -i vgw0 -j ACCEPT; iptables -I FORWARD -o vgw0 -j ACCEPT"
        ),
        (
            "iptables-nft -P FORWARD DROP; iptables-nft -N ufw-user-forward", "chain FORWARD of",
            "ufw route allow in on vgw0; ufw route allow out on vgw0"
        ),
        (
            "nft 'table inet own { chain f { type filter hook forward priority 0; policy drop; }; }'",
            "chain f of nftables' table inet own drops what goes between lan and vgw0",
            "nft insert rule inet own f iifname vgw0 accept; nft insert rule inet own f oifname vgw0 accept"
        ),
        (
            "nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; reject; }; }'",
            "chain filter_FORWARD of",
            "firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface=lan) --add-interface=vgw0"
        ),
    ]

    @Test(arguments: firewalls)
    func `a firewall that drops what goes between a network and the tunnel is named, with its own command`(
        script: String, chain: String, command: String
    ) throws {
        let problem = try #require(try Self.problems(script).first)
        #expect(problem.description.contains(chain))
        #expect(problem.remedy.contains(command))
        // The command mends it, where its program is here.
        guard !command.hasPrefix("ufw"), !command.hasPrefix("firewall-cmd") else { return }
        #expect(
            try Self.problems(script + "\n" + command.replacing("iptables ", with: "iptables-nft ")) == [])
    }

    @Test func `what a firewall lets through in one direction is left to it`() throws {
        let script = "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i lan -o vgw0 -j ACCEPT"
        #expect(try Self.problems(script) == [])
    }

    @Test func `a check warns of it at the gateway's table`() throws {
        var surroundings = Surroundings()
        let found = try Self.problems("sysctl -qw net.ipv4.ip_forward=0")
        surroundings.forwardingProblems = { $0.families == [.v4] && $0.interface == "vgw0" ? found : [] }
        let configuration = try GatewayConfiguration.parse(
            ConfigurationExamples.text(), path: "/etc/vgwd/vgwd.toml", files: ConfigurationExamples.files,
            surroundings: surroundings)
        #expect(configuration.warnings.map(\.problem) == found.map(\.description))
        #expect(configuration.warnings.first?.line == 1)
        surroundings.forwardingProblems = { _ in [] }
        surroundings.hasLegacyFilter = true
        let legacy = try GatewayConfiguration.parse(
            ConfigurationExamples.text(), path: "/etc/vgwd/vgwd.toml", files: ConfigurationExamples.files,
            surroundings: surroundings)
        #expect(legacy.warnings.first?.problem.contains("iptables-legacy has a filter table") == true)
    }
}
