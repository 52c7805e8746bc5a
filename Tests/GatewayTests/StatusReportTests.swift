import ControlAPI
import Testing

@testable import vgwctl

@Suite struct StatusReportTests {
    private func tunnel(_ name: String, _ state: TunnelStatus.State, reason: String? = nil) -> TunnelStatus {
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

    @Test func anInterfaceThatIsDownIsSaidBeforeItsTunnels() {
        var status = status
        status.isInterfaceUp = false
        let lines = StatusReport().lines(for: status)
        #expect(lines[3...5] == ["vgw0 is down: nothing passes", "  ip link set vgw0 up", ""])
    }

    @Test func aPersonReadsStateEndpointAgeTrafficAndWhy() {
        let text = StatusReport().lines(for: status).joined(separator: "\n")
        #expect(
            text == """
                onprem on vgw0, UDP port 51820, mtu 1420, up 2 h 5 min, vgwd 0.1.0
                offloads: udp-gso on, udp-gro off, tun-tso on, tun-uso on
                data threads: one out, one in

                CONNECTION  STATE  HANDSHAKE  RECEIVED  SENT  ENDPOINT
                aws         up                                failover
                  a         up     1m15s      1.50 KiB  12 B  192.0.2.7:51820, aes-256-gcm
                  b         down   never      1.50 KiB  12 B  192.0.2.7:51820, aes-256-gcm

                b: no answer from 192.0.2.7:51820 for 35 s
                  Is UDP let through?
                """)
    }

    @Test func healthIsShownWhereItIsKnownWithin100Columns() {
        var status = status
        var a = tunnel("zone-a", .degraded, reason: "12 % of the probes of the last 10 s were lost")
        a.cipher = "chacha20-poly1305"
        (a.since, a.isActive, a.underlayDevice) = (7500, true, "eth1")
        a.windows = [
            WindowStatus(seconds: 1, roundTrip: 0.5, jitter: 0.1, loss: 0),
            WindowStatus(seconds: 10, roundTrip: 0.01234, jitter: 0.0001, loss: 0.12),
        ]
        var b = tunnel("zone-b", .down, reason: "no answer to 3 probes")
        b.cipher = "chacha20-poly1305"
        (b.since, b.isActive, b.isPreferred, b.holdDown) = (35, false, true, 8)
        b.windows = [WindowStatus(seconds: 10, loss: 1)]
        var aws = ConnectionStatus(
            name: "aws", state: .up, routes: ["10.0.0.0/8"], policy: "failover", tunnels: [a, b])
        (aws.isUsable, aws.since, aws.flaps, aws.metric) = (true, 90_000, 2, 50)
        var off = tunnel("office", .disabled)
        off.cipher = "chacha20-poly1305"
        off.connection = "office"
        off.since = 3
        var office = ConnectionStatus(
            name: "office", state: .down, routes: ["10.9.0.0/16"], policy: "failover", tunnels: [off])
        (office.isUsable, office.onDown) = (false, "unreachable")
        aws.notices = ["targets do not answer by any tunnel: is there a way back to 169.254.101.2?"]
        status.connections = [aws, office]
        status.hooks = HookStatus(started: 17, failures: 3, queueFull: 0)
        let lines = StatusReport().lines(for: status)
        #expect(
            lines.dropFirst(4).joined(separator: "\n") == """
                CONNECTION  STATE     FOR       RTT   LOSS  HANDSHAKE  RECEIVED  SENT  ENDPOINT
                aws         up        1d1h                                             failover, metric 50, 2 flaps
                * zone-a    degraded  2h5m  12.3 ms   12 %  never      1.50 KiB  12 B  192.0.2.7:51820 by eth1
                  zone-b    down      35s         -  100 %  never      1.50 KiB  12 B  192.0.2.7:51820, preferred, held down 8s
                office      disabled  3s          -      -  never      1.50 KiB  12 B  192.0.2.7:51820

                zone-a: 12 % of the probes of the last 10 s were lost
                  Is UDP let through?

                zone-b: no answer to 3 probes
                  Is UDP let through?

                aws: targets do not answer by any tunnel: is there a way back to 169.254.101.2?

                office: no usable tunnel: its routes are unreachable

                hooks: 3 of 17 failed, 0 came too late to start
                  vgwctl events, and the log of vgwd, say why
                """)
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
