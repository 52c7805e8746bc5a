internal import ControlAPI
internal import Glibc
internal import Testing
internal import WireGuard

extension Integration {
    /// What a message tells is used for the reply to it: the key, the endpoint, and each message of a train on its own.
    @Suite(.enabled(if: !Lab.reference, "the lab's WireGuard is older than its offloads")) struct Succession {
        /// A gateway, and the test in place of the other one.
        private func run(workers: Int = 1, _ body: (Gateway, inout RawPeer) async throws -> Void) async throws
        {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                tunnel.vpc.change { $0.workers = workers }
                try await tunnel.vpc.start()
                var peer = try RawPeer(at: .onprem, keys: tunnel.onprem.settings.keys, toward: tunnel.vpc)
                try await body(tunnel.vpc, &peer)
            }
        }

        @Test("the first ping of each of 200 sessions is answered under the key of that session")
        func newSessions() async throws {
            try await run { _, peer in
                for number in 0..<200 {
                    let session = try peer.begin()
                    try peer.send(try session.ping())
                    let reply = peer.replies(1)
                    try #require(
                        reply == [RawPeer.Reply(type: .transport, index: session.index)], "session \(number)")
                }
            }
        }

        @Test("the first ping from each of 1,000 ports is answered to that port")
        func roaming() async throws {
            try await run { _, peer in
                let session = try peer.begin()
                var other = peer
                try other.rebind()
                let expected = [RawPeer.Reply(type: .transport, index: session.index)]
                for number in 0..<500 {
                    for each in [peer, other] {
                        try each.send(try session.ping())
                        try #require(each.replies(1) == expected, "round \(number)")
                    }
                }
            }
        }

        enum Head: CaseIterable {
            case ping, junk, initiation
        }

        @Test(
            "of a train of joined messages each is handled, whatever the first one is",
            arguments: Head.allCases,
            [1, 2])
        func trains(_ head: Head, workers: Int) async throws {
            try await run(workers: workers) { gateway, peer in
                let session = try peer.begin()
                try peer.send(try session.ping())
                try #require(peer.replies(1).count == 1)
                usleep(30_000)
                let (initiation, handshake) = try peer.initiation()
                let junk = [UInt8](repeating: 9, count: RawPeer.pingSize)
                var train: [UInt8] =
                    switch head {
                    case .ping: try session.ping()
                    case .junk: junk
                    case .initiation: initiation
                    }
                for _ in 0..<15 { train += try session.ping() + junk }
                try peer.send(train, segmentSize: RawPeer.pingSize)
                let count = head == .junk ? 15 : 16
                let messages = peer.receive(count)
                #expect(messages.count == count)
                if head == .initiation {
                    #expect(messages.contains { (try? peer.session(from: $0, of: handshake)) != nil })
                }
                #expect(try await gateway.drops("message-type-unknown") == (head == .junk ? 16 : 15))
                #expect(try await gateway.drops("stray-queue-full") == 0)
            }
        }

        @Test("messages of two peers behind one port, joined by the kernel, each reach their worker")
        func peersOfTwoWorkers() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                let (first, second) = (tunnel.onprem.settings.keys, try await KeyPair.generate())
                tunnel.vpc.change {
                    $0.workers = 2
                    $0.connections = [
                        ("first", "10.10.0.0/16", first), ("second", "10.30.0.0/16", second),
                    ].map { name, prefix, keys in
                        ConnectionText(
                            name: name, routes: [prefix], lines: [],
                            tunnels: [
                                ConnectionText.TunnelText(
                                    name: "to-\(name)", publicKey: keys.publicKey, lines: [])
                            ])
                    }
                }
                try await tunnel.vpc.start()
                var one = try RawPeer(at: .onprem, keys: first, toward: tunnel.vpc)
                var other = try RawPeer(
                    at: .onprem, keys: second, toward: tunnel.vpc, inside: "10.30.0.1", beside: one)
                let sessions = [try one.begin(), try other.begin()]
                var train: [UInt8] = []
                for number in 0..<40 { train += try sessions[number % 2].ping() }
                try one.send(train, segmentSize: RawPeer.pingSize)
                let indices = one.replies(40).map(\.index)
                for session in sessions { #expect(indices.count { $0 == session.index } == 20) }
            }
        }

        @Test(
            "500 messages in any order are all answered, and so are 1,000 at once", arguments: [1, 50])
        func shuffled(joined: Int) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                // One thread writes a whole batch to the device before it reads the replies. What comes while the
                // daemon is stopped makes such batches.
                tunnel.vpc.change { $0.launcher = ["taskset", "-c", "0"] }
                try await tunnel.vpc.start()
                var peer = try RawPeer(at: .onprem, keys: tunnel.onprem.settings.keys, toward: tunnel.vpc)
                let session = try peer.begin()
                let count = joined == 1 ? 500 : 1000
                let daemon = try tunnel.vpc.process
                for round in 0..<4 {
                    if joined > 1 { daemon.signal(SIGSTOP) }
                    let messages = try (0..<count).map { _ in try session.ping() }.shuffled()
                    for start in stride(from: 0, to: count, by: joined) {
                        let train = Array(messages[start..<start + joined].joined())
                        try peer.send(train, segmentSize: RawPeer.pingSize)
                    }
                    daemon.signal(SIGCONT)
                    let replies = peer.replies(count).count
                    try #require(replies == count, "round \(round)")
                }
            }
        }
    }
}
