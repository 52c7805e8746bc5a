internal import CNetlink
internal import Glibc

/// One message to nf_tables, as bytes: struct nlmsghdr, struct nfgenmsg, attributes. Numbers in attributes are in
/// network order, but for what is compared with a packet's metadata.
struct NetfilterMessage {
    /// NFT_MSG_* of linux/netfilter/nf_tables.h, under NFNL_SUBSYS_NFTABLES.
    static let newTable = type(0)
    static let newChain = type(3)
    static let newRule = type(6)
    static let deleteRule = type(8)

    static var batchBegin: NetfilterMessage { NetfilterMessage(type: 16, family: 0, resource: 10) }
    static var batchEnd: NetfilterMessage { NetfilterMessage(type: 17, family: 0, resource: 10) }

    private static func type(_ number: UInt16) -> UInt16 { 10 << 8 | number }

    private let type: UInt16
    private let isCreating: Bool
    private var payload: [UInt8]

    private init(type: UInt16, family: UInt8, resource: UInt16, isCreating: Bool = false) {
        self.type = type
        self.isCreating = isCreating
        // struct nfgenmsg: family, version, resource.
        payload = [family, 0] + Self.bytes(resource.bigEndian)
    }

    init(_ type: UInt16, create: Bool = false, _ body: (inout NetfilterMessage) -> Void) {
        let inet: UInt8 = 1  // NFPROTO_INET: both families
        self.init(type: type, family: inet, resource: 0, isCreating: create)
        body(&self)
    }

    func packet(sequence: UInt32, isAcknowledged: Bool = false) -> [UInt8] {
        let flags =
            NLM_F_REQUEST | (isAcknowledged ? NLM_F_ACK : 0)
            | (isCreating ? NLM_F_CREATE | (type == Self.newRule ? NLM_F_APPEND : 0) : 0)
        return Self.bytes(UInt32(16 + payload.count)) + Self.bytes(type) + Self.bytes(UInt16(flags))
            + Self.bytes(sequence) + Self.bytes(UInt32(0)) + payload
    }

    // MARK: Attributes

    mutating func put(_ type: UInt16, _ value: [UInt8]) {
        payload += Self.bytes(UInt16(4 + value.count)) + Self.bytes(type) + value
        payload += [UInt8](repeating: 0, count: -value.count & 3)
    }

    mutating func put(_ type: UInt16, _ number: UInt32) { put(type, Self.bytes(number.bigEndian)) }

    mutating func put(_ type: UInt16, text: String) { put(type, Array(text.utf8) + [0]) }

    mutating func nest(_ type: UInt16, _ body: (inout NetfilterMessage) -> Void) {
        let start = payload.count
        let nested: UInt16 = 0x8000  // NLA_F_NESTED
        payload += [0, 0] + Self.bytes(type | nested)
        body(&self)
        payload.replaceSubrange(start..<(start + 2), with: Self.bytes(UInt16(payload.count - start)))
    }

    /// An element of a rule's list of expressions.
    mutating func expression(_ name: String, _ body: (inout NetfilterMessage) -> Void) {
        nest(1) {  // NFTA_LIST_ELEM
            $0.put(1, text: name)  // NFTA_EXPR_NAME
            $0.nest(2, body)  // NFTA_EXPR_DATA
        }
    }

    /// In host order.
    static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }
}
