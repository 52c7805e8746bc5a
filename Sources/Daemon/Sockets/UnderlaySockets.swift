internal import DataPlane
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// The wires that tunnels leave by, as sockets: number 0 is the gateway's own port, and there is one more for
/// each binding that a tunnel asks for.
///
/// A binding whose device is not there has no sockets. It gets them when the device comes, and new ones when
/// another comes by its name: a socket is bound to a device's index.
///
/// Sockets that others take the place of stay open until no data thread uses them any more. Until then their port is
/// not free; who asks for it again gets the same sockets back.
///
/// Owned by the control thread. A copy that was changed shares the sockets that stayed, so that what fails has
/// changed nothing.
struct UnderlaySockets {
    private(set) var bindings: [UnderlayBinding]
    private(set) var groups: UDPSocketGroups
    /// Why a binding has no sockets, by number.
    private(set) var problems: [SystemError?]
    /// Indices of the devices that are bound to, by number; 0 is none.
    private var interfaceOfBinding: [UInt32]
    private var isRunning: [String: Bool] = [:]
    /// Sources that are bound to, and are no address of this host now. An IPv4 packet from one is refused (EINVAL), and
    /// one of IPv6 leaves, and is never answered.
    private var lostSources: Set<IPAddress> = []
    /// By number: whether outer packets go whole or not at all.
    private var dontFragment: Set<UInt8> = []
    /// Datagrams that were dropped by sockets which others have taken the place of.
    private var queueDropsBefore: UInt64 = 0
    /// Groups that others have taken the place of just now.
    private var replaced: [UDPSocketGroup] = []
    /// Groups that are in use no more, until the data threads have reached a generation of sockets.
    private var leaving: [(group: UDPSocketGroup, generation: UInt64)] = []

    private var options: UDPSocketOptions

    /// Throws when the gateway's own port cannot be had.
    init(
        port: UInt16, workers: Int, options: UDPSocketOptions, bindings: [UnderlayBinding]
    ) throws(SystemError) {
        let own = try UDPSocketGroup.bind(port: port, workers: workers, options: options)
        self.bindings = [UnderlayBinding()]
        groups = UDPSocketGroups(own)
        problems = [nil]
        interfaceOfBinding = [0]
        self.port = own.port
        self.workers = own.workers.count
        self.options = options
        for binding in bindings
        where number(of: binding) == nil && self.bindings.count < UDPSocketGroups.limit {
            self.bindings.append(binding)
            problems.append(nil)
            interfaceOfBinding.append(0)
        }
        for number in self.bindings.indices.dropFirst() { bind(number) }
        lookForSources()
    }

    /// Nil past the limit.
    func number(of binding: UnderlayBinding) -> UInt8? {
        bindings.firstIndex(of: binding).map { UInt8($0) }
    }

    /// The gateway's own port, as bound.
    private(set) var port: UInt16
    let workers: Int

    /// Every port that outer packets come to.
    var ports: Set<UInt16> { Set(bindings.map { $0.listenPort ?? port }) }

    /// Indices of the devices that are bound to.
    var interfaces: Set<UInt32> { Set(interfaceOfBinding.filter { $0 != 0 }) }

    /// Returns the index of the device that this number is bound to, if it is and the device is there.
    func interface(of number: UInt8) -> UInt32? {
        let interface = interfaceOfBinding[Int(number)]
        return interface == 0 ? nil : interface
    }

    /// Whether a tunnel can leave by this number: there are sockets, and the device that they are bound to is up
    /// and has a carrier.
    func isUp(_ number: UInt8) -> Bool {
        guard groups[number] != nil, lostSource(of: number) == nil else { return false }
        return bindings[Int(number)].device.map { isRunning[$0] ?? false } ?? true
    }

    /// Why nothing can leave by this number, in words; nil when it can.
    func problem(of number: UInt8) -> String? {
        if let source = lostSource(of: number) {
            return "\(source), which it is bound to, is no address of this host"
        }
        if let problem = problems[Int(number)] { return "\(problem)" }
        guard !isUp(number), let device = bindings[Int(number)].device else { return nil }
        return "interface \(device) is down"
    }

    /// What to do about `problem`; nil where that says it.
    func remedy(of number: UInt8) -> String? {
        let binding = bindings[Int(number)]
        if let source = lostSource(of: number) {
            let device = binding.device ?? "DEVICE"
            return
                "give it back (ip address add \(source)/LENGTH dev \(device)), or write another source in bind"
        }
        guard !isUp(number), let device = binding.device else { return nil }
        return isRunning[device] == nil ? nil : "see 'ip link show \(device)'"
    }

    func isBound(to source: IPAddress) -> Bool { bindings.contains { $0.source == source } }

    private func lostSource(of number: UInt8) -> IPAddress? {
        bindings[Int(number)].source.flatMap { lostSources.contains($0) ? $0 : nil }
    }

    private mutating func lookForSources() {
        let sources = Set(bindings.compactMap(\.source))
        guard !sources.isEmpty, let netlink = try? Netlink() else { return }
        lostSources = sources.filter { !netlink.isLocal($0) }
    }

