internal import ArgumentParser
internal import FoundationEssentials
internal import LinuxIO
internal import WireGuard

/// Counts how many handshakes a second a WireGuard responder answers.
///
///     1. make initiations in advance, in turn for each of many peers, so that the generator's own
///        Diffie-Hellman takes nothing from the responder's cores
///     2. keep a few of them outstanding: the responder always has one to work on, and its queue never fills
///        so far that it takes itself to be under attack and answers with cookies
///     3. at the end check some of the responses: they must be true ones
///
/// A peer's initiations are more than 20 ms apart below 50,000 a second, which responders insist on.
struct HandshakeStorm: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Counts the handshakes that a responder answers.", shouldDisplay: false)

    /// Said at the end, as JSON.
    struct Outcome: Codable {
        var answered: Int
        var lost: Int
        var cookies: Int
        var seconds: Double
    }

    static let peerCount = 1000
    private static let perSecond = 4000
    private static let window = 32
    /// Without an answer for so long, what is outstanding is taken for lost.
    private static let patience: Duration = .milliseconds(300)
    private static let checkedEach = 97

    @Option(help: "ADDRESS:PORT of the responder.") var to: String
    @Option(help: "Public key of the responder.") var key: String
    @Option(help: "What both ends were told to use.") var cipher: String
    @Option(help: "At most so long; and so many thousands are made in advance.") var seconds: Int

    private struct Prepared {
        var messages: [[UInt8]] = []
        /// Handshakes of some messages, by index into `messages`.
        var handshakes: [Int: InitiatorHandshake] = [:]
    }

    /// The initiators' keys. Anybody can make them: they are of no worth outside the lab, and a file less.
    static func peers() -> [PrivateKey] {
        (0..<peerCount).map { number in
            PrivateKey(clamping: SecretBytes(Blake2s.hash(Array("vgw-bench peer \(number)".utf8))))
        }
    }

    /// For `wg addconf`.
    static func configuration(of peers: [PrivateKey]) -> String {
        peers.map { "[Peer]\nPublicKey = \($0.publicKey.base64)\n" }.joined()
    }

    func run() throws {
        guard sodiumIsReady, let far = Endpoint(to), let responder = PublicKey(base64: key),
            let cipher = Cipher(rawValue: cipher)
        else { throw ValidationError("'\(to)', '\(key)' or '\(cipher)' is malformed") }
        let prepared = try prepare(responder, cipher)
        let socket = try DatagramSocket.udp(connectedTo: far)
        let request = DatagramBatch(capacity: 1, size: Protocol.initiationSize)
        let answers = DatagramBatch(capacity: Self.window, size: Protocol.initiationSize)
        var set = PollSet(socket.fd)
        var outcome = Outcome(answered: 0, lost: 0, cookies: 0, seconds: 0)
        var responses: [HandshakeResponse] = []
        var next = 0
        var outstanding = 0
        let start = SystemClock.now()
        let end = start + .seconds(seconds)
        var now = start
        while now < end, next < prepared.messages.count || outstanding > 0 {
            while outstanding < Self.window, next < prepared.messages.count {
                request.setBytes(0, prepared.messages[next])
                _ = request.send(1, on: socket.fd)
                next += 1
                outstanding += 1
            }
            if set.wait(timeout: Self.patience) == 0 {
                outcome.lost += outstanding
                outstanding = 0
            }
            for i in 0..<answers.receive(on: socket.fd) {
                let bytes = answers.bytes(i)
                switch MessageType(of: bytes) {
                case .response:
                    guard let response = HandshakeResponse(bytes) else { continue }
                    outcome.answered += 1
                    if Int(response.receiverIndex) % Self.checkedEach == 0 { responses.append(response) }
                case .cookieReply: outcome.cookies += 1
                default: continue
                }
                outstanding -= 1
            }
            now = SystemClock.now()
        }
        outcome.seconds = Double((now - start).wholeNanoseconds) / 1e9
        for response in responses {
            guard let handshake = prepared.handshakes[Int(response.receiverIndex)] else {
                throw Failure("a response to no initiation")
            }
            _ = try handshake.finish(response)
        }
        try Output.write(outcome)
    }

    /// The index of each is its place, so that a response tells which it answers.
    private func prepare(_ responder: PublicKey, _ cipher: Cipher) throws -> Prepared {
        var prepared = Prepared()
        var entropy = SystemEntropy()
        var stamp = TAI64N(unixNanoseconds: SystemClock.unixNanoseconds())
        let peers = Self.peers()
        let secrets = try peers.map { try $0.sharedSecret(with: responder) }
        var macs = MacGenerator(peer: responder)
        for place in 0..<seconds * Self.perSecond {
            let number = place % peers.count
            if number == 0 { stamp = stamp.next() }
            var (message, handshake) = try InitiatorHandshake.begin(
                static: peers[number], peer: responder, staticStatic: secrets[number], presharedKey: .none,
                cipher: cipher, index: UInt32(place), timestamp: stamp, entropy: &entropy)
            macs.stamp(&message, now: SystemClock.now())
            prepared.messages.append(message.bytes)
            if place.isMultiple(of: Self.checkedEach) { prepared.handshakes[place] = handshake }
        }
        return prepared
    }
}
