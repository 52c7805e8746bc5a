internal import Glibc
internal import Testing

extension Integration {
    /// Nothing that belongs in a tunnel is seen outside it: the underlay is recorded and searched for a
    /// marker that is in every inner packet.
    @Suite struct Leaks {
        static let marker: [UInt8] = Array("vgwd-marker".utf8)
        /// For `ping -p`.
        static let pattern = marker.map { String($0, radix: 16) }.joined()

        @Test("no inner byte is seen on the underlay", arguments: Pairing.all)
        func sealed(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                let captures = [
                    try await lab.capture("onprem", in: lab.internet, name: "capture-onprem"),
                    try await lab.capture("vpc", in: lab.internet, name: "capture-vpc"),
                ]
                let tunnel = try await Tunnel.make(in: lab, pairing, bothInitiate: true)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                let inside = try await lab.capture(
                    tunnel.onprem.interface, in: tunnel.onprem.namespace, name: "capture-inside")
                let pings = try await tunnel.markedPings(from: .onprem)
                // That the marker is there to be found, and that this search finds it.
                try await inside.holds(Leaks.marker)
                _ = try await inside.stop()

                // The other end goes and comes back: packets wait, or are lost, but stay inside.
                try await tunnel.vpc.kill()
                try await Task.sleep(for: .seconds(2))
                try await tunnel.vpc.start()
                try await tunnel.reach(from: .onprem)

                // A daemon that hangs: the kernel keeps its packets for it.
                try tunnel.onprem.process.signal(SIGSTOP)
                try await Task.sleep(for: .seconds(1))
                try tunnel.onprem.process.signal(SIGCONT)
                try await tunnel.reach(from: .onprem)

                // This end stops as an operator stops it, and comes back under the same traffic. Without the
                // address an IPv4 socket that is bound to it cannot send; Linux lets an IPv6 one go on, by
                // the default route, and no daemon that is not there can help that. wireguard-go's end leaves
                // the IPv4 one a moment with an address and without a route.
                let isGo = tunnel.onprem.kind == .wireguardGo
                for ping in pings.dropFirst(isGo ? 0 : 1) { try await ping.killGroup() }
                _ = try await tunnel.onprem.process.terminate()
                try await tunnel.onprem.start()
                try await tunnel.reach(from: .onprem)

                for ping in pings { try await ping.killGroup() }
                for capture in captures {
                    let frames = try await capture.stop()
                    try #require(frames.contains { CapturedDatagram(frame: $0)?.destinationPort == 51820 })
                    let clear = frames.count { $0.holds(Leaks.marker) }
                    try #require(clear == 0, "\(clear) of \(frames.count) frames hold the marker")
                }
            }
        }

        /// For hosts behind the gateway too, whose addresses do not go with the TUN.
        @Test(
            "what is for a tunnel does not leave in clear while its interface is down or its daemon was killed",
            .enabled(if: !Lab.reference, "about vgwd's own routes"))
        func closed() async throws {
            try await Tunnel.run(.ours, bothInitiate: true) { tunnel in
                let onprem = tunnel.onprem
                try await Shell.run(
                    "ip addr add 10.10.5.1/32 dev lo; ip addr add fd10::5/128 dev lo", in: onprem.namespace)
                let capture = try await tunnel.lab.capture("onprem", in: tunnel.lab.internet)
                func knock() async throws {
                    for (source, family) in [("10.10.5.1", Family.v4), ("fd10::5", .v6)] {
                        let answer = try await Shell.attempt(
                            "ping -c 5 -i 0.1 -W 1 -p \(Leaks.pattern) -I \(source) \(Site.vpc.inside(family))",
                            in: onprem.namespace)
                        try #require(!answer.succeeded, "an echo came back without a tunnel")
                    }
                }
                try await Shell.run("ip link set \(onprem.interface) down", in: onprem.namespace)
                try await knock()
                try await onprem.kill()
                try await knock()
                try await onprem.start()
                try await tunnel.reach(from: .onprem)
                let frames = try await capture.stop()
                try #require(!frames.isEmpty)
                let clear = frames.count { $0.holds(Leaks.marker) }
                try #require(clear == 0, "\(clear) of \(frames.count) frames hold the marker")
            }
        }
    }
}

extension [UInt8] {
    /// Whether the bytes stand somewhere in these, in this order and without a gap.
    func holds(_ bytes: [UInt8]) -> Bool {
        guard bytes.count <= count else { return false }
        return (0...count - bytes.count).contains { start in
            bytes.indices.allSatisfy { self[start + $0] == bytes[$0] }
        }
    }
}

extension Tunnel {
    /// Endless echoes with the marker in them, of IPv4 and then of IPv6, that outlive the interface they started on.
    func markedPings(from site: Site) async throws -> [BackgroundProcess] {
        var pings: [BackgroundProcess] = []
        for family in Family.allCases {
            pings.append(
                try await lab.start(
                    [
                        "setsid", "bash", "-c",
                        "while :; do ping \(family.option) -q -i 0.05 -p \(Integration.Leaks.pattern) -c 100 -W 1 "
                            + "-I \(site.inside(family)) \(site.other.inside(family)); sleep 0.1; done",
                    ], name: "ping-\(family)", in: lab.namespace(site)))
        }
        return pings
    }
}
