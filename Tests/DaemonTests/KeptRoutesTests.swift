import FoundationEssentials
import LinuxIO
import Logging
import Testing
import WireGuard

@testable import Daemon

@Suite struct KeptRoutesTests {
    private let directory = "/tmp/vgwd-kept-tests-\(UInt64.random(in: .min ... .max))"
    private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private func store() -> KeptRoutes { KeptRoutes(directory: directory, interface: "t0", log: quiet) }

    private func route(_ prefix: String, _ connection: String, metric: UInt32? = nil) -> KeptRoutes.Route {
        KeptRoutes.Route(IPPrefix(prefix)!, connection: connection, metric: metric)
    }

    private func write(_ text: String) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: "\(directory)/t0.routes"))
    }

    @Test("what is kept is there in the next run, what is forgotten is not")
    func keeping() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var first = store()
        #expect(first.load() == [])
        try first.keep(route("10.30.0.0/16", "aws-vpc"))
        try first.keep(route("2001:db8:30::/48", "aws-vpc", metric: 20))
        try first.keep(route("10.30.0.0/16", "backup", metric: 4_294_967_295))
        try first.keep(route("10.30.0.0/16", "aws-vpc", metric: 5))
        try first.forget(IPPrefix("10.30.0.0/16")!, connection: "backup")
        try first.forget(IPPrefix("10.99.0.0/16")!, connection: "nothere")
        var next = store()
        let expected = [
            route("10.30.0.0/16", "aws-vpc", metric: 5), route("2001:db8:30::/48", "aws-vpc", metric: 20),
        ]
        #expect(next.load() == expected)
        #expect(next.routes == expected)
    }

    @Test("lines that make no sense are passed over, and the file as it was is kept beside")
    func corrupt() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let text = """
            # a comment
            10.1.0.0/16 via aws
            10.1.0.0/16 via aws metric 9
            10.2.0.1/16 via aws
            10.3.0.0/16 via
            10.4.0.0/16 to aws
            10.5.0.0/16 via aws metric -1
            10.6.0.0/16 via aws metric 4294967296
            224.0.0.0/40 via aws
            10.7.0.0/16 via a/../b
            \u{0}\u{1}\u{fffd}

            10.8.0.0/16 via aws metric 7
            """
        try write(text)
        var store = store()
        #expect(store.load() == [route("10.1.0.0/16", "aws"), route("10.8.0.0/16", "aws", metric: 7)])
        try store.keep(route("10.9.0.0/16", "aws"))
        let copy = try AtomicFile.read("\(directory)/t0.routes.corrupt", limit: 1 << 20).bytes
        #expect(copy == Array(text.utf8))
        var next = self.store()
        #expect(next.load().count == 3)
    }

    @Test("there is a limit to a file, and to what is kept")
    func bounds() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try write(String(repeating: "x", count: 2 << 20))
        var huge = store()
        #expect(huge.load() == [])
        let lines = (0..<KeptRoutes.limit + 5).map { "10.\($0 >> 8).\($0 & 255).0/24 via aws\n" }
        try write(lines.joined())
        var full = store()
        #expect(full.load().count == KeptRoutes.limit)
        #expect(throws: SystemError.self) { try full.keep(route("192.0.2.0/24", "aws")) }
        #expect(full.routes.count == KeptRoutes.limit)
    }

    @Test("a folder that cannot be made is the answer to who asked, and stops nothing")
    func unwritable() {
        var store = KeptRoutes(directory: "/proc/no/such/folder", interface: "t0", log: quiet)
        #expect(store.load() == [])
        #expect(throws: SystemError.self) { try store.keep(route("10.0.0.0/8", "aws")) }
        #expect(store.routes == [])
    }
}
