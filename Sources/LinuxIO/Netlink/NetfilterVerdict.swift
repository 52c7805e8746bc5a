package import WireGuard

/// Whether a ruleset could let the first packet of a connection pass between two interfaces. Pure.
///
/// The packet's interfaces, family, protocol (TCP or UDP) and state (new) are known; a condition on anything else, an
/// address or a port, may hold or not. So the answer errs to one side: what "cannot pass" never does,
/// and what "could pass" does so for some addresses and ports, or depends on what is not looked at.
package struct NetfilterVerdict {
    package struct Packet: Hashable, Sendable {
        package let family: IPAddress.Family
        package let incoming: NetlinkLink
        package let outgoing: NetlinkLink

        package init(family: IPAddress.Family, from incoming: NetlinkLink, to outgoing: NetlinkLink) {
            self.family = family
            self.incoming = incoming
            self.outgoing = outgoing
        }
    }

    /// Rules looked at, and chains inside each other, at most: past that it "could pass".
    private static let ruleLimit = 200_000
    private static let depthLimit = 16

    private let ruleset: NetfilterRuleset
    private let table: NetfilterRuleset.Table
    private let packet: Packet
    private let transport: UInt8
    private var rulesLeft = ruleLimit

    /// The base chains that each drop every first packet of a connection, TCP and UDP: a packet must pass all base chains.
    package static func chains(
        of ruleset: NetfilterRuleset, dropping packet: Packet
    ) -> [NetfilterRuleset.BaseChain] {
        let family: NetfilterRuleset.Family = packet.family == .v4 ? .ip : .ip6
        return ruleset.bases.filter { base in
            guard base.table.family == family || base.table.family == .inet else { return false }
            let protocols: [UInt8] = [6, 17]
            return protocols.allSatisfy { transport in
                var run = NetfilterVerdict(
                    ruleset: ruleset, table: base.table, packet: packet, transport: transport)
                switch run.walk(base.name, depth: 0) {
                case .couldPass: return false
                case .dropped: return true
                case .left: return base.dropsByPolicy
                }
            }
        }
    }

    private init(
        ruleset: NetfilterRuleset, table: NetfilterRuleset.Table, packet: Packet, transport: UInt8
    ) {
        self.ruleset = ruleset
        self.table = table
        self.packet = packet
        self.transport = transport
    }

    private enum Outcome {
        case couldPass
        case dropped
        /// At the chain's end, or by `return`.
        case left
    }

    private mutating func walk(_ chain: String, depth: Int) -> Outcome {
        guard depth < Self.depthLimit else { return .couldPass }
        for rule in ruleset.rules[table]?[chain] ?? [] {
            rulesLeft -= 1
            guard rulesLeft > 0 else { return .couldPass }
            let (verdicts, isSure) = run(rule)
            var remaining: Outcome?
            for verdict in verdicts {
                switch verdict {
                case .accept: return .couldPass
                case .drop: remaining = isSure ? .dropped : nil
                case .return: remaining = isSure ? .left : nil
                case .proceed: break
                case .jump(let next), .goto(let next):
                    let outcome = walk(next, depth: depth + 1)
                    if case .couldPass = outcome { return .couldPass }
                    guard isSure else { break }
                    if case .dropped = outcome { remaining = .dropped }
                    if case .goto = verdict, case .left = outcome { remaining = .left }
                }
            }
            if let remaining { return remaining }
        }
        return .left
    }

    /// What a rule does: nothing if it does not match. Without `isSure` it may be each of the verdicts, or none.
    private func run(_ rule: [NetfilterRuleset.Expression]) -> (
        verdicts: [NetfilterRuleset.Verdict], isSure: Bool
    ) {
        var registers: [UInt32: [UInt8]] = [:]
        var isSure = true
        for expression in rule {
            switch expression {
            case .nothing: break
            case .load(let field, let register): registers[Self.place(register)] = value(of: field)
            case .mask(let from, let to, let mask, let xor):
                registers[Self.place(to)] = registers[Self.place(from)].flatMap { bytes in
                    guard bytes.count >= mask.count, xor.count == mask.count else { return nil }
                    return mask.indices.map { bytes[$0] & mask[$0] ^ xor[$0] }
                }
            case .compare(let register, let isEqual, let value):
                guard let known = registers[Self.place(register)], known.count >= value.count else {
                    isSure = false
                    continue
                }
                guard known.prefix(value.count).elementsEqual(value) == isEqual else { return ([], true) }
            case .lookUp(let set, let register, let isInverted, let isMap):
                let elements = ruleset.sets[table]?[set] ?? []
                guard let known = registers[Self.place(register)], elements.allSatisfy(\.isPlain) else {
                    if isMap { return (elements.compactMap(\.verdict), false) }
                    isSure = false
                    continue
                }
                let found = elements.first { element in
                    known.count >= element.key.count
                        && known.prefix(element.key.count).elementsEqual(element.key)
                }
                guard (found != nil) != isInverted else { return ([], true) }
                if isMap { return (found?.verdict.map { [$0] } ?? [], isSure) }
            case .condition(true?): break
            case .condition(false?): return ([], true)
            case .condition(nil): isSure = false
            case .verdict(let verdict): return ([verdict], isSure)
            }
        }
        return ([], true)
    }

    /// Registers have a number as 16 bytes, from 1 on, and one as 4 bytes, from 8 on (NFT_REG32_00).
    private static func place(_ register: UInt32) -> UInt32 {
        register < 8 ? (register &- 1) &* 4 : register &- 8
    }

    /// Nil where it is not known.
    private func value(of field: NetfilterRuleset.Field) -> [UInt8]? {
        func name(_ link: NetlinkLink) -> [UInt8] {
            Array(link.name.utf8.prefix(15))
                + [UInt8](repeating: 0, count: 16 - min(15, link.name.utf8.count))
        }
        switch field {
        case .incomingName: return name(packet.incoming)
        case .outgoingName: return name(packet.outgoing)
        case .incomingIndex: return NetfilterMessage.bytes(packet.incoming.index)
        case .outgoingIndex: return NetfilterMessage.bytes(packet.outgoing.index)
        case .transport: return [transport]
        case .family: return [packet.family == .v4 ? 2 : 10]
        case .connectionState: return NetfilterMessage.bytes(UInt32(NetfilterRuleset.newConnection))
        // Neither answered nor translated.
        case .connectionStatus: return [0, 0, 0, 0]
        case .unknown: return nil
        }
    }
}
