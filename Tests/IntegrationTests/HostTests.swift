internal import ControlAPI
internal import Testing

extension Integration {
    /// What the host around a gateway keeps from it, and what the status says of it.
    @Suite(.enabled(if: !Lab.reference, "about what vgwd says")) struct Host {
        @Test(
            "what an output filter drops is said within seconds, with what to do, and no longer once it passes"
        )
        func outputFilter() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                // Data alone shows it: the tunnel is not probed.
                let flow = try await tunnel.lab.start(
                    ["ping", "-i", "0.2", Site.vpc.inside(.v4)], name: "flow", in: onprem.namespace)
                try await Shell.run(
                    "nft 'table inet deny { chain o { type filter hook output priority 0; oifname wan udp dport 51820 drop; }; }'",
                    in: onprem.namespace)
                try await eventually("the reason is shown", within: .seconds(4)) {
                    let status = try await onprem.tunnelStatus()
                    return status.reason
                        == "sending to 198.51.100.10:51820 fails: Operation not permitted (EPERM)"
                        && status.hint?.hasPrefix("a firewall of this host drops it on its way out") == true
                }
                try await eventually("it is in the log", within: .seconds(4)) {
                    tunnel.lab.log(of: try onprem.process).contains("sending fails")
                }
                try #require(try await onprem.drops("send-failed") > 0)
                try await Shell.run("nft delete table inet deny", in: onprem.namespace)
                try await eventually("it is gone", within: .seconds(4)) {
                    try await onprem.tunnelStatus().reason == nil
                }
                flow.signal(15)
                try await tunnel.reach(from: .onprem)
            }
        }

        @Test(
            "a bound source address that is taken away takes its tunnel along at once, and back",
            arguments: Family.allCases)
        func lostSource(_ family: Family) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours, underlay: family)
                let (onprem, source) = (tunnel.onprem, Site.onprem.secondUnderlay(family))
                let settings = onprem.settings
                onprem.change {
                    $0.connections = [
                        ConnectionText(
                            name: "vpc", routes: settings.routes, lines: [],
                            tunnels: [
                                ConnectionText.TunnelText(
                                    name: "to-vpc", publicKey: settings.peerPublicKey,
                                    lines: [
                                        "endpoint = [\"\(settings.endpoint ?? "")\"]",
                                        "bind = { source = \"\(source)\" }",
                                    ])
                            ])
                    ]
                }
                let address = "\(source)/\(family.linkPrefix) dev wan"
                try await Shell.run("ip addr add \(address)", in: onprem.namespace)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                for _ in 0..<2 {
                    try await Shell.run("ip addr del \(address)", in: onprem.namespace)
                    try await eventually("the reason is shown", within: .seconds(3)) {
                        let status = try await onprem.tunnelStatus()
                        return status.state == .down && status.reasonCode == "interface-down"
                            && status.reason == "\(source), which it is bound to, is no address of this host"
                            && status.hint?.hasPrefix("give it back (ip address add \(source)/") == true
                    }
                    try await Shell.run("ip addr add \(address)", in: onprem.namespace)
                    try await tunnel.reach(from: .onprem)
                    try #require(try await onprem.tunnelStatus().reason == nil)
                }
            }
        }

        @Test("two hosts with one key are named, with both addresses")
        func sharedKey() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours, keepalive: 1)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                let (clone, onprem) = (try await lab.addNamespace("clone"), tunnel.onprem)
                try await Shell.run(
                    """
                    set -e
                    ip link add wan netns \(clone) type veth peer name clone netns \(lab.internet)
                    ip -n \(clone) link set wan up
                    ip -n \(lab.internet) link set clone up
                    ip -n \(clone) addr add 203.0.113.130/24 dev wan
                    ip -n \(lab.internet) addr add 203.0.113.129/24 dev clone
                    ip -n \(clone) route add default via 203.0.113.129
                    """)
                // As a cloned machine has it; both are on one host here, so what is a host's is another one's.
                let other = String(onprem.interface.dropLast()) + "z"
                lab.removeAtEnd("/var/run/wireguard/\(other).sock")
                let copy = "\(lab.directory)/clone.toml"
                try await Shell.run(
                    """
                    sed -e 's/\(onprem.interface)/\(other)/' -e 's/onprem-state/clone-state/' \
                        -e 's/onprem-control/clone-control/' \(try onprem.writeConfiguration()) >\(copy)
                    """)
                _ = try await lab.start([Programs.path("vgwd"), "--config", copy], name: "clone", in: clone)
                let words =
                    "two hosts use the key of tunnel to-onprem: 192.0.2.10:51820 and 203.0.113.130:51820; "
                    + "give each a key of its own"
                try await eventually("vpc says so", within: .seconds(30)) {
                    try await tunnel.vpc.status()?.connections.first?.notices == [words]
                }
                let events = try await tunnel.vpc.events(.keyShared)
                try #require(events.map(\.message) == [words])
                try #require(lab.log(of: try tunnel.vpc.process).contains("key shared"))
            }
        }

        @Test(
            "a host that does not forward is told of while it does not, and so is a firewall that drops what it forwards"
        )
        func forwarding() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                let onprem = tunnel.onprem
                _ = try await lab.addHost(behind: .onprem)
                try await tunnel.start()
                // A change of links is a reason to look again soon.
                let look = "ip link add look type bridge; ip link del look"
                func say(_ words: String?, after command: String) async throws {
                    try await Shell.run("\(command); \(look)", in: onprem.namespace)
                    try await eventually("\(words ?? "nothing") is said", within: .seconds(15)) {
                        let notices = (try await onprem.status()?.notices ?? [])
                        guard let words else { return notices.isEmpty }
                        return notices.count == 1 && notices[0].contains(words)
                    }
                }
                try await say(nil, after: ":")
                try await say(
                    "this host does not forward IPv4 packets (net.ipv4.ip_forward = 0): what is behind lan does not",
                    after: "sysctl -qw net.ipv4.ip_forward=0")
                let check = try await Shell.attempt(
                    "\(Programs.path("vgwd")) check --config \(try onprem.writeConfiguration())",
                    in: onprem.namespace)
                try #require(
                    check.status == 0 && check.errors.contains("does not forward IPv4 packets"), "\(check)")
                try await say(nil, after: "sysctl -qw net.ipv4.ip_forward=1")
                let chain =
                    "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER"
                try await say(
                    "drops what goes between lan and \(onprem.interface): iptables -I DOCKER-USER -i",
                    after: chain)
                try await say(
                    nil,
                    after: "iptables-nft -I DOCKER-USER -i \(onprem.interface) -j ACCEPT; "
                        + "iptables-nft -I DOCKER-USER -o \(onprem.interface) -j ACCEPT")
                try #require(try await onprem.events(.forwardingBlocked).count == 2)
                try #require(try await onprem.events(.forwardingRestored).count == 2)
            }
        }

        @Test("what wg makes different from the file is logged and shown until it is as before")
        func changedByWg() async throws {
            try await Lab.run { lab in
                let shared = try await KeyPair.presharedKey()
                let tunnel = try await Tunnel.make(in: lab, .ours, presharedKey: shared)
                let onprem = tunnel.onprem
                try await tunnel.start()
                func notice() async throws -> String? {
                    try await onprem.status()?.notices?.first {
                        $0.hasPrefix("differs from the file by wg: ")
                    }
                }
                try #require(try await notice() == nil)
                let peer = "set \(onprem.interface) peer \(onprem.settings.peerPublicKey)"
                try await onprem.wg(
                    "\(peer) persistent-keepalive 25 allowed-ips 10.20.0.0/16,fd20::/48,10.9.0.0/16")
                try #require(
                    try await notice()
                        == "differs from the file by wg: tunnel to-vpc: keepalive 25 s, not off; tunnel to-vpc: "
                        + "allowed IPs +10.9.0.0/16 (a restart goes back to the file)")
                try await onprem.wg("\(peer) persistent-keepalive 0")
                try #require(try await notice()?.contains("keepalive") == false)
                try await onprem.wg("\(peer) allowed-ips 10.20.0.0/16,fd20::/48")
                try #require(try await notice() == nil)
                let events = try await onprem.events(.changedByWg)
                try #require(events.map(\.reason) == ["not-in-file", "not-in-file", "as-in-file"])
                try #require(
                    events.allSatisfy { $0.message.hasPrefix("wg, run by user root, set: tunnel to-vpc: ") })
                try #require(lab.log(of: try onprem.process).contains("changed by wg"))
                // The same again changes nothing.
                try await onprem.wg("\(peer) persistent-keepalive 0")
                try #require(try await onprem.events(.changedByWg).count == 3)
            }
        }

        @Test("a key that wg takes away is in no memory of the process any more, in no form")
        func removedKeys() async throws {
            try await Lab.run { lab in
                let shared = try await KeyPair.presharedKey()
                let tunnel = try await Tunnel.make(in: lab, .ours, presharedKey: shared)
                let onprem = tunnel.onprem
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                let memory = ProcessMemory(process: try onprem.process.pid)
                let second = try await KeyPair.generate()
                let secrets = [onprem.settings.keys.privateKey, shared, second.privateKey]
                let patterns = try secrets.flatMap { try ProcessMemory.forms(ofBase64: $0) }
                let before = try memory.count(patterns)
                // It finds what there is: each key's bytes, in locked memory; their text nowhere.
                try #require(before[0] > 0 && before[3] > 0, "\(before)")
                try #require(
                    before.enumerated().allSatisfy { $0.element == 0 || [0, 3].contains($0.offset) },
                    "\(before)")
                // It tells them, and takes others.
                try await onprem.wg("showconf \(onprem.interface)")
                let file = try lab.write(second.privateKey + "\n", to: "second.key")
                let psk = try lab.write(shared + "\n", to: "again.key")
                let peer = "set \(onprem.interface) peer \(onprem.settings.peerPublicKey)"
                try await onprem.wg("set \(onprem.interface) private-key \(file)")
                try await onprem.wg("\(peer) preshared-key \(psk)")
                try await onprem.wg("showconf \(onprem.interface)")
                try await onprem.wg("set \(onprem.interface) private-key /dev/null")
                try await onprem.wg("\(peer) remove")
                // A client that leaves in the middle of a line, and one that says a key where none may be.
                let hex = String(decoding: try ProcessMemory.forms(ofBase64: shared)[2], as: UTF8.self)
                for text in [
                    "private_key=\(hex)\\n\\n", "set=1\\npreshared_key=\(hex)\\n\\n",
                    "set=1\\nprivate_key=\(hex)",
                ] {
                    _ = try await Shell.attempt(
                        "printf '\(text)' | socat -t 0.2 - UNIX-CONNECT:\(onprem.uapiSocket)")
                }
                try await eventually("none is left", within: .seconds(5)) {
                    let left = try memory.count(patterns)
                    guard left.allSatisfy({ $0 == 0 }) else { throw LabError("\(left)") }
                    return true
                }
            }
        }
    }
}