    /// After links or addresses came or went: what is bound to a device that is gone, or another now, is bound
    /// again, and so is what has no sockets yet. True when the sockets are others than before.
    mutating func followLinks() -> Bool {
        var hasChanged = false
        lookForSources()
        for number in bindings.indices.dropFirst() {
            let wasThere = groups[UInt8(number)] != nil
            if let device = bindings[number].device, let index = look(at: device),
                index != interfaceOfBinding[number]
            {
                groups[UInt8(number)] = nil
                hasChanged = hasChanged || wasThere
            }
            guard groups[UInt8(number)] == nil else { continue }
            bind(number)
            hasChanged = hasChanged || groups[UInt8(number)] != nil
        }
        return hasChanged
    }

    /// Whether the outer packets of a number go whole or not at all: of its sockets, and of those that it gets when
    /// it is bound again.
    mutating func setDontFragment(_ isOn: Bool, of number: UInt8) throws(SystemError) {
        guard isOn != dontFragment.contains(number) else { return }
        try groups[number]?.setDontFragment(isOn)
        if isOn { dontFragment.insert(number) } else { dontFragment.remove(number) }
    }

    /// Another port, of the kernel's choice for 0, or another mark.
    mutating func move(toPort newPort: UInt16?, mark: UInt32) throws(SystemError) {
        options.mark = mark
        guard let newPort else { return try groups.setMark(mark) }
        var own = options
        own.dontFragment = dontFragment.contains(0)
        let group = try socketGroup(port: newPort, options: own)
        groups[0] = group
        port = group.port
        for number in bindings.indices.dropFirst() {
            if bindings[number].listenPort == nil {
                groups[UInt8(number)] = nil
                bind(number)
            } else if let group = groups[UInt8(number)] {
                for socket in group.sockets { try socket.setMark(mark) }
            }
        }
    }

    private mutating func bind(_ number: Int) {
        let binding = bindings[number]
        var options = options
        options.device = binding.device
        options.source = binding.source
        options.dontFragment = dontFragment.contains(UInt8(number))
        interfaceOfBinding[number] = binding.device.flatMap { look(at: $0) } ?? 0
        do throws(SystemError) {
            groups[UInt8(number)] = try socketGroup(
                port: binding.listenPort ?? port, options: options, deviceIndex: interfaceOfBinding[number])
            problems[number] = nil
        } catch {
            problems[number] = error
        }
    }

    /// One that is just leaving the port, or a new one.
    private mutating func socketGroup(
        port: UInt16, options: UDPSocketOptions, deviceIndex: UInt32 = 0
    ) throws(SystemError) -> UDPSocketGroup {
        let place = leaving.firstIndex { group, _ in
            group.port == port && group.device == options.device && group.deviceIndex == deviceIndex
                && group.source == options.source
        }
        if let place {
            let group = leaving[place].group
            try group.setMark(options.mark)
            try group.setDontFragment(options.dontFragment)
            leaving.remove(at: place)
            return group
        }
        let group = try UDPSocketGroup.bind(port: port, workers: workers, options: options, beside: groups)
        // The receivers of the peers' data were chosen when it could.
        guard group.workers.count == workers else {
            throw SystemError(call: "steer datagrams among workers", code: WgRequest.notSupported)
        }
        return group
    }

    /// Takes over a copy that was changed: what was in use, and is no more, must stay open for a while (`keepLeaving`).
    mutating func replace(by next: UnderlaySockets) {
        let before = groups
        let drops = queueDropsBefore + before.queueDrops
        self = next
        queueDropsBefore = drops - min(drops, groups.queueDrops)
        let staying = Set(groups.sockets.map { ObjectIdentifier($0) })
        replaced = before.present.map(\.group).filter { group in
            !group.sockets.contains { staying.contains(ObjectIdentifier($0)) }
        }
    }

    /// Keeps what was replaced until the data threads have reached a generation of sockets.
    mutating func keepLeaving(until generation: UInt64) {
        leaving += replaced.map { ($0, generation) }
        replaced = []
    }

    /// Datagrams that the kernel dropped before they were read, in this run.
    var queueDrops: UInt64 { queueDropsBefore + groups.queueDrops }

    /// In the order of their numbers, as the gateway sees them.
    var states: [UnderlayState] {
        bindings.indices.map { index in
            let number = UInt8(index)
            return UnderlayState(
                bindings[index], isUp: isUp(number), problem: problem(of: number), remedy: remedy(of: number))
        }
    }

    /// Closes what no data thread uses any more: all have reached `generation`.
    mutating func letGo(upTo generation: UInt64) {
        if !leaving.isEmpty { leaving.removeAll { $0.generation <= generation } }
    }

    /// Its index; 0 when there is none of that name, nil when the kernel cannot be asked.
    private mutating func look(at device: String) -> UInt32? {
        do throws(SystemError) {
            let link = try Netlink().link(device)
            isRunning[device] = link.map { $0.isUp && $0.hasCarrier } ?? false
            return link?.index ?? 0
        } catch {
            return nil
        }
    }
}
