internal import Glibc
internal import Testing

extension Integration {
    /// Nothing that belongs in a tunnel is seen outside it: the underlay is recorded and searched for a
    /// marker that is in every inner packet.
    @Suite struct Leaks {
        static let marker: [UInt8] = Array("vgwd-marker".utf8)
        /// For `ping -p`.
        static let pattern = marker.map { String($0, radix: 16) }.joined()

        @Test("no inner byte is seen on the underlay")
        func sealed() async throws { try await sideBySide(Pairing.all, Self.sealed) }

        private static func sealed(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                let atOnprem = try await lab.capture("onprem", in: lab.internet, name: "capture-onprem")
                let atVPC = try await lab.capture("vpc", in: lab.internet, name: "capture-vpc")
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

                // This end ends for a restart, and comes back under the same traffic. wireguard-go knows no such end.
                if tunnel.onprem.kind != .wireguardGo {
                    try tunnel.onprem.process.signal(SIGUSR1)
                    try await tunnel.onprem.process.waitForExit()
                    try await tunnel.onprem.start()
                    try await tunnel.reach(from: .onprem)
                }

                for ping in pings { try await ping.killGroup() }
                try await atOnprem.stopSealed()
                try await atVPC.stopSealed()
            }
        }

        /// Packets of this host, and of one behind it, whose address does not go with the TUN.
        @Test(
            "at no end of a run but the operator's stop does anything leave in clear",
            .enabled(if: !Lab.reference, "about vgwd's own routes"))
        func ends() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours, bothInitiate: true)
                let onprem = tunnel.onprem
                try await tunnel.vpc.start()
                let host = try await lab.addHost(behind: .onprem)
                try await Shell.run(
                    "ip addr add 10.10.5.1/32 dev lo; ip addr add fd10::5/128 dev lo", in: onprem.namespace)
                let port = try await lab.start(
                    ["socat", "-u", "UDP4-RECVFROM:51820", "-"], name: "port-taken", in: onprem.namespace)
                try await eventually("the port is taken") {
                    try await Shell.run("ss -Hlun sport = :51820", in: onprem.namespace).contains("51820")
                }

                // Its first start fails.
                try await #require(throws: (any Error).self) { try await onprem.start() }
                let capture = try await lab.capture("onprem", in: lab.internet)
                let own = try await tunnel.markedPings(
                    from: lab.namespace(.onprem), "10.10.5.1", "fd10::5", to: .vpc)
                let forwarded = try await tunnel.markedPings(from: host, "10.10.6.2", "fd10::6:2", to: .vpc)
                try await Task.sleep(for: .seconds(1))
                try await port.kill()
                try await onprem.start()
                try await tunnel.reach(from: .onprem)

                for end in End.allCases {
                    let status = try await end.happen(to: onprem)
                    try #require((status == 0) == (end == .restart), "\(end) ended it with status \(status)")
                    // systemd waits as long.
                    try await Task.sleep(for: .seconds(1))
                    try await onprem.start()
                    try await tunnel.reach(from: .onprem, .v4)
                    try await tunnel.reach(from: .onprem, .v6)
                }

                // Neither socket is a reason to end. What an old server leaves behind does not take the new one's name.
                for _ in 0..<5 {
                    try await Shell.run("rm \(onprem.uapiSocket) \(onprem.controlSocket)")
                    try await eventually("both sockets are there again") {
                        guard try await onprem.status() != nil else { return false }
                        return try await Shell.attempt("wg show \(onprem.interface)", in: onprem.namespace)
                            .succeeded
                    }
                }
                try #require(try onprem.process.exitStatus == nil)
                try await tunnel.ping(from: .onprem, .v4)

                try await capture.stopSealed()

                // The operator's stop lets all of them go: so the pings were there to be seen.
                let open = try await lab.capture("onprem", in: lab.internet, name: "capture-stopped")
                try #require(try await onprem.process.terminate() == 0)
                for source in ["10.10.5.1", "10.10.6.2"] {
                    try await open.holds("an echo of \(source) in clear") {
                        $0.holds(Leaks.marker)
                            && $0.holds(source.split(separator: ".").compactMap { UInt8($0) })
                    }
                }
                for ping in own + forwarded { try await ping.killGroup() }
                try #require(try await onprem.ownRules().isEmpty)
                try #require(try await onprem.ownRoutes().isEmpty)
            }
        }

        enum End: CaseIterable {
            case restart
            case deletedInterface
            case kill

            /// Returns the exit status.
            func happen(to gateway: Gateway) async throws -> Int32 {
                let process = try gateway.process
                switch self {
                case .restart: process.signal(SIGUSR1)
                case .deletedInterface:
                    try await Shell.run("ip link del \(gateway.interface)", in: gateway.namespace)
                case .kill: try await gateway.kill()
                }
                return try await process.waitForExit()
            }
        }

        @Test(
            "what is for a tunnel does not leave in clear while its interface is down",
            .enabled(if: !Lab.reference, "about vgwd's own routes"))
        func interfaceDown() async throws {
            try await Tunnel.run(.ours, bothInitiate: true) { tunnel in
                let onprem = tunnel.onprem
                try await Shell.run(
                    "ip addr add 10.10.5.1/32 dev lo; ip addr add fd10::5/128 dev lo", in: onprem.namespace)
                let capture = try await tunnel.lab.capture("onprem", in: tunnel.lab.internet)
                try await Shell.run("ip link set \(onprem.interface) down", in: onprem.namespace)
                for (source, family) in [("10.10.5.1", Family.v4), ("fd10::5", .v6)] {
                    let answer = try await Shell.attempt(
                        "ping -c 5 -i 0.1 -W 1 -p \(Leaks.pattern) -I \(source) \(Site.vpc.inside(family))",
                        in: onprem.namespace)
                    try #require(!answer.succeeded, "an echo came back without a tunnel")
                }
                try await Shell.run("ip link set \(onprem.interface) up", in: onprem.namespace)
                try await tunnel.reach(from: .onprem)
                try await capture.stopSealed()
            }
        }

        @Test(
            "a guard that was left is taken away by hand, and not while its gateway runs",
            .enabled(if: !Lab.reference, "about vgwd's own routes"))
        func unguard() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                let command = "\(Programs.path("vgwd")) unguard --config \(try onprem.writeConfiguration())"
                let refused = try await Shell.attempt(command, in: onprem.namespace)
                try #require(
                    !refused.succeeded && refused.errors.contains(String(try onprem.process.pid)),
                    "\(refused)")
                try await tunnel.ping(from: .onprem, .v4)
                try await onprem.kill()
                try #require(try await !onprem.ownRules().isEmpty)
                try await Shell.run(command, in: onprem.namespace)
                try #require(try await onprem.ownRules().isEmpty)
                try #require(try await onprem.ownRoutes().isEmpty)
            }
        }
    }
}

extension Capture {
    /// Stops it: there are outer packets in it, and the marker in none.
    fileprivate func stopSealed() async throws {
        let frames = try await stop()
        try #require(frames.contains { CapturedDatagram(frame: $0)?.destinationPort == 51820 })
        let clear = frames.count { $0.holds(Integration.Leaks.marker) }
        try #require(clear == 0, "\(clear) of \(frames.count) frames hold the marker")
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
        try await markedPings(from: lab.namespace(site), site.inside(.v4), site.inside(.v6), to: site.other)
    }

    /// The same from other addresses.
    func markedPings(
        from namespace: String, _ v4: String, _ v6: String, to site: Site
    ) async throws -> [BackgroundProcess] {
        var pings: [BackgroundProcess] = []
        for (family, source) in [(Family.v4, v4), (.v6, v6)] {
            pings.append(
                try await lab.start(
                    [
                        "setsid", "bash", "-c",
                        "while :; do ping \(family.option) -q -i 0.05 -p \(Integration.Leaks.pattern) -c 100 -W 1 "
                            + "-I \(source) \(site.inside(family)); sleep 0.1; done",
                    ], name: "ping-\(source)", in: namespace))
        }
        return pings
    }
}
