import ControlAPI
import Testing

@testable import vgwctl

@Suite struct StatusReportTests {
    private func tunnel(_ name: String, _ state: TunnelState, reason: String? = nil) -> TunnelStatus {
        TunnelStatus(
            name: name, connection: "aws", publicKey: ConfigurationExamples.peer, hasPresharedKey: true,
            cipher: "aes-256-gcm", state: state, reason: reason,
            hint: reason.map { _ in "Is UDP let through?" }, endpoint: "192.0.2.7:51820",
            configuredEndpoint: nil, lastHandshake: 1, lastHandshakeAge: state == .up ? 75 : nil,
            rxBytes: 1536,
            txBytes: 12, rxPackets: 1, txPackets: 1, lastReceivedAge: nil, persistentKeepalive: 0,
            stagedPackets: 0)
    }

    private var status: GatewayStatus {
        GatewayStatus(
            version: "0.1.0", name: "onprem", interface: "vgw0", isInterfaceUp: true, mtu: 1420,
            addresses: [], listenPort: 51820,
            publicKey: ConfigurationExamples.peer, firewallMark: nil, uptime: 7500,
            offloads: OffloadStatus(udpGSO: true, udpGRO: false, tunTSO: true, tunUSO: true),
            workers: 1, isSingleThreaded: false,
            connections: [
                ConnectionStatus(
                    name: "aws", state: .up, routes: ["10.0.0.0/8"], policy: "failover",
                    tunnels: [
                        tunnel("a", .up),
                        tunnel("b", .down, reason: "no answer from 192.0.2.7:51820 for 35 s"),
                    ])
            ], drops: ["replayed": 3, "no-route": 12, "mac1-invalid": 0])
    }

    private func text(_ status: GatewayStatus, width: Int = 80, showsDrops: Bool = false) -> String {
        StatusReport(showsDrops: showsDrops, width: width).lines(for: status).joined(separator: "\n")
    }

