internal import CNetlink
internal import Glibc

/// What nf_tables does with forwarded packets, as far as it decides by interface, protocol and state of connection: the
/// chains of a table, their rules, and what its sets hold. iptables and ip6tables are here too where they are those of
/// nf_tables (iptables-nft); the rules of iptables-legacy are not.
///
/// 1. `read` lists chains, and the rules of the tables that have a base chain at the forward hook.
/// 2. `NetfilterVerdict` runs a packet through them.
///
/// Concurrency: a value.
package struct NetfilterRuleset: Sendable {
    /// NFPROTO_* of linux/netfilter.h.
    package enum Family: UInt8, Sendable {
        case inet = 1
        case ip = 2
        case ip6 = 10

        package var name: String {
            switch self {
            case .inet: "inet"
            case .ip: "ip"
            case .ip6: "ip6"
            }
        }
    }

    package struct Table: Hashable, Sendable {
        package let family: Family
        package let name: String
    }

    package struct BaseChain: Hashable, Sendable {
        package let table: Table
        package let name: String
        let priority: Int32
        let dropsByPolicy: Bool
    }

    /// NF_* and NFT_* verdicts.
    enum Verdict: Hashable, Sendable {
        case accept
        case drop
        case proceed
        case `return`
        case jump(String)
        case goto(String)

        init?(code: Int32, chain: String?) {
            switch code {
            case 0: self = .drop
            // A program that the packet is queued for (NF_QUEUE) may accept it.
            case 1, 3: self = .accept
            case -1, -2: self = .proceed
            case -3: if let chain { self = .jump(chain) } else { return nil }
            case -4: if let chain { self = .goto(chain) } else { return nil }
            case -5: self = .return
            default: return nil
            }
        }
    }

    /// What an expression loads of a packet, as far as anybody here knows it.
    enum Field: Hashable, Sendable {
        case incomingName
        case outgoingName
        case incomingIndex
        case outgoingIndex
        case transport
        case family
        case connectionState
        case connectionStatus
        case unknown
    }

    enum Expression: Hashable, Sendable {
        case load(Field, register: UInt32)
        case compare(register: UInt32, isEqual: Bool, value: [UInt8])
        case mask(from: UInt32, to: UInt32, mask: [UInt8], xor: [UInt8])
        /// With `isMap` it leads to a verdict.
        case lookUp(set: String, register: UInt32, isInverted: Bool, isMap: Bool)
        case verdict(Verdict)
        /// True for new connections, false, or nil where it is not known.
        case condition(Bool?)
        /// Counters and the like.
        case nothing
    }

    struct Element: Hashable, Sendable {
        let key: [UInt8]
        let verdict: Verdict?
        /// An interval's end, one of several fields, or a time limit: it takes more than the key to tell.
        let isPlain: Bool
    }

    private(set) var bases: [BaseChain] = []
    private(set) var rules: [Table: [String: [[Expression]]]] = [:]
    private(set) var sets: [Table: [String: [Element]]] = [:]
    /// Counts the changes of the whole ruleset.
    package private(set) var generation: UInt32 = 0

    package init() {}

    /// Whether a table has a chain of that name.
    package func hasChain(_ name: String, in table: Table) -> Bool { rules[table]?[name] != nil }

    /// EPERM without CAP_NET_ADMIN. EINTR where it changed all the time.
    package static func read() throws(SystemError) -> NetfilterRuleset {
        let socket = try NetlinkSocket(NETLINK_NETFILTER)
        try System.setReceiveTimeout(socket.fd, milliseconds: 2000)
        var attempts = 0
        while true {
            attempts += 1
            do throws(SystemError) {
                return try NetfilterRuleset(socket)
            } catch {
                // Something changed while the kernel was telling it.
                guard error.code == EINTR, attempts < 5 else { throw error }
            }
        }
    }

    package static func currentGeneration() throws(SystemError) -> UInt32 {
        try generation(NetlinkSocket(NETLINK_NETFILTER))
    }

    private static func generation(_ socket: borrowing NetlinkSocket) throws(SystemError) -> UInt32 {
        var generation: UInt32 = 0
        try list(16, of: nil, by: socket, isDump: false) {  // NFT_MSG_GETGEN
            generation = $1.number(1) ?? 0  // NFTA_GEN_ID
        }
        return generation
    }

    private init(_ socket: borrowing NetlinkSocket) throws(SystemError) {
        generation = try Self.generation(socket)
        var chains: [(table: Table, name: String)] = []
        var found: [BaseChain] = []
        try Self.list(4, of: nil, by: socket) { family, chain in  // NFT_MSG_GETCHAIN
            guard let family, let table = chain.text(1), let name = chain.text(3) else { return }
            let home = Table(family: family, name: table)
            chains.append((home, name))
            guard let hook = chain.list(4), hook.number(1) == 2 else { return }  // NF_INET_FORWARD
            found.append(
                BaseChain(
                    table: home, name: name, priority: Int32(bitPattern: hook.number(2) ?? 0),
                    dropsByPolicy: chain.number(5) == 0))  // NFTA_CHAIN_POLICY, NF_DROP
        }
        bases = found.sorted { $0.priority < $1.priority }
        for table in Set(bases.map(\.table)) {
            var rules: [String: [[Expression]]] = [:]
            for chain in chains where chain.table == table { rules[chain.name] = [] }
            var asked: Set<String> = []
            try Self.list(7, of: table, by: socket) { _, rule in  // NFT_MSG_GETRULE
                guard let chain = rule.text(2) else { return }
                let expressions = (rule.list(4)?.all ?? []).map { Self.expression($0) }
                for case .lookUp(let set, _, _, _) in expressions { asked.insert(set) }
                rules[chain, default: []].append(expressions)
            }
            self.rules[table] = rules
            for set in asked {
                sets[table, default: [:]][set] = try Self.elements(of: set, in: table, by: socket)
            }
        }
    }

    private static func elements(
        of set: String, in table: Table, by socket: borrowing NetlinkSocket
    ) throws(SystemError) -> [Element] {
        var elements: [Element] = []
        // NFT_MSG_GETSETELEM; NFTA_SET_ELEM_LIST_SET
        try list(13, of: table, by: socket, attributes: { $0.put(2, Array(set.utf8) + [0]) }) { _, answer in
            for element in answer.list(3)?.all ?? [] {
                let data = element.list(2)
                elements.append(
                    Element(
                        key: element.list(1)?.bytes(1) ?? [], verdict: data.flatMap { Self.verdict($0) },
                        isPlain: element.number(3) ?? 0 == 0 && element.bytes(10) == nil))  // FLAGS, KEY_END
            }
        }
        return elements
    }

    // MARK: Expressions

    private static func verdict(_ data: NetfilterAttributes) -> Verdict? {
        // NFTA_DATA_VERDICT
        guard let verdict = data.list(2), let code = verdict.number(1) else { return nil }
        return Verdict(code: Int32(bitPattern: code), chain: verdict.text(2))
    }

    private static func expression(_ element: NetfilterAttributes) -> Expression {
        guard let name = element.text(1) else { return .condition(nil) }
        let data = element.list(2) ?? NetfilterAttributes([])
        switch name {
        case "meta":
            guard let register = data.number(1) else { return .nothing }
            return .load(metaField(data.number(2)), register: register)
        case "ct":
            guard let register = data.number(1) else { return .nothing }
            let field: Field =
                switch data.number(2) {
                case 0: .connectionState  // NFT_CT_STATE
                case 2: .connectionStatus  // NFT_CT_STATUS
                default: .unknown
                }
            return .load(field, register: register)
        case "payload":
            guard let register = data.number(1) else { return .nothing }
            // The protocol field of the IPv4 header, and the next header of IPv6.
            let isTransport = data.number(2) == 1 && [6, 9].contains(data.number(3)) && data.number(4) == 1
            return .load(isTransport ? .transport : .unknown, register: register)
        case "cmp":
            guard let register = data.number(1), let value = data.list(3)?.bytes(1),
                let operation = data.number(2), operation < 2
            else { return .condition(nil) }
            return .compare(register: register, isEqual: operation == 0, value: value)
        case "bitwise":
            guard let source = data.number(1), let target = data.number(2) else { return .condition(nil) }
            guard data.number(6) ?? 0 == 0, let mask = data.list(4)?.bytes(1),
                let xor = data.list(5)?.bytes(1)
            else {
                return .load(.unknown, register: target)
            }
            return .mask(from: source, to: target, mask: mask, xor: xor)
        case "lookup":
            guard let set = data.text(1), let register = data.number(2) else { return .condition(nil) }
            let target = data.number(3)
            // A map into another register than that of verdicts.
            if let target, target != 0 { return .load(.unknown, register: target) }
            return .lookUp(
                set: set, register: register, isInverted: data.number(5) == 1, isMap: target != nil)
        case "immediate":
            guard let value = data.list(2), let verdict = verdict(value) else {
                return data.number(1).map { .load(.unknown, register: $0) } ?? .condition(nil)
            }
            return .verdict(verdict)
        case "reject": return .verdict(.drop)
        case "queue": return .verdict(.accept)
        case "match": return .condition(match(data))
        case "target": return target(data)
        case "counter", "log", "notrack", "flow_offload", "dup", "last", "objref": return .nothing
        case "fib", "rt", "socket", "hash", "numgen", "exthdr", "osf", "xfrm", "tunnel":
            return data.number(1).map { .load(.unknown, register: $0) } ?? .condition(nil)
        default: return .condition(nil)
        }
    }

    /// NFT_META_*.
    private static func metaField(_ key: UInt32?) -> Field {
        switch key {
        case 4: .incomingIndex
        case 5: .outgoingIndex
        case 6: .incomingName
        case 7: .outgoingName
        case 15: .family
        case 16: .transport
        default: .unknown
        }
    }

    /// A condition of iptables, which it writes as bytes of its own. One on a connection's state is false where a new one
    /// is not meant.
    private static func match(_ data: NetfilterAttributes) -> Bool? {
        guard let info = data.bytes(3) else { return nil }
        func word(_ offset: Int) -> UInt16? {
            offset + 2 <= info.count ? UInt16(info[offset]) | UInt16(info[offset + 1]) << 8 : nil
        }
        switch (data.text(1), data.number(2)) {
        case ("comment", _): return true
        case ("state", _): return word(0).map { $0 & newConnection != 0 }
        // struct xt_conntrack_mtinfo2 and 3: eight addresses, expiry, protocol, ports, then what is asked, what of it is
        // inverted, and states.
        case ("conntrack", 2), ("conntrack", 3):
            guard let asked = word(146), let inverted = word(148), let states = word(150), asked & 1 != 0
            else {
                return nil
            }
            guard (states & newConnection != 0) == (inverted & 1 == 0) else { return false }
            return asked == 1 ? true : nil
        default: return nil
        }
    }

    /// NF_CT_STATE_BIT(IP_CT_NEW).
    static let newConnection: UInt16 = 8

    private static func target(_ data: NetfilterAttributes) -> Expression {
        switch data.text(1) {
        case "REJECT", "DROP": .verdict(.drop)
        case "ACCEPT", "NFQUEUE": .verdict(.accept)
        default: .nothing
        }
    }

    // MARK: Dumps

    /// Asks for what all families have, or one table. `body` is given the family, if it is one of ours, and the
    /// attributes.
    private static func list(
        _ number: Int, of table: Table?, by socket: borrowing NetlinkSocket, isDump: Bool = true,
        attributes: (borrowing NetlinkMessage) -> Void = { _ in },
        _ body: (Family?, NetfilterAttributes) -> Void
    ) throws(SystemError) {
        let call = "list the rules of nftables"
        let message = try NetlinkMessage(
            type: 10 << 8 | number, flags: NLM_F_REQUEST | (isDump ? NLM_F_DUMP : 0),  // NFNL_SUBSYS_NFTABLES
            header: [table?.family.rawValue ?? 0, 0, 0, 0])
        if let table { message.put(1, Array(table.name.utf8) + [0]) }
        attributes(message)
        try unsafe socket.query(call, message, isDump: isDump) { answer in
            guard let header = unsafe nlmsg_hdr(answer), let data = unsafe nlmsg_data(header) else { return }
            let count = unsafe Int(nlmsg_datalen(header))
            // struct nfgenmsg.
            guard count >= 4 else { return }
            let bytes = unsafe Array(UnsafeRawBufferPointer(start: data, count: count))
            body(Family(rawValue: bytes[0]), NetfilterAttributes(bytes[4...]))
        }
    }
}

