import ControlAPI
import Testing
import WireGuard

@testable import GatewayCore

/// What is said of a tunnel, and what to do, from facts alone: a row each.
@Suite struct DiagnosisTests {
    typealias Facts = Diagnosis.Facts

    struct Row: Sendable, CustomTestStringConvertible {
        let testDescription: String
        fileprivate let change: @Sendable (inout Facts) -> Void
        let reason: String?
        let hint: String?

        fileprivate init(
            _ what: String, reason: String?, hint: String? = nil,
            _ change: @escaping @Sendable (inout Facts) -> Void
        ) {
            testDescription = what
            self.reason = reason
            self.hint = hint
            self.change = change
        }
    }

    private static let endpoint = Endpoint("192.0.2.7:51820")!
    private static let askWhether =
        "is the far end running, does UDP get there, and does it know this gateway's public key?"

    /// A tunnel with an endpoint that is down, as its handshakes are not answered.
    private static var silent: Facts {
        var facts = Facts(
            state: .down, cause: .noReplyToHandshake, inState: .seconds(35), liveness: .silent,
            underlay: UnderlayState(UnderlayBinding()), cipher: .chacha20Poly1305)
        facts.endpoint = endpoint
        facts.failure = .noReply
        return facts
    }

    static let rows: [Row] = [
        Row("no answer", reason: "no answer from 192.0.2.7:51820", hint: askWhether) { _ in },
        Row(
            "no answer for a while, after it was heard",
            reason: "no answer from 192.0.2.7:51820 for 35 s, and nothing heard for 50 s", hint: askWhether
        ) {
            $0.asking = .seconds(35)
            $0.silent = .seconds(50)
        },
        Row(
            "answers that this host drops", reason: "no answer from 192.0.2.7:51820",
            hint: "rp_filter drops them: set it to 2"
        ) { $0.returnProblem = "rp_filter drops them: set it to 2" },
        Row("an operator's order", reason: "an operator took it down", hint: askWhether) {
            $0.state = .disabled
            $0.cause = .operator
        },
        Row("a wire that is down", reason: "interface eth1 is down", hint: "see 'ip link show eth1'") {
            $0.cause = .interfaceDown
            $0.underlay.problem = "interface eth1 is down"
            $0.underlay.remedy = "see 'ip link show eth1'"
        },
        Row(
            "a send error, which comes before what it leads to",
            reason: "sending to 192.0.2.7:51820 fails: Operation not permitted (EPERM)",
            hint: "a firewall of this host drops it on its way out: 'nft list ruleset' shows the rule"
        ) {
            $0.sendProblem = SendProblem(
                1, "Operation not permitted (EPERM)", to: endpoint, by: UnderlayBinding(), mark: 0)
        },
        Row("probes that are lost", reason: "probes are not answered by 169.254.1.2 for 35 s") {
            $0.cause = .probeTimeout
            $0.farInside = IPAddress("169.254.1.2")
            $0.failure = nil
        },
        Row(
            "probes that are lost while the far end is heard",
            reason:
                "probes are not answered for 35 s, though the far end is heard: what this end sends may be lost"
        ) {
            $0.cause = .probeTimeout
            $0.liveness = .heard
            $0.failure = nil
        },
        Row(
            "held down",
            reason:
                "probes are answered again; it has flapped, and for 8 s more it is used only where no other tunnel is up"
        ) {
            $0.cause = .probeTimeout
            $0.liveness = .answering
            $0.holdDownLeft = .milliseconds(7200)
        },
        Row(
            "held down, and interrupted",
            reason:
                "probes are answered again, but for some that are lost; it has flapped, and is used only where no "
                + "other tunnel is up until each is answered for 8 s"
        ) {
            $0.cause = .probeTimeout
            $0.liveness = .answering
            $0.holdDownLeft = .seconds(8)
            $0.isHoldDownInterrupted = true
        },
        Row(
            "answered too few times", reason: "probes are answered again, but fewer in a row than bring it up"
        ) {
            $0.cause = .probeTimeout
            $0.liveness = .answering
        },
        Row("targets", reason: "targets answered by another tunnel and not by this one") {
            $0.cause = .targetUnreachable
            $0.failure = nil
        },
        Row("a name that does not resolve", reason: "vgw.example does not resolve: no such name") {
            $0.endpoint = nil
            $0.failure = nil
            $0.nameProblem = "vgw.example does not resolve: no such name"
        },
        Row(
            "the same behind this host's own name server",
            reason: "vgw.example does not resolve: no name server answers", hint: "write dns = [...]"
        ) {
            $0.endpoint = nil
            $0.failure = nil
            $0.nameProblem = "vgw.example does not resolve: no name server answers"
            $0.stubHint = "write dns = [...]"
        },
        Row("a name that is looked up", reason: "looking up vgw.example") {
            $0.endpoint = nil
            $0.failure = nil
            $0.awaitedNames = "vgw.example"
        },
        Row("nobody spoke yet", reason: "the far end's endpoint is not known: it must speak first") {
            $0.endpoint = nil
            $0.failure = nil
        },
        Row("no key", reason: "this gateway has no private key") {
            $0.hasPrivateKey = false
            $0.failure = .noPrivateKey
        },
        Row(
            "another cipher", reason: "the far end uses cipher aes-256-gcm, this end chacha20-poly1305",
            hint: "nothing is negotiated: write the same cipher at both ends"
        ) {
            $0.failure = .dropped(.cipherMismatch)
            $0.foreignCipher = .aes256GCM
        },
        Row(
            "keys that do not match",
            reason: "a handshake with 192.0.2.7:51820 was refused: handshake-decryption-failed",
            hint: "the keys, or the pre-shared keys, of the two ends do not match"
        ) { $0.failure = .dropped(.handshakeDecryptionFailed) },
        Row("a handshake that is under way", reason: "waiting for an answer from 192.0.2.7:51820") {
            $0.failure = nil
            $0.isHandshaking = true
        },
        Row("nothing", reason: nil) {
            $0.state = .idle
            $0.cause = .started
            $0.failure = nil
        },
    ]

    @Test("an outage is worded by what is known of it, the nearest cause first", arguments: rows)
    func worded(_ row: Row) {
        var facts = Self.silent
        row.change(&facts)
        let diagnosis = Diagnosis(facts)
        #expect(diagnosis.reason == row.reason)
        #expect(diagnosis.hint == row.hint)
    }

    @Test("what is up and sends is fine; what is up and cannot send is not")
    func fine() {
        var facts = Self.silent
        facts.state = .up
        #expect(facts.isFine)
        facts.sendProblem = SendProblem(1, "EPERM", to: Self.endpoint, by: UnderlayBinding(), mark: 0)
        #expect(!facts.isFine)
    }
}