    @Test func anInterfaceThatIsDownIsSaidFirstAndNothingIsGreenThen() {
        var status = status
        status.isInterfaceUp = false
        status.connections[0].state = .down
        let lines = StatusReport().lines(for: status)
        #expect(
            lines[2...5] == [
                "1 connection down", "vgw0 is down: nothing passes", "  ip link set vgw0 up", "",
            ])
        let green = Palette(isOn: true).green("up")
        let coloured = StatusReport(palette: Palette(isOn: true))
        #expect(!coloured.lines(for: status).joined().contains(green))
        status.isInterfaceUp = true
        status.connections[0].state = .up
        #expect(coloured.lines(for: status).joined().contains(green))
        // A connection of one tunnel has one row, and its session makes it no better.
        status.isInterfaceUp = false
        status.connections = [connection("only", .down, [.up])]
        #expect(StatusReport().lines(for: status)[7].hasPrefix("only/only-0  down"))
    }

    @Test func aPersonReadsStateAgeTrafficAndWhy() {
        #expect(
            text(status) == """
                onprem on vgw0, UDP port 51820, mtu 1420, up 2 h 5 min, vgwd 0.1.0
                offloads: on but for udp-gro; threads: one out, one in
                1 connection degraded

                CONNECTION  STATE         HANDSHAKE  RECEIVED  SENT
                aws         degraded 1/2
                  a         up            1m15s      1.50 KiB  12 B
                  b         down          never      1.50 KiB  12 B

                b: no answer from 192.0.2.7:51820 for 35 s
                  Is UDP let through?
                """)
        #expect(text(status, width: 100).contains("12 B  192.0.2.7:51820, aes-256-gcm\n"))
    }

    private var troubled: GatewayStatus {
        var status = status
        var a = tunnel("zone-a", .degraded, reason: "12 % of the probes of the last 10 s were lost")
        a.cipher = "chacha20-poly1305"
        (a.since, a.isActive, a.underlayDevice, a.isProbed) = (7500, true, "eth1", true)
        a.windows = [
            WindowStatus(seconds: 1, roundTrip: 0.5, jitter: 0.1, loss: 0),
            WindowStatus(seconds: 10, roundTrip: 0.01234, jitter: 0.0001, loss: 0.12),
        ]
        var b = tunnel("zone-b", .down, reason: "probes are not answered by 169.254.101.1 for 35 s")
        b.cipher = "chacha20-poly1305"
        (b.since, b.isActive, b.isPreferred, b.holdDown, b.isProbed) = (35, false, true, 7.2, true)
        var aws = ConnectionStatus(
            name: "aws", state: .up, routes: ["10.0.0.0/8"], policy: "failover", tunnels: [a, b])
        (aws.isUsable, aws.since, aws.flaps, aws.metric, aws.rto) = (true, 90_000, 2, 50, 1)
        aws.activeTunnels = ["zone-a"]
        aws.notices = ["targets do not answer by any tunnel: is there a way back to 169.254.101.2?"]
        var off = tunnel("office", .disabled)
        off.cipher = "chacha20-poly1305"
        off.connection = "office"
        (off.since, off.isProbed) = (3, true)
        var office = ConnectionStatus(
            name: "office", state: .down, routes: ["10.9.0.0/16"], policy: "failover", tunnels: [off])
        (office.isUsable, office.onDown) = (false, "unreachable")
        status.connections = [aws, office]
        status.hooks = HookStatus(started: 17, failures: 3, queueFull: 0)
        return status
    }

    @Test func whatIsInTroubleComesFirstWithin80Columns() {
        #expect(
            StatusReport().lines(for: troubled).dropFirst(2).joined(separator: "\n") == """
                1 connection degraded, 1 down

                CONNECTION  STATE         FOR       RTT  LOSS  RECEIVED  SENT
                office      disabled      3s          -     -  1.50 KiB  12 B
                aws         degraded 1/2  1d1h
                * zone-a    degraded      2h5m  12.3 ms  12 %  1.50 KiB  12 B
                  zone-b    down          35s         -     -  1.50 KiB  12 B

                office: no usable tunnel: its routes are unreachable

                zone-a: 12 % of the probes of the last 10 s were lost
                  Is UDP let through?
                zone-b: probes are not answered by 169.254.101.1 for 35 s
                  Is UDP let through?

                aws: targets do not answer by any tunnel: is there a way back to 169.254.101.2?

                zone-b: preferred by an operator until 'vgwctl tunnel unprefer zone-b'

                hooks: 3 of 17 failed, 0 came too late to start
                  vgwctl events, and the log of vgwd, say why
                """)
        let wide = text(troubled, width: 120)
        #expect(wide.contains("12 B  192.0.2.7:51820, preferred, held down 8s\n"))
        #expect(wide.contains("  failover, metric 50, 2 flaps\n"))
        #expect(wide.contains("12 B  192.0.2.7:51820 by eth1\n"))
    }

    @Test("no line is longer than the terminal, and every state is there", arguments: [60, 80, 100])
    func width(_ width: Int) {
        let lines = StatusReport(width: width).lines(for: troubled)
        #expect(lines.allSatisfy { $0.count <= width }, "\(lines.filter { $0.count > width })")
        #expect(lines.contains { $0.hasPrefix("  zone-b    down          35s") })
        let one = StatusReport(width: width).lines(for: troubled.connections[0], of: troubled)
        #expect(one.allSatisfy { $0.count <= width }, "\(one.filter { $0.count > width })")
        #expect(StatusReport(width: width).lines(for: many).allSatisfy { $0.count <= width })
    }

    private func connection(
        _ name: String, _ state: ConnectionStatus.State, _ tunnels: [TunnelState]
    ) -> ConnectionStatus {
        var connection = ConnectionStatus(
            name: name, state: state, routes: ["10.0.0.0/16"], policy: "failover",
            tunnels: tunnels.enumerated().map { place, state in
                var tunnel = tunnel("\(name)-\(place)", state, reason: state == .up ? nil : "no answer")
                (tunnel.isProbed, tunnel.isActive, tunnel.since) = (true, place == 0, 90_000)
                tunnel.windows = [WindowStatus(seconds: 10, roundTrip: 0.01, loss: 0)]
                return tunnel
            })
        connection.since = 90_000
        return connection
    }

    /// 50 connections of four tunnels, of which two are in trouble.
    private var many: GatewayStatus {
        var status = status
        status.connections = (1...50).map { connection("site-\($0)", .up, [.up, .up, .up, .up]) }
        status.connections[20] = connection("site-21", .up, [.up, .degraded, .up, .down])
        status.connections[40] = connection("site-41", .down, [.down, .down, .down, .down])
        return status
    }

    @Test func ofManyConnectionsEachThatIsWellHasALine() {
        let lines = StatusReport().lines(for: many)
        #expect(lines[2] == "48 connections usable, 1 degraded, 1 down")
        #expect(
            lines[4...15].map { String($0.prefix(24)) } == [
                "CONNECTION   STATE      ", "site-41      down 0/4   ", "* site-41-0  down       ",
                "  site-41-1  down       ", "  site-41-2  down       ", "  site-41-3  down       ",
                "site-21      degraded 3/", "* site-21-0  up         ", "  site-21-1  degraded   ",
                "  site-21-2  up         ", "  site-21-3  down       ", "site-1       up 4/4     ",
            ])
        #expect(lines[15] == "site-1       up 4/4        1d1h  10.0 ms   0 %  6.00 KiB  48 B")
        #expect(lines.count == 4 + 1 + 10 + 48 + 1 + 8 + 1 + 4)
        var all = many
        all.connections = all.connections.map { connection($0.name, .down, [.down, .down, .down, .down]) }
        let worst = StatusReport().lines(for: all)
        #expect(worst[2] == "50 connections down")
        #expect(worst.last == "and 192 more tunnels: 'vgwctl status CONNECTION' says why")
    }

    @Test(
        "the exit status tells the worst connection",
        arguments: [
            ([], nil), ([.up, .up], 0), ([.idle], 0), ([.connecting], 2), ([.up, .connecting], 2),
            ([.up, .degraded], 2), ([.up, .down], 2), ([.up, .disabled], 2), ([.down], 3), ([.disabled], 3),
        ] as [([TunnelState], Int32?)])
    func exitStatus(_ tunnels: [TunnelState], _ status: Int32?) {
        let well = connection("well", .up, [.up])
        let state: ConnectionStatus.State =
            tunnels.contains(.up)
            ? .up : tunnels.allSatisfy { [.down, .disabled].contains($0) } ? .down : .idle
        let others = tunnels.isEmpty ? [] : [well, connection("other", state, tunnels), well]
        #expect(Condition.worst(of: others)?.exitStatus == status)
        // By the word of a daemon that says so, whatever its tunnels do.
        var unusable = connection("other", .up, [.up])
        unusable.isUsable = false
        #expect(Condition(unusable).exitStatus == 3)
    }

    @Test func aTunnelWhoseNameIsBeingLookedUpIsNotYetUsable() {
        var idle = connection("site", .idle, [.idle])
        #expect(Condition(idle) == .usable)
        idle.tunnels[0].endpoint = nil
        #expect(Condition(idle) == .usable, "the far end comes to it")
        idle.tunnels[0].configuredEndpoint = "vpn.example.com:51820"
        #expect(Condition(idle) == .connecting)
    }

    @Test func aConnectionWithoutRoutesSpeaksOfNone() {
        var status = status
        var bare = connection("bare", .down, [.down])
        (bare.routes, bare.isUsable, bare.onDown) = ([], false, "unreachable")
        status.connections = [bare]
        let shown = text(status)
        #expect(shown.contains("bare: no usable tunnel, and no routes\n"))
        #expect(!shown.contains("unreachable") && !shown.contains("nothing is sent"))
        status.connections = [connection("bare", .up, [.up])]
        status.connections[0].routes = []
        #expect(text(status).hasSuffix("bare: no routes, so nothing is sent there"))
    }

    @Test func oneConnectionIsShownWithAllThatIsKnown() {
        let lines = StatusReport().lines(for: troubled.connections[0], of: troubled)
        #expect(
            lines.prefix(14).joined(separator: "\n") == """
                connection      aws
                state           degraded for 1 d 1 h, 1 of 2 tunnels up
                carried by      zone-a
                policy          failover
                metric          50
                routes          10.0.0.0/8
                rto             1 s
                flaps           2

                aws: targets do not answer by any tunnel: is there a way back to 169.254.101.2?

                zone-b: preferred by an operator until 'vgwctl tunnel unprefer zone-b'

                tunnel          zone-a of aws
                """)
        #expect(lines.contains("tunnel          zone-b of aws"))
    }

    @Test func anAnswerOfTheFirstVersionIsRead() throws {
        let old = try JSON.encode(status)
        #expect(!String(decoding: old, as: UTF8.self).contains("isUsable"))
        let read = try JSON.decode(GatewayStatus.self, from: old)
        #expect(read.hooks == nil && read.connections[0].tunnels[0].windows == nil)
    }

    @Test func oneTunnelIsShownWithAllThatIsKnown() {
        var shown = tunnel("zone-a", .degraded, reason: "too much loss")
        (shown.since, shown.reasonCode, shown.isActive) = (75, "loss-too-high", true)
        (shown.insideLocal, shown.insideRemote) = ("169.254.101.2", "169.254.101.1")
        (shown.priority, shown.weight, shown.pathMTU, shown.underlayDevice) = (10, 1, 1500, "eth1")
        shown.isProbed = true
        shown.windows = [
            WindowStatus(seconds: 1, roundTrip: 0.0004, jitter: 0.00009, loss: 0),
            WindowStatus(seconds: 10, loss: 1), WindowStatus(seconds: 60),
        ]
        #expect(
            TunnelText().lines(for: shown).joined(separator: "\n") == """
                tunnel          zone-a of aws
                state           degraded for 1 min 15 s, active
                reason          too much loss (loss-too-high)
                hint            Is UDP let through?
                endpoint        192.0.2.7:51820
                leaves by       eth1
                path MTU        1500
                inside          169.254.101.2 to 169.254.101.1
                last 1 s        round trip 0.4 ms, jitter 0.1 ms, 0 % lost
                last 10 s       100 % lost
                last 60 s       no probe
                priority        10
                weight          1
                handshake       never
                heard           never
                received        1.50 KiB in 1 packets
                sent            12 B in 1 packets
                keepalive       off
                cipher          aes-256-gcm
                pre-shared key  yes
                public key      \(ConfigurationExamples.peer)
                """)
        #expect(TunnelText.line(for: shown) == "zone-a of aws: degraded, active (too much loss)")
        (shown.pathMTU, shown.assumedMTU, shown.windows) = (nil, 1420, nil)
        let unanswered = TunnelText().lines(for: shown)
        #expect(unanswered.contains("path MTU        not found yet: 1420 is assumed"))
        #expect(unanswered.contains("probes          no answer"))
        (shown.isProbed, shown.notProbed, shown.assumedMTU) = (false, "no inside addresses", nil)
        let unprobed = TunnelText().lines(for: shown).joined(separator: "\n")
        #expect(
            unprobed.contains(
                """
                not probed      no inside addresses: handshakes tell when the far end is gone,
                                which takes a minute or two

                """))
        #expect(!unprobed.contains("path MTU") && !unprobed.contains("\nprobes "))
    }

    @Test func dropsAreShownMostFirst() {
        let lines = StatusReport(showsDrops: true).lines(for: status)
        #expect(
            lines.suffix(3) == [
                "DROPPED BECAUSE  PACKETS", "no-route              12", "replayed               3",
            ])
    }

    @Test func keysAreShownOnlyWhenAsked() {
        #expect(!StatusReport().lines(for: status).joined().contains(ConfigurationExamples.peer))
        #expect(
            StatusReport(showsKeys: true).lines(for: status).joined().contains(ConfigurationExamples.peer))
    }

    @Test func statusSurvivesItsJSON() throws {
        #expect(try JSON.decode(GatewayStatus.self, from: JSON.encode(status)) == status)
    }

    @Test func prefixesAreEscapedInQueries() {
        #expect(ControlClient.percentEncoded("2001:db8::/32") == "2001%3Adb8%3A%3A%2F32")
    }
}
