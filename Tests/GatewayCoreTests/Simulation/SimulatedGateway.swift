import ControlAPI
import TestSupport
import WireGuard

@testable import GatewayCore

/// A whole gateway in a simulation: the real core and the real data path, with arrays in place of TUN, sockets and kernel.
final class SimulatedGateway {
    struct Sent {
        let bytes: [UInt8]
        let from: Endpoint
        let to: Endpoint
    }

    let number: Int
    let privateKey: PrivateKey
    /// What it is restarted with.
    private var spec = GatewaySpec()
    private let seed: UInt64
    private var starts: UInt64 = 0
    private let settings: Gateway.Settings

    private(set) var gateway: Gateway
    private var datapath: SimulatedDatapath
    let dataDrops = DropCounters()

    /// Everything that it gave to the network and has not been taken yet.
    private var wire: [Sent] = []
    /// Inner packets written to the TUN, in order.
    private(set) var delivered: [[UInt8]] = []
    private(set) var events: [GatewayEvent] = []
    private(set) var notes: [LogNote] = []
    private(set) var drills: [(connection: String, result: Result<DrillReport, APIError>)] = []
    private(set) var questions: [(peer: PeerID, host: String, port: UInt16)] = []
    /// What the kernel was last asked to do with each prefix; nil before the first time.
    private(set) var routes: [IPPrefix: WantedPrefix.State]?
    var realtimeOffset: Int64 = 1_700_000_000_000_000_000

    init(number: Int, seed: UInt64, settings: Gateway.Settings? = nil) {
        self.number = number
        self.seed = seed
        var entropy = SplitMix(seed: seed)
        privateKey = PrivateKey.generate(from: &entropy)
        self.settings = settings ?? Gateway.Settings(name: "gateway-\(number)")
        datapath = SimulatedDatapath(keypairs: 64, drops: dataDrops)
        gateway = Gateway(
            GatewaySpec(), settings: self.settings,
            device: Device(privateKey: nil, keypairs: datapath.keypairs, entropy: entropy),
            probeSecret: ProbeSecret(using: &entropy), underlays: [], interface: Self.interface,
            now: Instant(nanoseconds: 0))
    }

    private static let interface = InterfaceState(mtu: 1420, isUp: true)

    // MARK: Addresses

    /// Of its socket by the wire with this index; the tunnel by that wire is bound to it.
    func address(by wire: Int) -> Endpoint {
        Endpoint(address: IPAddress(v4: 0xc000_0200 + UInt32(wire) << 16 + UInt32(number)), port: 51820)
    }

    static func binding(_ wire: Int) -> UnderlayBinding {
        wire == 0 ? UnderlayBinding() : UnderlayBinding(device: "wan\(wire)")
    }

    func inside(of wire: Int) -> IPAddress {
        IPAddress(v4: 0xa9fe_6400 + UInt32(wire) << 8 + UInt32(number))
    }

    /// The network behind it, and a host in that.
    var site: IPPrefix { IPPrefix(address: host, length: 16)!.network }
    var host: IPAddress { IPAddress(v4: 0x0a00_0001 + UInt32(number) << 16) }

    // MARK: Life

    /// Begins a run, the first one or one after `kill -9`: nothing is left but keys, the timestamp floor and the spec.
    func start(_ spec: GatewaySpec, underlays: [UnderlayState], now: Instant) {
        self.spec = spec
        starts += 1
        var entropy = SplitMix(seed: seed &+ starts &* 7919)
        let floor = gateway.lastTimestamp
        datapath = SimulatedDatapath(keypairs: 64, drops: dataDrops)
        gateway = Gateway(
            spec, settings: settings,
            device: Device(
                privateKey: privateKey, keypairs: datapath.keypairs, entropy: entropy, timestampFloor: floor),
            probeSecret: ProbeSecret(using: &entropy), underlays: underlays, interface: Self.interface,
            now: now)
        gateway.handle(.clock(realtimeOffset: realtimeOffset), now: now)
        gateway.start(now: now)
    }

    func restart(now: Instant) { start(spec, underlays: gateway.underlays, now: now) }

    /// What happens to it, or what an operator orders; `settle` then collects what came of it.
    func tell<Failure: Error, Value>(_ body: (inout Gateway) throws(Failure) -> Value) throws(Failure)
        -> Value
    {
        try body(&gateway)
    }

    var nextTimeout: Instant? { gateway.nextTimeout }

    // MARK: Data path

    func send(_ packets: [[UInt8]], now: Instant) { datapath.send(packets, now: now, put: put) }

    /// A datagram that came by a wire.
    func receive(_ datagram: [UInt8], by wire: Int, from: Endpoint, now: Instant) {
        let source = LocalSource(address: address(by: wire).address, interface: UInt32(wire + 2))
        let underlay = UnderlayPath(endpoint: from, source: source, socket: UInt8(wire))
        delivered += datapath.receive(datagram, from: underlay, now: now, put: put)
    }

    private func put(_ bytes: [UInt8], _ underlay: UnderlayPath) {
        wire.append(Sent(bytes: bytes, from: address(by: Int(underlay.socket)), to: underlay.endpoint))
    }

    /// Lets the gateway run until it has nothing more to do. Returns what it and its data path gave to the network.
    func settle(now: Instant) -> [Sent] {
        var isQuiet = false
        while !isQuiet {
            let pending = datapath.takeEvents()
            for event in pending { gateway.handle(.dataplane(event), now: now) }
            isQuiet = pending.isEmpty
            while let output = gateway.poll() {
                isQuiet = false
                obey(output, now)
            }
        }
        datapath.keypairs.reclaim()
        defer { wire = [] }
        return wire
    }

    private func obey(_ output: Gateway.Output, _ now: Instant) {
        switch output {
        case .transmit(let bytes, let underlay, _, let peer):
            put(bytes, underlay)
            gateway.handle(.transmitted(peer, .sent), now: now)
        case .resolve(let peer, let host, let port): questions.append((peer, host, port))
        case .publish(let table): datapath.table = table
        case .reconcile(let prefixes):
            routes = Dictionary(prefixes.map { ($0.prefix, $0.state) }) { first, _ in first }
        case .raise(let event, _): events.append(event)
        case .note(let note), .gaveUp(_, let note): notes.append(note)
        case .drillEnded(let connection, let result): drills.append((connection, result))
        case .endpointChanged, .dontFragment, .learnedOverEndpoint: break
        }
    }

    // MARK: Looking

    func events(_ kinds: GatewayEvent.Kind...) -> [GatewayEvent] { events.filter { kinds.contains($0.kind) } }

    func forgetHistory() {
        events = []
        notes = []
        delivered = []
    }

    func tunnel(_ name: String) -> Tunnel? {
        gateway.connections.lazy.flatMap(\.tunnels).first { $0.name == name }
    }
}
