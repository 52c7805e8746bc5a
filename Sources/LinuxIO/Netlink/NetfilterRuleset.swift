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
        try list(NFT_MSG_GETGEN, of: nil, by: socket, isDump: false) {
            generation = $1.number(NFTA_GEN_ID) ?? 0
        }
        return generation
    }

    private init(_ socket: borrowing NetlinkSocket) throws(SystemError) {
        generation = try Self.generation(socket)
        var chains: [(table: Table, name: String)] = []
        var found: [BaseChain] = []
        try Self.list(NFT_MSG_GETCHAIN, of: nil, by: socket) { family, chain in
            guard let family, let table = chain.text(NFTA_CHAIN_TABLE), let name = chain.text(NFTA_CHAIN_NAME)
            else { return }
            let home = Table(family: family, name: table)
            chains.append((home, name))
            guard let hook = chain.list(NFTA_CHAIN_HOOK),
                hook.number(NFTA_HOOK_HOOKNUM) == NF_INET_FORWARD.rawValue
            else { return }
            found.append(
                BaseChain(
                    table: home, name: name,
                    priority: Int32(bitPattern: hook.number(NFTA_HOOK_PRIORITY) ?? 0),
                    dropsByPolicy: chain.number(NFTA_CHAIN_POLICY) == UInt32(NF_DROP)))
        }
        bases = found.sorted { $0.priority < $1.priority }
        for table in Set(bases.map(\.table)) {
            var rules: [String: [[Expression]]] = [:]
            for chain in chains where chain.table == table { rules[chain.name] = [] }
            var asked: Set<String> = []
            try Self.list(NFT_MSG_GETRULE, of: table, by: socket) { _, rule in
                guard let chain = rule.text(NFTA_RULE_CHAIN) else { return }
                let expressions = (rule.list(NFTA_RULE_EXPRESSIONS)?.all ?? []).map { Self.expression($0) }
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
        try list(
            NFT_MSG_GETSETELEM, of: table, by: socket,
            attributes: { $0.put(NFTA_SET_ELEM_LIST_SET, Array(set.utf8) + [0]) }
        ) { _, answer in
            for element in answer.list(NFTA_SET_ELEM_LIST_ELEMENTS)?.all ?? [] {
                let data = element.list(NFTA_SET_ELEM_DATA)
                elements.append(
                    Element(
                        key: element.list(NFTA_SET_ELEM_KEY)?.bytes(NFTA_DATA_VALUE) ?? [],
                        verdict: data.flatMap { Self.verdict($0) },
                        isPlain: element.number(NFTA_SET_ELEM_FLAGS) ?? 0 == 0
                            && element.bytes(NFTA_SET_ELEM_KEY_END) == nil))
            }
        }
        return elements
    }

    // MARK: Expressions

    private static func verdict(_ data: NetfilterAttributes) -> Verdict? {
        guard let verdict = data.list(NFTA_DATA_VERDICT), let code = verdict.number(NFTA_VERDICT_CODE) else {
            return nil
        }
        return Verdict(code: Int32(bitPattern: code), chain: verdict.text(NFTA_VERDICT_CHAIN))
    }

    private static func expression(_ element: NetfilterAttributes) -> Expression {
        guard let name = element.text(NFTA_EXPR_NAME) else { return .condition(nil) }
        let data = element.list(NFTA_EXPR_DATA) ?? NetfilterAttributes([])
        switch name {
        case "meta":
            guard let register = data.number(NFTA_META_DREG) else { return .nothing }
            return .load(metaField(data.number(NFTA_META_KEY)), register: register)
        case "ct":
            guard let register = data.number(NFTA_CT_DREG) else { return .nothing }
            let field: Field =
                switch data.number(NFTA_CT_KEY) {
                case NFT_CT_STATE.rawValue: .connectionState
                case NFT_CT_STATUS.rawValue: .connectionStatus
                default: .unknown
                }
            return .load(field, register: register)
        case "payload":
            guard let register = data.number(NFTA_PAYLOAD_DREG) else { return .nothing }
            // The protocol field of the IPv4 header, and the next header of IPv6.
            let isTransport =
                data.number(NFTA_PAYLOAD_BASE) == NFT_PAYLOAD_NETWORK_HEADER.rawValue
                && [6, 9].contains(data.number(NFTA_PAYLOAD_OFFSET)) && data.number(NFTA_PAYLOAD_LEN) == 1
            return .load(isTransport ? .transport : .unknown, register: register)
        case "cmp":
            guard let register = data.number(NFTA_CMP_SREG),
                let value = data.list(NFTA_CMP_DATA)?.bytes(NFTA_DATA_VALUE),
                let operation = data.number(NFTA_CMP_OP),
                [NFT_CMP_EQ.rawValue, NFT_CMP_NEQ.rawValue].contains(operation)
            else { return .condition(nil) }
            return .compare(register: register, isEqual: operation == NFT_CMP_EQ.rawValue, value: value)
        case "bitwise":
            guard let source = data.number(NFTA_BITWISE_SREG), let target = data.number(NFTA_BITWISE_DREG)
            else { return .condition(nil) }
            // NFT_BITWISE_BOOL, which newer headers name NFT_BITWISE_MASK_XOR.
            guard data.number(NFTA_BITWISE_OP) ?? 0 == 0,
                let mask = data.list(NFTA_BITWISE_MASK)?.bytes(NFTA_DATA_VALUE),
                let xor = data.list(NFTA_BITWISE_XOR)?.bytes(NFTA_DATA_VALUE)
            else { return .load(.unknown, register: target) }
            return .mask(from: source, to: target, mask: mask, xor: xor)
        case "lookup":
            guard let set = data.text(NFTA_LOOKUP_SET), let register = data.number(NFTA_LOOKUP_SREG) else {
                return .condition(nil)
            }
            let target = data.number(NFTA_LOOKUP_DREG)
            // A map into another register than that of verdicts.
            if let target, target != NFT_REG_VERDICT.rawValue { return .load(.unknown, register: target) }
            return .lookUp(
                set: set, register: register,
                isInverted: data.number(NFTA_LOOKUP_FLAGS) == NFT_LOOKUP_F_INV.rawValue, isMap: target != nil)
        case "immediate":
            guard let value = data.list(NFTA_IMMEDIATE_DATA), let verdict = verdict(value) else {
                return data.number(NFTA_IMMEDIATE_DREG).map { .load(.unknown, register: $0) }
                    ?? .condition(nil)
            }
            return .verdict(verdict)
        case "reject": return .verdict(.drop)
        case "queue": return .verdict(.accept)
        case "match": return .condition(match(data))
        case "target": return target(data)
        case "counter", "log", "notrack", "flow_offload", "dup", "last", "objref": return .nothing
        case "fib", "rt", "socket", "hash", "numgen", "exthdr", "osf", "xfrm", "tunnel":
            // The destination register is the first attribute of each.
            return data.number(NFTA_META_DREG).map { .load(.unknown, register: $0) } ?? .condition(nil)
        default: return .condition(nil)
        }
    }

    private static func metaField(_ key: UInt32?) -> Field {
        switch key {
        case NFT_META_IIF.rawValue: .incomingIndex
        case NFT_META_OIF.rawValue: .outgoingIndex
        case NFT_META_IIFNAME.rawValue: .incomingName
        case NFT_META_OIFNAME.rawValue: .outgoingName
        case NFT_META_NFPROTO.rawValue: .family
        case NFT_META_L4PROTO.rawValue: .transport
        default: .unknown
        }
    }

    /// A condition of iptables, which it writes as bytes of its own. One on a connection's state is false where a new one
    /// is not meant.
    private static func match(_ data: NetfilterAttributes) -> Bool? {
        guard let info = data.bytes(NFTA_MATCH_INFO) else { return nil }
        func word(_ offset: Int) -> UInt16? {
            offset + 2 <= info.count ? UInt16(info[offset]) | UInt16(info[offset + 1]) << 8 : nil
        }
        switch (data.text(NFTA_MATCH_NAME), data.number(NFTA_MATCH_REV)) {
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
        switch data.text(NFTA_TARGET_NAME) {
        case "REJECT", "DROP": .verdict(.drop)
        case "ACCEPT", "NFQUEUE": .verdict(.accept)
        default: .nothing
        }
    }

    // MARK: Dumps

    /// Asks for what all families have, or one table. `body` is given the family, if it is one of ours, and the
    /// attributes.
    private static func list(
        _ type: nf_tables_msg_types, of table: Table?, by socket: borrowing NetlinkSocket,
        isDump: Bool = true,
        attributes: (borrowing NetlinkMessage) -> Void = { _ in },
        _ body: (Family?, NetfilterAttributes) -> Void
    ) throws(SystemError) {
        let call = "list the rules of nftables"
        let message = try NetlinkMessage(
            type: Int(NFNL_SUBSYS_NFTABLES) << 8 | Int(type.rawValue),
            flags: NLM_F_REQUEST | (isDump ? NLM_F_DUMP : 0),
            header: [table?.family.rawValue ?? 0, 0, 0, 0])
        // The table is the first attribute of each.
        if let table { message.put(NFTA_TABLE_NAME, Array(table.name.utf8) + [0]) }
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

    func list(_ type: some RawRepresentable<UInt32>) -> NetfilterAttributes? {
        value(type).map { NetfilterAttributes($0) }
    }

    func bytes(_ type: some RawRepresentable<UInt32>) -> [UInt8]? { value(type).map { Array($0) } }

    /// In network order.
    func number(_ type: some RawRepresentable<UInt32>) -> UInt32? {
        guard let value = value(type), value.count >= 4 else { return nil }
        return value.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// Up to its NUL.
    func text(_ type: some RawRepresentable<UInt32>) -> String? {
        value(type).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private func value(_ type: some RawRepresentable<UInt32>) -> ArraySlice<UInt8>? {
        items.first { $0.type == type.rawValue }?.value
    }
}
