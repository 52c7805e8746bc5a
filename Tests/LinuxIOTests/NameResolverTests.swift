import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireGuard

@Suite struct NameResolverTests {
    /// Addresses with their seconds, or what is wrong.
    private struct Found: Hashable, Sendable {
        var addresses: [String] = []
        var seconds: [Int64] = []
        var problem: String?
    }

    /// Waits for the answer.
    private func ask(_ resolver: NameResolver, _ host: String, mark: UInt32 = 0) throws -> Found {
        let result = try ask(resolver, [host], mark: mark)
        return result[0]
    }

    private func ask(_ resolver: NameResolver, _ hosts: [String], mark: UInt32 = 0) throws -> [Found] {
        let answers = Mutex<[String: Found]>([:])
        let wake = try EventFD()
        var poll = PollSet(wake.fd)
        let box = Box(answers)
        for host in hosts {
            resolver.resolve(host, mark: mark) { result in
                box.answers.withLock { $0[host] = Self.found(result) }
                wake.signal()
            }
        }
        while box.answers.withLock({ $0.count }) < hosts.count {
            _ = poll.wait(timeout: .seconds(60))
            wake.drain()
        }
        return box.answers.withLock { answers in hosts.map { answers[$0]! } }
    }

    private final class Box: Sendable {
        let answers: Mutex<[String: Found]>
        init(_ answers: consuming sending Mutex<[String: Found]>) { self.answers = answers }
    }

    private static func found(_ result: Result<[NameResolver.Address], NameResolver.Problem>) -> Found {
        switch result {
        case .success(let addresses):
            Found(
                addresses: addresses.map(\.address.description),
                seconds: addresses.map { $0.timeToLive.components.seconds })
        case .failure(let problem): Found(problem: problem.description)
        }
    }

    private static let gateway = NameServer.Reply.records([
        .address("192.0.2.1", ttl: 300), .address("192.0.2.2", ttl: 60), .address("2001:db8::1", ttl: 7),
    ])

