internal import Glibc
package import LinuxIO
package import Logging
package import WireGuard

/// Runtime routes that outlive a run (`vgwctl route add --save`), in the state folder, one a line:
/// ```
/// 10.30.0.0/16 via aws-vpc
/// 2001:db8:30::/48 via aws-vpc metric 20
/// ```
/// A line that makes no sense is said so and passed over, and the file as it was is kept beside. What cannot
/// be written is the answer to who asked: the route is there until the run ends.
package struct KeptRoutes {
    package struct Route: Hashable, Sendable {
        package let prefix: IPPrefix
        package let connection: String
        package let metric: UInt32?

        package init(_ prefix: IPPrefix, connection: String, metric: UInt32? = nil) {
            self.prefix = prefix.network
            self.connection = connection
            self.metric = metric
        }
    }

    package static let limit = 4096
    /// Size of the file: more than `limit` of the longest lines.
    private static let byteLimit = 1 << 20
    /// Lines in the log about one file.
    private static let complaintLimit = 10
    private static let header = "# Written by vgwd, for 'vgwctl route add --save'.\n"

    private let path: String
    private let directory: String
    private let log: Logger
    /// In the order of the file.
    package private(set) var routes: [Route] = []

    package init(directory: String, interface: String, log: Logger) {
        self.directory = directory
        path = StateFile.routes.path(in: directory, of: interface)
        self.log = log
    }

    /// Those of earlier runs. Whether there still are such connections is the caller's to see.
    @discardableResult
    package mutating func load() -> [Route] {
        routes = []
        do throws(SystemError) {
            read(try AtomicFile.read(path, limit: Self.byteLimit).bytes)
        } catch {
            if error.code != ENOENT {
                log.warning("state file cannot be read", metadata: ["error": "\(error)"])
            }
        }
        return routes
    }

    private mutating func read(_ bytes: [UInt8]) {
        var complaints = 0
        var known: Set<String> = []
        for (number, line) in bytes.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() {
            let text = String(decoding: line.prefix(512), as: UTF8.self)
            guard let first = text.first(where: { $0 != " " }), first != "#" else { continue }
            var problem: String?
            if let route = Self.parse(text) {
                if routes.count == Self.limit {
                    problem = "there are more than \(Self.limit) routes"
                } else if known.insert("\(route.prefix) \(route.connection)").inserted {
                    routes.append(route)
                }
            } else {
                problem = "it is not PREFIX via CONNECTION"
            }
            guard let problem else { continue }
            complaints += 1
            if complaints <= Self.complaintLimit {
                log.warning(
                    "kept route is not used",
                    metadata: ["path": "\(path):\(number + 1)", "reason": "\(problem)"])
            }
        }
        guard complaints > 0 else { return }
        StateFile.keepBeside(bytes, of: path, reason: "\(complaints) lines make no sense", log)
    }

    private static func parse(_ text: String) -> Route? {
        let words = text.split { $0 == " " || $0 == "\t" || $0 == "\r" }
        guard words.count == 3 || words.count == 5, words[1] == "via",
            let prefix = IPPrefix(String(words[0])),
            prefix == prefix.network, Names.isValid(String(words[2]))
        else { return nil }
        guard words.count == 5 else { return Route(prefix, connection: String(words[2])) }
        guard words[3] == "metric", words[4].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let metric = UInt32(words[4])
        else { return nil }
        return Route(prefix, connection: String(words[2]), metric: metric)
    }

    /// In place of one with the same prefix and connection. Nothing is kept when it throws.
    package mutating func keep(_ route: Route) throws(SystemError) {
        var next = routes
        if let index = index(of: route.prefix, route.connection) {
            guard next[index] != route else { return }
            next[index] = route
        } else {
            guard next.count < Self.limit else {
                throw SystemError(call: "keep more than \(Self.limit) routes", code: ENOSPC)
            }
            next.append(route)
        }
        try write(next)
    }

    /// Without error when it is not kept. When it throws, it comes back with the next run.
    package mutating func forget(_ prefix: IPPrefix, connection: String) throws(SystemError) {
        guard let index = index(of: prefix.network, connection) else { return }
        var next = routes
        next.remove(at: index)
        try write(next)
    }

    private func index(of prefix: IPPrefix, _ connection: String) -> Int? {
        routes.firstIndex { $0.prefix == prefix && $0.connection == connection }
    }

    private mutating func write(_ next: [Route]) throws(SystemError) {
        let lines = next.map { route in
            "\(route.prefix) via \(route.connection)\(route.metric.map { " metric \($0)" } ?? "")\n"
        }
        try AtomicFile.makeDirectory(directory, mode: 0o700)
        try AtomicFile.write(Array((Self.header + lines.joined()).utf8), to: path, mode: 0o600)
        routes = next
    }
}
