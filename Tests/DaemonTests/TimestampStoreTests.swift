import FoundationEssentials
import Logging
import Testing
import WireGuard

@testable import Daemon

@Suite struct TimestampStoreTests {
    private let directory = "/tmp/vgwd-state-tests-\(UInt64.random(in: .min ... .max))"
    private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private func store() -> TimestampStore {
        TimestampStore(directory: directory, interface: "t0", log: quiet)
    }

    private let noon: Int64 = 1_800_000_000_000_000_000

    private func noon(plus seconds: Int64) -> Int64 { noon + seconds * 1_000_000_000 }

    @Test("a run without a file, whatever ended the ones before, is past all that they have sent")
    func lostFolder() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var greatest = TAI64N(unixNanoseconds: 0)
        // Each run is killed after its first handshake, and every third also loses its folder.
        for run in Int64(0)..<60 {
            if run % 3 == 0 { try? FileManager.default.removeItem(atPath: directory) }
            let now = noon + run * 100_000_000
            var store = store()
            let sent = max(TAI64N(unixNanoseconds: now), store.load(unixNanoseconds: now).next())
            #expect(sent > greatest, "run \(run)")
            // Whoever has the key next, without a floor, is refused for no longer than a try takes.
            #expect(sent <= TAI64N(unixNanoseconds: now + 5_100_000_000))
            store.keep(sent, unixNanoseconds: now)
            greatest = sent
        }
    }

    @Test("the floor of the next run is past all that was sent, also when the clock goes back")
    func floor() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var first = store()
        _ = first.load(unixNanoseconds: noon)
        for number in Int64(0)..<5 {
            let sent = TAI64N(unixNanoseconds: noon(plus: 4 * number))
            first.keep(sent, unixNanoseconds: noon(plus: 4 * number))
            var next = store()
            #expect(next.load(unixNanoseconds: 0) >= sent)
        }
        // The device goes on from the floor where the clock is behind it.
        var second = store()
        var sent = second.load(unixNanoseconds: 0).next()
        for _ in 0..<100 {
            second.keep(sent, unixNanoseconds: 0)
            var next = store()
            #expect(next.load(unixNanoseconds: 0) >= sent)
            sent = sent.next()
        }
    }

    @Test("after an orderly end the next run goes on just behind the last stamp")
    func orderlyEnd() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var first = store()
        let sent = TAI64N(unixNanoseconds: noon)
        first.keep(sent, unixNanoseconds: noon)
        first.end(sent)
        var next = store()
        #expect(next.load(unixNanoseconds: 0) == sent)
    }

    @Test(
        "a corrupt file is as good as none",
        arguments: ["", "zz", String(repeating: "a", count: 23), "\u{0}\u{0}"])
    func corrupt(_ text: String) throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: "\(directory)/t0.timestamp"))
        var store = store()
        #expect(store.load(unixNanoseconds: noon) == TAI64N(unixNanoseconds: noon(plus: 5)))
    }

    @Test("a folder that cannot be made stops nothing")
    func unwritable() {
        var store = TimestampStore(directory: "/proc/no/such/folder", interface: "t0", log: quiet)
        #expect(store.load(unixNanoseconds: noon) == TAI64N(unixNanoseconds: noon(plus: 5)))
        store.keep(TAI64N(unixNanoseconds: 0), unixNanoseconds: 0)
        store.keep(TAI64N(unixNanoseconds: 1 << 40), unixNanoseconds: 1 << 40)
    }
}
