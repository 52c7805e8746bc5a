import FoundationEssentials
import Logging
import Testing
import WireGuard

@testable import Gateway

@Suite struct TimestampStoreTests {
    private let directory = "/tmp/vgwd-state-tests-\(UInt64.random(in: .min ... .max))"
    private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private func store() -> TimestampStore {
        TimestampStore(directory: directory, interface: "t0", log: quiet)
    }

    @Test("the floor of the next run is past all that was sent, also when the clock goes back")
    func floor() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var first = store()
        #expect(first.load() == nil)
        let noon: Int64 = 1_800_000_000_000_000_000
        for minute in Int64(0)..<5 {
            let sent = TAI64N(unixNanoseconds: noon + minute * 50_000_000_000)
            first.keep(sent, unixNanoseconds: noon + minute * 50_000_000_000)
            var next = store()
            let floor = next.load()
            #expect(try #require(floor) >= sent)
        }
        // The device goes on from the floor where the clock is behind it.
        var second = store()
        let begin = second.load()
        var sent = try #require(begin).next()
        for _ in 0..<100 {
            second.keep(sent, unixNanoseconds: 0)
            var next = store()
            let floor = next.load()
            #expect(try #require(floor) >= sent)
            sent = sent.next()
        }
    }

    @Test("after an orderly end the next run goes on just behind the last stamp")
    func orderlyEnd() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var first = store()
        let sent = TAI64N(unixNanoseconds: 1_800_000_000_000_000_000)
        first.keep(sent, unixNanoseconds: 1_800_000_000_000_000_000)
        first.end(sent)
        var next = store()
        #expect(next.load() == sent)
    }

    @Test(
        "a corrupt file is as good as none",
        arguments: ["", "zz", String(repeating: "a", count: 23), "\u{0}\u{0}"])
    func corrupt(_ text: String) throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: "\(directory)/t0.timestamp"))
        var store = store()
        #expect(store.load() == nil)
    }

    @Test("a folder that cannot be made stops nothing")
    func unwritable() {
        var store = TimestampStore(directory: "/proc/no/such/folder", interface: "t0", log: quiet)
        #expect(store.load() == nil)
        store.keep(TAI64N(unixNanoseconds: 0), unixNanoseconds: 0)
        store.keep(TAI64N(unixNanoseconds: 1 << 40), unixNanoseconds: 1 << 40)
    }
}
