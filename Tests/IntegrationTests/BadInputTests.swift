internal import ControlAPI
internal import TestSupport
internal import Testing

extension Integration {
    /// What a hostile internet, a lying peer and a broken host send: dropped under a name, and the tunnel
    /// goes on.
    @Suite(.enabled(if: !Lab.reference, "wireguard-go has no counters to look at")) struct BadInput {
        @Test(
            "datagrams that are no WireGuard are counted, not answered, and change nothing",
            arguments: Family.allCases)
        func junk(_ underlay: Family) async throws {
            try await Tunnel.run(.ours, underlay: underlay) { tunnel in
                let before = try await tunnel.vpc.tunnelStatus()
                let dropsBefore = try await tunnel.vpc.totalDrops()
                let capture = try await tunnel.lab.capture("vpc", in: tunnel.lab.internet)
                var random = SplitMix(seed: 1)
                var datagrams: [[UInt8]] = []
                for length in 1...200 { datagrams.append(random.bytes(length)) }
                for type: UInt8 in 0...6 {
                    for length in [4, 16, 31, 32, 64, 91, 92, 93, 147, 148, 149, 1400] {
                        datagrams.append([type, 0, 0, 0] + random.bytes(length - 4))
                    }
                }
                // The right length under a type whose upper bytes are not zero.
                datagrams.append([1, 0, 0, 1] + random.bytes(144))
                datagrams.append([4, 1, 0, 0] + random.bytes(60))
                for length in [9000, 65000, 65507] {
                    datagrams.append(random.bytes(length))
                    datagrams.append([4, 0, 0, 0] + random.bytes(length - 4))
                }
                let reasons = [
                    "message-type-unknown", "message-length-wrong", "receiver-index-unknown", "mac1-invalid",
                ]
                // A busy machine loses some on the way: again, until at least as many as there are have come.
                try await eventually("each reason is counted, and as many drops as there are datagrams") {
                    try await tunnel.lab.send(
                        datagrams, to: Site.vpc.underlay(underlay), from: tunnel.lab.internet)
                    for reason in reasons where try await tunnel.vpc.drops(reason) == 0 {
                        throw LabError("nothing is counted as \(reason)")
                    }
                    return try await tunnel.vpc.totalDrops() >= dropsBefore + UInt64(datagrams.count)
                }
                let after = try await tunnel.vpc.tunnelStatus()
                try #require(after.endpoint == before.endpoint && after.lastHandshake == before.lastHandshake)
                for family in Family.allCases { try await tunnel.ping(from: .onprem, family) }
                let answers = try await capture.stop().compactMap(CapturedDatagram.init(frame:))
                    .filter { $0.destinationPort != 51820 }
                try #require(answers.count == 0, "\(answers.count) datagrams were answered")
            }
        }

        @Test(
            "recorded packets, sent again or changed, are dropped and move no endpoint",
            arguments: Pairing.all)
        func replays(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, pairing)
                let capture = try await lab.capture("vpc", in: lab.internet)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                for family in Family.allCases { try await tunnel.ping(from: .onprem, family) }
                let frames = try await capture.stop().compactMap(CapturedDatagram.init(frame:))
                let recorded = frames.map(\.payload)
                let before = try await tunnel.vpc.peer()
                let sessions = try await tunnel.vpc.kind == .configured ? tunnel.vpc.tunnelStatus() : nil

                // Both directions' packets go to both ends, from a place that is neither.
                for site in Site.allCases {
                    try await lab.send(recorded, to: site.underlay(.v4), from: lab.internet)
                }
                let initiation = try #require(recorded.first { $0.first == 1 && $0.count == 148 })
                let response = try #require(recorded.first { $0.first == 2 && $0.count == 92 })
                let transport = frames.filter { $0.payload.first == 4 && $0.payload.count > 32 }
                let toVPC = try #require(transport.last { $0.destination == [198, 51, 100, 10] }).payload
                let toOnprem = try #require(transport.last { $0.destination == [192, 0, 2, 10] }).payload
                var changed: [[UInt8]] = []
                for message in [initiation, response, toVPC, toOnprem] {
                    for offset in message.indices {
                        var copy = message
                        copy[offset] ^= 1 << UInt8(offset % 8)
                        changed.append(copy)
                    }
                    for length in [message.count - 1, message.count / 2, 17] {
                        changed.append(Array(message.prefix(length)))
                    }
                }
                for site in Site.allCases {
                    try await lab.send(changed, to: site.underlay(.v4), from: lab.internet)
                }
                for site in Site.allCases { try await tunnel.ping(from: site, .v4) }
                let after = try await tunnel.vpc.peer()
                try #require(after.endpoint == before.endpoint)
                try #require(after.latestHandshake == before.latestHandshake)
                if tunnel.vpc.kind == .configured {
                    for reason in [
                        "replayed", "timestamp-not-newer", "mac1-invalid", "authentication-failed",
                    ] {
                        try await eventually("vpc counts \(reason)") {
                            try await tunnel.vpc.drops(reason) > 0
                        }
                    }
                    try #require(try await tunnel.vpc.tunnelStatus().lastHandshake == sessions?.lastHandshake)
                }
                if tunnel.onprem.kind == .configured {
                    try await eventually("onprem counts the late responses") {
                        try await tunnel.onprem.drops("response-unexpected") > 0
                    }
                }
            }
        }

        @Test(
            "an inner source that is not the peer's does not come out",
            arguments: [Pairing.ours, .driven, .fromGo])
        func spoofedSource(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing) { tunnel in
                for (family, spoofed) in [(Family.v4, "10.99.0.1"), (.v6, "fd99::1")] {
                    let before = try await tunnel.vpc.drops("inner-source-not-allowed")
                    try await Shell.run(
                        "ip addr add \(spoofed)/\(family.hostPrefix) dev lo", in: tunnel.onprem.namespace)
                    let answer = try await Shell.attempt(
                        "ping -c 3 -i 0.1 -W 1 -I \(spoofed) \(Site.vpc.inside(family))",
                        in: tunnel.onprem.namespace)
                    try #require(!answer.succeeded)
                    try await eventually("the spoofed packets are counted") {
                        try await tunnel.vpc.drops("inner-source-not-allowed") >= before + 3
                    }
                    try await tunnel.ping(from: .onprem, family)
                }
            }
        }

        @Test("lying inner packets of a peer are dropped under a name")
        func lyingPeer() async throws {
            // wireguard-go looks only at the destination: it sends what it is given.
            try await Tunnel.run(.fromGo) { tunnel in
                try await tunnel.lab.inject(InnerPackets.lyingLengths, into: tunnel.onprem)
                try await eventually("the lying lengths are counted") {
                    try await tunnel.vpc.drops("inner-length-wrong")
                        >= UInt64(InnerPackets.lyingLengths.count)
                }
                for family in Family.allCases { try await tunnel.ping(from: .onprem, family) }
            }
        }

        @Test("malformed packets from the host do not enter the tunnel")
        func malformedFromHost() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let malformed = InnerPackets.unreadable + InnerPackets.lyingLengths
                try #require(try await tunnel.onprem.drops("outbound-malformed") == 0)
                try await tunnel.lab.inject(malformed, into: tunnel.onprem)
                try await eventually("all that the host sent is counted") {
                    try await tunnel.onprem.drops("outbound-malformed") == UInt64(malformed.count)
                }
                for reason in ["inner-length-wrong", "inner-version-unknown"] {
                    try #require(try await tunnel.vpc.drops(reason) == 0, "\(reason) at the far end")
                }
                for family in Family.allCases { try await tunnel.ping(from: .onprem, family) }
            }
        }

        @Test("junk on the control socket leaves others served and the tunnel alone")
        func controlJunk() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let socket = tunnel.vpc.controlSocket
                let lab = tunnel.lab
                let before = try await tunnel.vpc.drops("control-request-malformed")
                try await Shell.run(
                    """
                    head -c 100000 /dev/urandom | timeout 5 socat - UNIX-CONNECT:\(socket) >/dev/null 2>&1
                    printf 'GET /v1/status HTTP/9.9\\r\\n\\r\\n' | timeout 5 socat - UNIX-CONNECT:\(socket) >/dev/null 2>&1
                    printf 'GET /%s HTTP/1.1\\r\\n\\r\\n' $(head -c 200000 /dev/zero | tr '\\0' a) 2>/dev/null \
                        | timeout 5 socat - UNIX-CONNECT:\(socket) >/dev/null 2>&1
                    true
                    """)
                // Half a request, held open, many times over.
                try await lab.start(
                    [
                        "bash", "-c",
                        "for i in $(seq 100); do (printf 'POST /v1/routes HTTP/1.1\\r\\n'; sleep 60) "
                            + "| socat - UNIX-CONNECT:\(socket) & done; wait",
                    ], name: "slow-clients", in: lab.namespace(.vpc))
                try await eventually("the slow clients are connected") {
                    // The kernel shows the name that the socket was bound to, before it had its own.
                    try await Shell.run(
                        "ss -Hx state established | grep -c \"/.$(basename \(socket)).new[0-9]* \" || true",
                        in: lab.namespace(.vpc)) == "100"
                }
                let expected = [
                    ("-X POST -H 'Content-Type: application/json' -d '{' http://x/v1/routes", 400),
                    (
                        "-X POST -H 'Content-Type: application/json' -d '{\"prefix\":7}' http://x/v1/routes",
                        400
                    ),
                    (
                        "-X POST -d '{\"prefix\":\"10.77.0.0/16\",\"connection\":\"none\"}' http://x/v1/routes",
                        404
                    ),
                    ("http://x/v1/nothing", 404),
                    ("-X PUT http://x/v1/status", 405),
                    ("-X DELETE 'http://x/v1/routes?prefix=junk'", 400),
                    (
                        "-X POST --data-binary @\(try lab.write([UInt8](repeating: 32, count: 10 << 20), to: "big")) "
                            + "-H 'Expect:' http://x/v1/routes", 413
                    ),
                ]
                for (request, code) in expected {
                    var answer = ""
                    try await eventually("\(request) is answered") {
                        answer = try await Shell.attempt(
                            "curl -s -m 10 -o /dev/null -w '%{http_code}' --unix-socket \(socket) \(request)"
                        ).output
                        // Curl's word for no answer at all.
                        return answer != "000"
                    }
                    try #require(answer == String(code), "\(request) gave \(answer), not \(code)")
                }
                // What is no HTTP, three times, and all but what asks for a connection that is not there.
                try await eventually("each malformed request is counted") {
                    try await tunnel.vpc.drops("control-request-malformed")
                        >= before + 3 + UInt64(expected.count) - 1
                }
                for site in Site.allCases { try await tunnel.ping(from: site, .v4) }
            }
        }

        @Test("junk on the wg socket leaves others served", arguments: [Gateway.Kind.configured, .driven])
        func wgJunk(_ kind: Gateway.Kind) async throws {
            try await Tunnel.run(Pairing(initiator: .configured, responder: kind)) { tunnel in
                let socket = tunnel.vpc.uapiSocket
                // A `set` that is never finished, held open while others ask.
                try await tunnel.lab.start(
                    [
                        "bash", "-c",
                        "(printf 'set=1\\nreplace_peers=true\\n'; sleep 60) | socat - UNIX-CONNECT:\(socket)",
                    ], name: "unfinished", in: tunnel.vpc.namespace)
                try await Shell.run(
                    """
                    head -c 300000 /dev/urandom | timeout 5 socat - UNIX-CONNECT:\(socket) >/dev/null 2>&1
                    head -c 9000000 /dev/zero | tr '\\0' a | timeout 5 socat - UNIX-CONNECT:\(socket) >/dev/null 2>&1
                    true
                    """)
                let refused = [
                    ("set=1\\nbogus=1\\n\\n", -22), ("set=1\\nprivate_key=zz\\n\\n", -22),
                    ("set=1\\nlisten_port=70000\\n\\n", -22), ("set=1\\npublic_key=00\\n\\n", -22),
                    ("set=1\\nreplace_peers=true\\nbogus=1\\n\\n", -22), ("junk\\n\\n", 22),
                ]
                for (request, errno) in refused {
                    let answer = try await Shell.attempt(
                        "printf '\(request)' | timeout 30 socat -t 20 - UNIX-CONNECT:\(socket)")
                    try #require(answer.output == "errno=\(errno)", "\(request) gave \(answer)")
                }
                // These, and the two whose line has no end.
                let count = try await tunnel.vpc.drops("wg-request-refused")
                try #require(count >= UInt64(refused.count) + 2, "\(count) are counted")
                // The `replace_peers` of the refused request was not applied.
                try #require(try await tunnel.vpc.peer().endpoint != nil)
                for site in Site.allCases { try await tunnel.ping(from: site, .v4) }
            }
        }
    }
}