/// Attributes of a message of nf_tables, one level of them.
struct NetfilterAttributes {
    private let items: [(type: UInt16, value: ArraySlice<UInt8>)]

    /// What is cut short is left out.
    init(_ bytes: ArraySlice<UInt8>) {
        var items: [(UInt16, ArraySlice<UInt8>)] = []
        var offset = bytes.startIndex
        while offset + 4 <= bytes.endIndex {
            let length = Int(UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8)
            let type = UInt16(bytes[offset + 2]) | UInt16(bytes[offset + 3]) << 8
            guard length >= 4, offset + length <= bytes.endIndex else { break }
            // NLA_TYPE_MASK
            items.append((type & 0x3fff, bytes[(offset + 4)..<(offset + length)]))
            offset += (length + 3) & ~3
        }
        self.items = items
    }

    /// Those of a list, whose types say nothing.
    var all: [NetfilterAttributes] { items.map { NetfilterAttributes($0.value) } }

    func list(_ type: UInt16) -> NetfilterAttributes? { value(type).map { NetfilterAttributes($0) } }
    func bytes(_ type: UInt16) -> [UInt8]? { value(type).map { Array($0) } }

    /// In network order.
    func number(_ type: UInt16) -> UInt32? {
        guard let value = value(type), value.count >= 4 else { return nil }
        return value.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// Up to its NUL.
    func text(_ type: UInt16) -> String? {
        value(type).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private func value(_ type: UInt16) -> ArraySlice<UInt8>? { items.first { $0.type == type }?.value }
}
