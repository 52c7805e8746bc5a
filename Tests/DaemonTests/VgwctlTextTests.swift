import ControlAPI
import Testing

@testable import vgwctl

/// What `vgwctl` prints, beside the status.
@Suite struct VgwctlTextTests {
    @Test func anEventIsALineWithWhenWhatWhereAndWhy() {
        let text = EventText()
        #expect(
            text.line(for: .event(EventExamples.event(.tunnelDown, 7))) == """
                2026-11-25T12:33:48.123Z  tunnel-down         aws/zone-a        3 probes are unanswered \
                (up to down, probe-timeout)
                """)
        let started = GatewayEvent(
            time: "2026-11-25T12:33:48.999999999Z", sequence: 1, kind: .started,
            message: "gateway onprem has started")
        #expect(
            text.line(for: .event(started)) == """
                2026-11-25T12:33:48.999Z  started             -                 gateway onprem has started
                """)
        #expect(text.line(for: .lost(count: 12)) == "12 events are missing here")
        var drilled = EventExamples.event(.tunnelDown, 7)
        drilled.drill = true
        #expect(text.line(for: .event(drilled)).hasSuffix("(up to down, probe-timeout, drill)"))
    }

    @Test func anEventOfAnotherSpringIsALineToo() {
        let odd = GatewayEvent(
            time: "noon", sequence: 1, kind: .init(rawValue: "a-kind-that-is-longer-than-its-column"),
            connection: "a-connection-with-a-long-name", to: "b", message: "x")
        #expect(
            EventText().line(for: .event(odd))
                == "noon  a-kind-that-is-longer-than-its-column  a-connection-with-a-long-name  x (to b)")
    }

    private let passed = DrillReport(
        connection: "aws", tunnel: "zone-a", duration: 10, timeToDetect: 0.612, timeToRecover: 0.62,
        probesSent: 1000, probesLost: 62, longestGap: 0.6249, activeBefore: "zone-a", activeDuring: "zone-b",
        activeAfter: "zone-a", rto: 1, rtoMet: true)

    @Test func aDrillThatWasSurvivedSaysHowLongItTook() {
        #expect(passed.isPassed)
        #expect(
            DrillText().lines(for: passed).joined(separator: "\n") == """
                cut            zone-a of aws, for 10 s
                detected       after 612 ms
                recovered      after 620 ms, gateway to gateway
                probes lost    62 of 1000
                longest gap    625 ms
                active tunnel  zone-a, then zone-b, at the end zone-a
                objective      1 s: met
                passed
                """)
    }

    @Test func aDrillWhoseTargetsStayAwayFails() {
        var report = passed
        report.targets = DrillTargets(timeToRecover: nil, probesSent: 100, probesLost: 100, longestGap: 10)
        report.rto = nil
        report.rtoMet = nil
        #expect(!report.isPassed)
        let lines = DrillText().lines(for: report)
        #expect(lines[5] == "targets        never back, 100 of 100 probes lost, longest gap 10 s")
        report.targets?.timeToRecover = 0.7
        #expect(report.isPassed)
    }

    @Test func aDrillWithNothingToFailOverToFails() {
        var failed = passed
        (failed.timeToDetect, failed.timeToRecover, failed.activeDuring, failed.rto) = (nil, nil, nil, nil)
        failed.rtoMet = nil
        failed.notes = ["the connection has one tunnel"]
        #expect(!failed.isPassed)
        let lines = DrillText().lines(for: failed)
        #expect(lines[1...2] == ["detected       never", "recovered      never, gateway to gateway"])
        #expect(lines.suffix(2) == ["note: the connection has one tunnel", "failed"])
        var late = passed
        late.rtoMet = false
        #expect(!late.isPassed)
    }

    @Test(
        "durations are read as the configuration writes them, or as seconds",
        arguments: [
            ("10s", 10), ("500ms", 0.5), ("2m", 120), ("10", 10), ("1.5", 1.5), ("1.5s", 1.5), ("", nil),
            ("s", nil), ("10x", nil), ("-1s", nil), ("1.2.3", nil),
        ] as [(String, Double?)])
    func durations(_ text: String, _ seconds: Double?) {
        #expect(Seconds(argument: text)?.value == seconds)
    }

    @Test func figuresAreShort() {
        #expect(
            [0.00004, 0.0004, 0.0123, 0.0999, 0.1, 1.25].map { Human.milliseconds($0) } == [
                "0.0 ms", "0.4 ms", "12.3 ms", "99.9 ms", "100 ms", "1250 ms",
            ])
        #expect(
            [0, 0.00001, 0.005, 0.1, 0.123, 1].map { Human.percent($0) } == [
                "0 %", "0.1 %", "0.5 %", "10 %", "12 %", "100 %",
            ])
        #expect(
            [1023, 1024, 12_900, 128_000, 1_048_575, 5_300_000_000].map { Human.bytes($0) } == [
                "1023 B", "1.00 KiB", "12.5 KiB", "125 KiB", "1023 KiB", "4.93 GiB",
            ])
        #expect([0.1, 3.2, 60].map { Human.left($0) } == ["1s", "4s", "1m"])
        #expect(
            [0.2, 75, 3600, 7500, 90_000].map { Human.short($0) } == ["0s", "1m15s", "1h", "2h5m", "1d1h"])
        #expect(Human.milliseconds(.nan) == "?" && Human.percent(7) == "?")
    }

    @Test func theWayOfAPacketIsSaidStepByStep() {
        let way = RouteExplanation(
            destination: "10.20.0.10", verdict: .tunnel, connection: "aws", tunnel: "zone-a",
            endpoint: "192.0.2.7:51820", interface: "eth1", source: "198.51.100.2",
            steps: ["10.20.0.0/16 is the longest prefix", "zone-a is healthy and has the lowest priority"])
        #expect(
            RouteCommand.Get.lines(way, Palette(isOn: false)) == [
                "10.20.0.10 by tunnel zone-a of connection aws, to 192.0.2.7:51820 out of eth1 from 198.51.100.2",
                "  1. 10.20.0.0/16 is the longest prefix",
                "  2. zone-a is healthy and has the lowest priority",
            ])
        let nowhere = RouteExplanation(destination: "192.0.2.1", verdict: .elsewhere, interface: "eth0")
        #expect(
            RouteCommand.Get.lines(nowhere, Palette(isOn: false)) == [
                "192.0.2.1 not by any tunnel, out of eth0"
            ])
    }

    @Test func textIsWrappedWhereNoNumberLosesItsUnit() {
        #expect(
            Prose.wrapped("no answer for 12 s, and none for 3 h 5 min", first: "", indent: 2, width: 16) == [
                "no answer for", "  12 s, and none", "  for 3 h 5 min",
            ])
        #expect(Prose.wrapped("a 1 b", first: "x ", width: 5) == ["x a 1", "  b"])
        #expect(Prose.wrapped("", first: "x ", width: 5) == ["x "])
        #expect(Prose.wrapped("a vgwd\u{a0}0.1.0 up", first: "", width: 8) == ["a", "vgwd 0.1.0", "up"])
    }

    @Test func namesStayWholeInPaths() {
        #expect(ControlClient.pathEncoded("zone-a_1.x=") == "zone-a_1.x=")
        #expect(ControlClient.pathEncoded("a/b c") == "a%2Fb%20c")
    }
}
