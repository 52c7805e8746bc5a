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

                CONNECTION  TUNNEL  STATE  ENDPOINT         CIPHER       LAST HANDSHAKE  RECEIVED  SENT
                aws         a       up     192.0.2.7:51820  aes-256-gcm  1 min 15 s ago  1.50 KiB  12 B
                aws         b       down   192.0.2.7:51820  aes-256-gcm  never           1.50 KiB  12 B

                b: no answer from 192.0.2.7:51820 for 35 s
                  Is UDP let through?
                """)
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
