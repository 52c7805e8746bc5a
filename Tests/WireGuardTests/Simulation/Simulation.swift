import TestSupport

@testable import WireGuard

/// Several gateways, a network between them and one clock, which jumps from one thing that happens to the
/// next.
///
/// The same seed gives the same run, to the last bit.
final class Simulation {
    /// What the network does to each datagram.
    struct Conditions {
        /// How many of a thousand are lost, come twice, or are played back later by somebody on the way.
        var loss = 0
        var duplication = 0
        var replay = 0
        /// Different delays reorder.
        var delay: ClosedRange<Duration> = .milliseconds(10)...(.milliseconds(10))
    }

    private struct Entry {
        let at: Instant
        let action: () -> Void
    }

    private(set) var now = Instant.at(0)
    private(set) var nodes: [SimulatedNode] = []
    var conditions = Conditions()
    /// Datagrams from the first node to the second are lost.
    var isCut: (_ from: Endpoint, _ to: Endpoint) -> Bool = { _, _ in false }
    private(set) var monitor = WireMonitor()
    private var sleeping: SimulatedNode?

    private let seed: UInt64
    private var random: SplitMix
    /// Latest first; of those at the same instant the one scheduled first is last.
    private var agenda: [Entry] = []
    private var packetCount: UInt64 = 0

    init(seed: UInt64 = 1) {
        self.seed = seed
        random = SplitMix(seed: seed &* 0x9e37_79b9)
    }

    /// Two gateways that know each other, and a network that takes 10 ms and loses nothing.
    static func pair(
        seed: UInt64 = 1, presharedKey: PresharedKey = .none, cipher: Cipher = .chacha20Poly1305,
        rightKnowsEndpoint: Bool = true
    ) -> (Simulation, SimulatedNode, SimulatedNode) {
        let simulation = Simulation(seed: seed)
        let left = simulation.addNode()
        let right = simulation.addNode()
        left.know(right, presharedKey: presharedKey, cipher: cipher, now: simulation.now)
        right.know(
            left, presharedKey: presharedKey, cipher: cipher, endpointKnown: rightKnowsEndpoint,
            now: simulation.now)
        return (simulation, left, right)
    }

    func addNode() -> SimulatedNode {
        let node = SimulatedNode(number: nodes.count + 1, seed: seed &* 1000 &+ UInt64(nodes.count))
        nodes.append(node)
        return node
    }

    func randomNumber(below limit: Int) -> Int { Int(random.next(UInt32.self) % UInt32(limit)) }

    // MARK: Time

    func schedule(at instant: Instant, _ action: @escaping () -> Void) {
        let place = agenda.firstIndex { $0.at <= instant } ?? agenda.endIndex
        agenda.insert(Entry(at: instant, action: action), at: place)
    }

    func schedule(after delay: Duration, _ action: @escaping () -> Void) { schedule(at: now + delay, action) }

    func run(for duration: Duration) { run(until: now + duration) }

    /// Everything that happens up to and at `end`.
    func run(until end: Instant) {
        var steps = 0
        settle()
        while let next = nextInstant, next <= end {
            now = max(now, next)
            if let entry = agenda.last, entry.at <= now {
                agenda.removeLast()
                entry.action()
            } else {
                for node in nodes where node !== sleeping { node.command { $0.handleTimeout(now: now) } }
            }
            settle()
            steps += 1
            precondition(steps < 200_000, "the simulation of seed \(seed) does not come to rest")
        }
        now = max(now, end)
    }

    private var nextInstant: Instant? {
        var earliest = agenda.last?.at
        for node in nodes where node !== sleeping {
            guard let timeout = node.device.nextTimeout else { continue }
            earliest = earliest.map { min($0, timeout) } ?? timeout
        }
        return earliest
    }

    // MARK: Doing

    /// Gives an inner packet that nobody has sent before to the node's TUN.
    @discardableResult
    func sendPacket(from: SimulatedNode, to: SimulatedNode) -> [UInt8] {
        packetCount += 1
        let packet = InnerPackets.udp(
            from: from.innerAddress, to: to.innerAddress, payload: InnerPackets.bigEndian(packetCount))
        from.send([packet], now: now)
        settle()
        return packet
    }

    func command(_ node: SimulatedNode, _ body: (inout Device) -> Void) {
        node.command(body)
        settle()
    }

    func initiate(from: SimulatedNode, to: SimulatedNode) {
        let id = from.id(of: to)
        command(from) { $0.initiate(id, now: now) }
    }

    func restart(_ node: SimulatedNode) {
        node.restart(seed: random.next(UInt64.self), now: now)
        monitor.forget(node)
    }

    /// What the node sends from here on is another run's.
    func forgetRun(of node: SimulatedNode) { monitor.forget(node) }

    /// The node's machine hears nothing and does nothing, while its clock goes on; then all that is due is due at once.
    func suspend(_ node: SimulatedNode, for duration: Duration) {
        sleeping = node
        run(for: duration)
        sleeping = nil
        command(node) { $0.handleTimeout(now: now) }
    }

    /// The node sends from, and is reached at, another port from now on, as behind a NAT that lost its
    /// mapping.
    func rebind(_ node: SimulatedNode) { node.address.port &+= 1 }

    /// A stranger's datagram, or one played back.
    func inject(_ bytes: [UInt8], from: Endpoint, to: Endpoint) {
        guard let node = nodes.first(where: { $0.address == to }), node !== sleeping else { return }
        monitor.noteReceived(bytes, by: node)
        node.receive(bytes, from: from, now: now)
        settle()
    }

    // MARK: Network

    /// Where the eavesdropper plays back from.
    static let strangerAddress = Endpoint(address: IPAddress(v4: 0xcb00_7107), port: 666)

    private func settle() {
        for node in nodes {
            for message in node.settle(now: now) {
                monitor.noteSent(message, by: node)
                transmit(message.bytes, from: node.address, to: message.to.endpoint)
            }
        }
    }

    private func transmit(_ bytes: [UInt8], from: Endpoint, to: Endpoint) {
        if conditions.loss > 0, randomNumber(below: 1000) < conditions.loss { return }
        let copies = conditions.duplication > 0 && randomNumber(below: 1000) < conditions.duplication ? 2 : 1
        for _ in 0..<copies {
            schedule(after: randomDelay()) { [self] in
                if isCut(from, to) { return }
                inject(bytes, from: from, to: to)
                if conditions.replay > 0, randomNumber(below: 1000) < conditions.replay {
                    // Only what has arrived: who can hold a datagram back moves a WireGuard peer by design.
                    let source = randomNumber(below: 2) == 0 ? from : Self.strangerAddress
                    schedule(after: .milliseconds(randomNumber(below: 200_000))) { [self] in
                        inject(bytes, from: source, to: to)
                    }
                }
            }
        }
    }

    private func randomDelay() -> Duration {
        let lower = conditions.delay.lowerBound.wholeNanoseconds
        let span = conditions.delay.upperBound.wholeNanoseconds - lower
        return .nanoseconds(span == 0 ? lower : lower + Int64(random.next(UInt32.self)) % span)
    }
}
