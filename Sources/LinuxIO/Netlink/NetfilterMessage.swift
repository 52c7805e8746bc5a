internal import CNetlink
internal import Glibc

/// One message to nf_tables, as bytes: struct nlmsghdr, struct nfgenmsg, attributes. Numbers in attributes are in
/// network order, but for what is compared with a packet's metadata.
struct NetfilterMessage {
    static var batchBegin: NetfilterMessage { batch(NFNL_MSG_BATCH_BEGIN) }
    static var batchEnd: NetfilterMessage { batch(NFNL_MSG_BATCH_END) }

    private static func batch(_ type: Int32) -> NetfilterMessage {
        NetfilterMessage(type: UInt16(type), family: 0, resource: UInt16(NFNL_SUBSYS_NFTABLES))
    }

    private let type: UInt16
    private let isCreating: Bool
    private var payload: [UInt8]

    private init(type: UInt16, family: UInt8, resource: UInt16, isCreating: Bool = false) {
        self.type = type
        self.isCreating = isCreating
        // struct nfgenmsg: family, version, resource.
        payload = [family, 0] + Self.bytes(resource.bigEndian)
    }

    /// A message about both families.
    init(_ type: nf_tables_msg_types, create: Bool = false, _ body: (inout NetfilterMessage) -> Void) {
        self.init(
            type: Self.type(type), family: UInt8(NFPROTO_INET), resource: 0, isCreating: create)
        body(&self)
    }

    private static func type(_ type: nf_tables_msg_types) -> UInt16 {
        UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(type.rawValue)
    }

    func packet(sequence: UInt32, isAcknowledged: Bool = false) -> [UInt8] {
        let flags =
            NLM_F_REQUEST | (isAcknowledged ? NLM_F_ACK : 0)
            | (isCreating ? NLM_F_CREATE | (type == Self.type(NFT_MSG_NEWRULE) ? NLM_F_APPEND : 0) : 0)
        return Self.bytes(UInt32(16 + payload.count)) + Self.bytes(type) + Self.bytes(UInt16(flags))
            + Self.bytes(sequence) + Self.bytes(UInt32(0)) + payload
    }

    // MARK: Attributes

    mutating func put(_ attribute: some RawRepresentable<UInt32>, _ value: [UInt8]) {
        payload += Self.bytes(UInt16(4 + value.count)) + Self.bytes(UInt16(attribute.rawValue)) + value
        payload += [UInt8](repeating: 0, count: -value.count & 3)
    }

    mutating func put(_ attribute: some RawRepresentable<UInt32>, _ number: UInt32) {
        put(attribute, Self.bytes(number.bigEndian))
    }

    mutating func put(_ attribute: some RawRepresentable<UInt32>, text: String) {
        put(attribute, Array(text.utf8) + [0])
    }

    mutating func nest(_ attribute: some RawRepresentable<UInt32>, _ body: (inout NetfilterMessage) -> Void) {
        let start = payload.count
        payload += [0, 0] + Self.bytes(UInt16(attribute.rawValue) | UInt16(NLA_F_NESTED))
        body(&self)
        payload.replaceSubrange(start..<(start + 2), with: Self.bytes(UInt16(payload.count - start)))
    }

    /// An element of a rule's list of expressions.
    mutating func expression(_ name: String, _ body: (inout NetfilterMessage) -> Void) {
        nest(NFTA_LIST_ELEM) {
            $0.put(NFTA_EXPR_NAME, text: name)
            $0.nest(NFTA_EXPR_DATA, body)
        }
    }

    /// In host order.
    static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }
}
