import TestSupport

@testable import WireGuard

/// A gateway in a simulation: the real device and the real data path, with arrays in place of TUN and socket.
final class SimulatedNode {
    struct Sent {
        let at: Instant
        let bytes: [UInt8]
        let to: UnderlayPath

        var type: MessageType? { MessageType(of: bytes) }
        /// Header and tag, nothing in it.
        var isKeepalive: Bool { type == .transport && bytes.count == Protocol.transportOverhead }
    }

    let number: Int
    let privateKey: PrivateKey
    /// Where the network delivers to this node, and what others see as its source.
    var address: Endpoint
    /// Far ends, as an operator would have written them down.
    private(set) var configurations: [(node: SimulatedNode, configuration: PeerConfiguration)] = []

    private(set) var device: Device
    private var datapath: SimulatedDatapath
    private let dataDrops = DropCounters()

    /// Everything that it gave to the network and has not been taken yet.
    private var wire: [Sent] = []
    private(set) var sent: [Sent] = []
    /// Inner packets written to the TUN, in order.
    private(set) var delivered: [[UInt8]] = []
    private(set) var events: [(at: Instant, event: PeerEvent)] = []
    private(set) var traces: [HandshakeTrace] = []

    init(number: Int, seed: UInt64, realtimeOffset: Int64 = 1_700_000_000_000_000_000) {
        self.number = number
        var entropy = SplitMix(seed: seed)
        privateKey = PrivateKey.generate(from: &entropy)
        address = Endpoint(address: IPAddress(v4: 0xc000_0200 + UInt32(number)), port: 51820)
        datapath = SimulatedDatapath(keypairs: 512, drops: dataDrops)
        device = Device(privateKey: privateKey, keypairs: datapath.keypairs, entropy: entropy)
        device.realtimeOffset = realtimeOffset
    }

    var innerAddress: IPAddress { IPAddress(v4: 0x0a00_0001 + UInt32(number) << 16) }

    func know(
        _ other: SimulatedNode, presharedKey: PresharedKey = .none, cipher: Cipher = .chacha20Poly1305,
        endpointKnown: Bool = true, keepalive: UInt16 = 0, publicKey: PublicKey? = nil, now: Instant
    ) {
        let configuration = PeerConfiguration(
            publicKey: publicKey ?? other.privateKey.publicKey, presharedKey: presharedKey,
            cipher: cipher, underlay: endpointKnown ? UnderlayPath(endpoint: other.address) : nil,
            persistentKeepalive: keepalive)
        configurations.append((other, configuration))
        _ = device.addPeer(configuration, now: now)
        makeTable()
    }

    private func makeTable() {
        let connections = configurations.compactMap { other, configuration in
            device.peerID(for: configuration.publicKey).flatMap { device.path(of: $0) }.map { path in
                ForwardingTable.Connection(
                    prefixes: [IPPrefix(address: other.innerAddress, length: 16)!.network], paths: [path])
            }
        }
        datapath.table = ForwardingTable(connections: connections, mtu: 1420)
    }

    func id(of other: SimulatedNode) -> PeerID {
        let configuration = configurations.first { $0.node === other }!.configuration
        return device.peerID(for: configuration.publicKey)!
    }

    func status(of other: SimulatedNode) -> PeerStatus { device.status(of: id(of: other))! }

    /// Everything but keys and the timestamp floor is gone, as after kill -9.
    func restart(seed: UInt64, now: Instant) {
        let offset = device.realtimeOffset
        let floor = device.lastTimestamp
        datapath = SimulatedDatapath(keypairs: 512, drops: dataDrops)
        device = Device(
            privateKey: privateKey, keypairs: datapath.keypairs, entropy: SplitMix(seed: seed),
            timestampFloor: floor)
        device.realtimeOffset = offset
        for (_, configuration) in configurations { _ = device.addPeer(configuration, now: now) }
        makeTable()
    }

    /// What an operator or a timer does to the device; `settle` then collects what came of it.
    func command(_ body: (inout Device) -> Void) { body(&device) }

    // MARK: Data path

    func send(_ packets: [[UInt8]], now: Instant) {
        datapath.send(packets, now: now) { wire.append(Sent(at: now, bytes: $0, to: $1)) }
    }

    func receive(_ datagram: [UInt8], from: Endpoint, now: Instant) {
        let source = LocalSource(address: address.address, interface: 2)
        delivered += datapath.receive(
            datagram, from: UnderlayPath(endpoint: from, source: source), now: now
        ) { wire.append(Sent(at: now, bytes: $0, to: $1)) }
    }

    /// Lets control run until it has nothing more to do; what it and the data path gave to the network.
    func settle(now: Instant) -> [Sent] {
        var isQuiet = false
        while !isQuiet {
            let pending = datapath.takeEvents()
            for event in pending { device.handle(event, now: now) }
            isQuiet = pending.isEmpty
            while let output = device.poll() {
                isQuiet = false
                switch output {
                case .transmit(let bytes, let underlay, _, _):
                    wire.append(Sent(at: now, bytes: bytes, to: underlay))
                case .event(_, let event): events.append((now, event))
                case .trace(let trace): traces.append(trace)
                }
            }
        }
        datapath.keypairs.reclaim()
        defer { wire = [] }
        sent += wire
        return wire
    }

    // MARK: Looking

    func sent(_ type: MessageType) -> [Sent] { sent.filter { $0.type == type } }

    var keepalives: [Sent] { sent.filter(\.isKeepalive) }

    func drops(_ reason: DropReason) -> UInt64 { device.dropCounters[reason] + dataDrops[reason] }

    func forgetHistory() {
        sent = []
        events = []
        delivered = []
    }
}