extension Gateway {
    func totalDrops() async throws -> UInt64 {
        guard let status = try await status() else { throw LabError("\(site) gives no status") }
        return status.drops.values.reduce(0, &+)
    }
}

/// Packets from 10.10.0.1 to 10.20.0.1, or their like in IPv6, that are not what they say.
enum InnerPackets {
    /// Readable headers whose total length is more than there is, or less than a header; and headers shorter
    /// than any, or longer than their packet.
    static let lyingLengths: [[UInt8]] = [
        // 17 more than there is: up to 15 could be the padding of a transport message, and cannot be told
        // from it.
        v4(totalLength: 2000, present: 60), v4(totalLength: 77, present: 60),
        v4(totalLength: 19, present: 60), v4(totalLength: 0, present: 60),
        v6(payloadLength: 2000, present: 20), v6(payloadLength: 37, present: 20),
        [0x44] + v4(totalLength: 60, present: 60).dropFirst(),
        [0x4f] + v4(totalLength: 40, present: 40).dropFirst(),
    ]

    /// Packets of no IP version, or too short for a header.
    static let unreadable: [[UInt8]] = [
        [0x50] + v4(totalLength: 60, present: 60).dropFirst(),
        [0x00] + v4(totalLength: 60, present: 60).dropFirst(),
        Array(v4(totalLength: 19, present: 20).prefix(19)),
        Array(v6(payloadLength: 0, present: 0).prefix(39)),
    ]

    private static func v4(totalLength: Int, present: Int) -> [UInt8] {
        var packet: [UInt8] = [
            0x45, 0, UInt8(totalLength >> 8), UInt8(totalLength & 255), 0, 1, 0, 0, 64, 17, 0, 0,
            10, 10, 0, 1, 10, 20, 0, 1,
        ]
        packet += [UInt8](repeating: 0x61, count: present - packet.count)
        return packet
    }

    private static func v6(payloadLength: Int, present: Int) -> [UInt8] {
        let source: [UInt8] = [0xfd, 0x10] + [UInt8](repeating: 0, count: 13) + [1]
        let destination: [UInt8] = [0xfd, 0x20] + [UInt8](repeating: 0, count: 13) + [1]
        let start: [UInt8] = [0x60, 0, 0, 0, UInt8(payloadLength >> 8), UInt8(payloadLength & 255), 17, 64]
        return start + source + destination + [UInt8](repeating: 0x61, count: present)
    }
}