    @Test func `both families are found, each address with its time`() throws {
        try withOwnNames { _ in
            let server = try NameServer(port: 5300, ["vgw.example.com": Self.gateway])
            defer { server.stop() }
            let found = try ask(NameResolver(servers: [server.endpoint]), "vgw.example.com")
            #expect(found.problem == nil)
            #expect(
                Dictionary(uniqueKeysWithValues: zip(found.addresses, found.seconds))
                    == ["192.0.2.1": 300, "192.0.2.2": 60, "2001:db8::1": 7])
        }
    }

    @Test func `a name of one family is found`() throws {
        try withOwnNames { _ in
            let server = try NameServer(
                port: 5300,
                [
                    "four.example.com": .records([.address("192.0.2.4", ttl: 4)]),
                    "six.example.com": .records([.address("2001:db8::6", ttl: 6)]),
                ])
            defer { server.stop() }
            let resolver = NameResolver(servers: [server.endpoint])
            #expect(try ask(resolver, "four.example.com") == Found(addresses: ["192.0.2.4"], seconds: [4]))
            #expect(try ask(resolver, "six.example.com") == Found(addresses: ["2001:db8::6"], seconds: [6]))
        }
    }

    @Test func `no address holds longer than an alias that led to it, and nonsense holds no time`() throws {
        try withOwnNames { _ in
            let server = try NameServer(
                port: 5300,
                [
                    "alias.example.com": .records([
                        .alias("vgw.example.com", ttl: 20), .address("192.0.2.1", ttl: 3600),
                    ]),
                    "negative.example.com": .records([.address("192.0.2.1", ttl: 0x8000_0005)]),
                ])
            defer { server.stop() }
            let resolver = NameResolver(servers: [server.endpoint])
            #expect(try ask(resolver, "alias.example.com") == Found(addresses: ["192.0.2.1"], seconds: [20]))
            #expect(
                try ask(resolver, "negative.example.com") == Found(addresses: ["192.0.2.1"], seconds: [0]))
        }
    }

    @Test func `an address without a route to it is last`() throws {
        try withOwnNames { _ in
            let server = try NameServer(
                port: 5300,
                [
                    "four.example.com": .records([
                        .address("2001:db8::1", ttl: 1), .address("127.0.0.5", ttl: 1),
                    ]),
                    "six.example.com": .records([.address("192.0.2.9", ttl: 1), .address("::1", ttl: 1)]),
                ])
            defer { server.stop() }
            let resolver = NameResolver(servers: [server.endpoint])
            #expect(try ask(resolver, "four.example.com").addresses == ["127.0.0.5", "2001:db8::1"])
            #expect(try ask(resolver, "six.example.com").addresses == ["::1", "192.0.2.9"])
        }
    }

    @Test func `every packet of a question has its mark`() throws {
        try withOwnNames { _ in
            let server = try NameServer(port: 5300, ["vgw.example.com": Self.gateway])
            defer { server.stop() }
            try shell(
                "nft 'add table ip t; add chain ip t out { type filter hook output priority 0; };"
                    + " add rule ip t out udp dport 5300 meta mark != 0xca6c drop'")
            let resolver = NameResolver(servers: [server.endpoint], timeLimit: .milliseconds(700))
            #expect(try ask(resolver, "vgw.example.com").problem != nil)
            #expect(server.questionCount == 0)
            #expect(try ask(resolver, "vgw.example.com", mark: 0xca6c).addresses.count == 3)
        }
    }

    @Test func `an address that only what is marked has a route to is not last`() throws {
        try withOwnNames { _ in
            let server = try NameServer(
                port: 5300,
                [
                    "four.example.com": .records([
                        .address("2001:db8::1", ttl: 1), .address("127.0.0.5", ttl: 1),
                    ])
                ])
            defer { server.stop() }
            try shell(
                """
                sysctl -qw net.ipv6.conf.lo.disable_ipv6=0
                ip -6 addr add 2001:db8::2/128 dev lo
                ip -6 route add 2001:db8::1/128 dev lo table 77
                ip -6 rule add fwmark 77 lookup 77
                """)
            let resolver = NameResolver(servers: [server.endpoint])
            #expect(try ask(resolver, "four.example.com").addresses == ["127.0.0.5", "2001:db8::1"])
            #expect(
                try ask(resolver, "four.example.com", mark: 77).addresses == ["2001:db8::1", "127.0.0.5"])
        }
    }

    @Test func `a problem tells that only a name server on this host was asked`() throws {
        try withOwnNames { folder in
            for (servers, isStub) in [
                (["127.0.0.53"], true), (["127.0.0.53", "::1"], true), (["127.0.0.53", "192.0.2.53"], false),
                (["192.0.2.53"], false),
            ] {
                try shell(
                    "printf '\(servers.map { "nameserver \($0)\\n" }.joined())' > \(folder)/resolv.conf")
                let found = Mutex<Bool?>(nil)
                let box = Flag(found)
                let resolver = NameResolver(timeLimit: .milliseconds(200))
                resolver.resolve("vgw.example.com") { result in
                    if case .failure(let problem) = result {
                        box.flag.withLock { $0 = problem.isOfLocalStub }
                    }
                }
                #expect(eventually { box.flag.withLock { $0 } != nil })
                #expect(box.flag.withLock { $0 } == isStub, "\(servers)")
                resolver.stop()
            }
        }
    }

    private final class Flag: Sendable {
        let flag: Mutex<Bool?>
        init(_ flag: consuming sending Mutex<Bool?>) { self.flag = flag }
    }

    @Test func `what is wrong is said in words`() throws {
        try withOwnNames { _ in
            let server = try NameServer(
                port: 5300,
                [
                    "empty.example.com": .records([]), "broken.example.com": .code(NameServer.serverFailure),
                    "silent.example.com": .silence,
                ])
            defer { server.stop() }
            let resolver = NameResolver(servers: [server.endpoint])
            for (name, words) in [
                ("nowhere.example.com", "there is no such name"),
                ("empty.example.com", "the name has no address"),
                ("\(String(repeating: "x", count: 70)).example.com", "it is no host name"),
            ] {
                let problem = try ask(resolver, name).problem
                #expect(problem == "\(name) does not resolve: \(words)")
            }
            let hasty = NameResolver(servers: [server.endpoint], timeLimit: .milliseconds(700))
            let silent = try ask(hasty, "silent.example.com").problem
            #expect(silent == "silent.example.com does not resolve: no name server answers")
            let broken = try ask(resolver, "broken.example.com").problem
            #expect(broken?.hasPrefix("broken.example.com does not resolve: ") == true)
            // Nobody listens there.
            let nobody = NameResolver(
                servers: [Endpoint(address: IPAddress("127.0.0.1")!, port: 5301)],
                timeLimit: .milliseconds(700))
            let problem = try ask(nobody, "vgw.example.com").problem
            #expect(problem?.hasPrefix("vgw.example.com does not resolve: no name server") == true)
        }
    }

    @Test(arguments: [UInt16(1), 28])
    func `a server that is silent for one family holds back the other no longer than the limit`(
        type: UInt16
    ) throws {
        try withOwnNames { _ in
            let server = try NameServer(port: 5300, silentType: type, ["vgw.example.com": Self.gateway])
            defer { server.stop() }
            let resolver = NameResolver(servers: [server.endpoint], timeLimit: .seconds(3))
            let found = try ask(resolver, "vgw.example.com")
            #expect(Set(found.addresses) == (type == 1 ? ["2001:db8::1"] : ["192.0.2.1", "192.0.2.2"]))
        }
    }

    @Test func `a second server answers for the first`() throws {
        try withOwnNames { _ in
            let silent = try NameServer(port: 5302, ["vgw.example.com": .silence])
            let server = try NameServer(port: 5300, ["vgw.example.com": Self.gateway])
            defer {
                silent.stop()
                server.stop()
            }
            let resolver = NameResolver(
                servers: [silent.endpoint, server.endpoint], timeLimit: .seconds(10))
            #expect(try ask(resolver, "vgw.example.com").addresses.count == 3)
            #expect(silent.questionCount > 0)
        }
    }

    @Test func `names are asked at once, and more of them than can be wait their turn`() throws {
        try withOwnNames { _ in
            let server = try NameServer(port: 5300, [:])
            defer { server.stop() }
            let hosts = (0..<200).map { "host\($0).example.com" }
            for (index, host) in hosts.enumerated() {
                server.set(host, .records([.address("10.0.\(index / 100).\(index % 100)", ttl: 1)]))
            }
            // Silent ones among them hold up nobody.
            for index in 0..<20 { server.set("silent\(index).example.com", .silence) }
            let resolver = NameResolver(servers: [server.endpoint], timeLimit: .seconds(5))
            let silent = (0..<20).map { "silent\($0).example.com" }
            let found = try ask(resolver, silent + hosts)
            #expect(found[..<20].allSatisfy { $0.problem?.hasSuffix("no name server answers") == true })
            #expect(
                found[20...].enumerated().allSatisfy { index, found in
                    found.addresses == ["10.0.\(index / 100).\(index % 100)"]
                })
        }
    }

    @Test func `hosts and resolv_conf are read anew for each question, hosts first`() throws {
        try withOwnNames { folder in
            let server = try NameServer(port: 53, ["vgw.example.com": Self.gateway])
            defer { server.stop() }
            let resolver = NameResolver()
            try shell("echo 'nameserver 127.0.0.9' > \(folder)/resolv.conf")
            #expect(try ask(resolver, "vgw.example.com").problem != nil)
            try shell("echo 'nameserver 127.0.0.1' > \(folder)/resolv.conf")
            #expect(try ask(resolver, "vgw.example.com").addresses.count == 3)
            try shell(
                "printf '10.7.7.7 other vgw.example.com\\nfd00::7 VGW.example.com\\n' > \(folder)/hosts")
            let found = try ask(resolver, "vgw.example.com")
            #expect(Set(found.addresses) == ["10.7.7.7", "fd00::7"])
            #expect(found.seconds == [0, 0])
            try shell("printf '10.8.8.8 vgw.example.com\\n' > \(folder)/hosts")
            #expect(try ask(resolver, "vgw.example.com") == Found(addresses: ["10.8.8.8"], seconds: [0]))
            try shell(
                ": > \(folder)/hosts; printf 'search example.com\\nnameserver 127.0.0.1\\n' > \(folder)/resolv.conf"
            )
            #expect(try ask(resolver, "vgw").addresses.count == 3)
        }
    }

    @Test func `an address is its own answer`() throws {
        let resolver = NameResolver()
        #expect(try ask(resolver, "192.0.2.7").addresses == ["192.0.2.7"])
        #expect(try ask(resolver, "2001:db8::7").addresses == ["2001:db8::7"])
    }

    @Test func `stopping answers what is open, without waiting for it`() throws {
        try withOwnNames { _ in
            let server = try NameServer(port: 5300, ["silent.example.com": .silence])
            defer { server.stop() }
            // Longer than any test may take: it ends only by being stopped.
            let resolver = NameResolver(servers: [server.endpoint], timeLimit: .seconds(3600))
            let answers = Mutex<[String]>([])
            let box = Strings(answers)
            for _ in 0..<50 {
                resolver.resolve("silent.example.com") { result in
                    if case .failure(let problem) = result {
                        box.strings.withLock { $0.append(problem.description) }
                    }
                }
            }
            #expect(eventually { server.questionCount > 0 })
            resolver.stop()
            let expected = "silent.example.com does not resolve: vgwd is ending"
            #expect(box.strings.withLock { $0 } == Array(repeating: expected, count: 50))
            #expect(try ask(resolver, "192.0.2.7").problem == "192.0.2.7 does not resolve: vgwd is ending")
            resolver.stop()
        }
    }

    private final class Strings: Sendable {
        let strings: Mutex<[String]>
        init(_ strings: consuming sending Mutex<[String]>) { self.strings = strings }
    }
}
