internal import CNetlink
internal import Glibc

/// An nftables table of our own that gives the firewall mark to what arrives for our UDP ports, and to what name servers
/// answer to our own questions, before anything asks where it came from: rp_filter and the rpfilter of firewalls
/// (`fib saddr . mark . iif`, firewalld's for IPv6) look for the way back by the mark, as outer packets leave by it.
/// ```
/// table inet NAME { flags owner
///     chain arrival { type filter hook prerouting priority -310
///         udp dport PORT iif != TUN fib daddr type local meta mark set MARK
///         udp sport 53 iif != TUN fib daddr type local socket mark MARK meta mark set MARK    and so for TCP
/// }}
/// ```
/// - Answers are known by the socket that they are for, which has the mark: a question's port is another each time.
/// - Before connection tracking and before the raw tables of others, where such filters are.
/// - Only what is for this host: what is forwarded must not take the way of outer packets.
/// - Not what comes out of the tunnel itself.
///
/// The table belongs to the socket: the kernel removes it when the process ends, and nobody else's
/// `nft flush ruleset` takes it away (Linux 5.12).
///
/// Concurrency: the control thread's. A change is one batch: it is there as a whole or not at all.
package struct InboundMark: ~Copyable {
    private let socket: NetlinkSocket
    private let table: String
    private let tun: UInt32
    private var sequence: UInt32 = 0

    /// At most 255 bytes of `table` (NFT_NAME_MAXLEN).
    package init(table: String, except tun: UInt32) throws(SystemError) {
        let socket = try NetlinkSocket(NETLINK_NETFILTER)
        try System.setReceiveTimeout(socket.fd, milliseconds: 1000)
        self.socket = socket
        self.table = table
        self.tun = tun
    }

    /// In place of what was set before. `ports` are our own, `serverPorts` those of name servers. Without the kernel's
    /// nft_socket, ENOENT where there are `serverPorts`.
    package mutating func set(
        _ mark: UInt32, on ports: Set<UInt16>, answeringFrom serverPorts: Set<UInt16> = []
    ) throws(SystemError) {
        typealias Message = NetfilterMessage
        var messages = [
            Message(NFT_MSG_NEWTABLE, create: true) {
                $0.put(NFTA_TABLE_NAME, text: table)
                $0.put(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER.rawValue)
            },
            Message(NFT_MSG_NEWCHAIN, create: true) {
                $0.put(NFTA_CHAIN_TABLE, text: table)
                $0.put(NFTA_CHAIN_NAME, text: Self.chain)
                $0.nest(NFTA_CHAIN_HOOK) { hook in
                    hook.put(NFTA_HOOK_HOOKNUM, NF_INET_PRE_ROUTING.rawValue)
                    hook.put(NFTA_HOOK_PRIORITY, UInt32(bitPattern: Self.priority))
                }
                $0.put(NFTA_CHAIN_TYPE, text: "filter")
            },
            Message(NFT_MSG_DELRULE) {
                $0.put(NFTA_RULE_TABLE, text: table)
                $0.put(NFTA_RULE_CHAIN, text: Self.chain)
            },
        ]
        let questions = serverPorts.sorted().flatMap { port in
            [IPPROTO_UDP, IPPROTO_TCP].map { Arrival(protocol: UInt8($0), port: .source(port)) }
        }
        let outer = ports.sorted().map { Arrival(protocol: UInt8(IPPROTO_UDP), port: .destination($0)) }
        for arrival in outer + questions where mark != 0 {
            messages.append(
                Message(NFT_MSG_NEWRULE, create: true) {
                    $0.put(NFTA_RULE_TABLE, text: table)
                    $0.put(NFTA_RULE_CHAIN, text: Self.chain)
                    $0.nest(NFTA_RULE_EXPRESSIONS) { expressions(&$0, arrival, mark: mark) }
                })
        }
        try send(messages)
    }

    /// What gets the mark.
    private struct Arrival {
        enum Port {
            /// Port of a name server, of which a socket with the mark has asked.
            case source(UInt16)
            case destination(UInt16)
        }

        let `protocol`: UInt8
        let port: Port
    }

    private static let chain = "arrival"
    /// NF_IP_PRI_RAW is -300.
    private static let priority: Int32 = -310

    /// Each loads into register 1 and compares it, the most selective first.
    private func expressions(_ list: inout NetfilterMessage, _ arrival: Arrival, mark: UInt32) {
        let (port, offset): (UInt16, UInt32) =
            switch arrival.port {
            case .source(let port): (port, 0)
            case .destination(let port): (port, 2)
            }
        let register = NFT_REG_1.rawValue
        func compare(_ operation: nft_cmp_ops, _ value: [UInt8]) {
            list.expression("cmp") {
                $0.put(NFTA_CMP_SREG, register)
                $0.put(NFTA_CMP_OP, operation.rawValue)
                $0.nest(NFTA_CMP_DATA) { $0.put(NFTA_DATA_VALUE, value) }
            }
        }
        func load(_ key: nft_meta_keys) {
            list.expression("meta") {
                $0.put(NFTA_META_KEY, key.rawValue)
                $0.put(NFTA_META_DREG, register)
            }
        }
        load(NFT_META_L4PROTO)
        compare(NFT_CMP_EQ, [arrival.protocol])
        list.expression("payload") {
            $0.put(NFTA_PAYLOAD_DREG, register)
            $0.put(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER.rawValue)
            $0.put(NFTA_PAYLOAD_OFFSET, offset)
            $0.put(NFTA_PAYLOAD_LEN, 2)
        }
        compare(NFT_CMP_EQ, NetfilterMessage.bytes(port.bigEndian))
        load(NFT_META_IIF)
        compare(NFT_CMP_NEQ, NetfilterMessage.bytes(tun))
        list.expression("fib") {
            $0.put(NFTA_FIB_DREG, register)
            $0.put(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE.rawValue)
            $0.put(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR.rawValue)
        }
        compare(NFT_CMP_EQ, NetfilterMessage.bytes(UInt32(RTN_LOCAL)))
        if case .source = arrival.port {
            list.expression("socket") {
                $0.put(NFTA_SOCKET_KEY, NFT_SOCKET_MARK.rawValue)
                $0.put(NFTA_SOCKET_DREG, register)
            }
            compare(NFT_CMP_EQ, NetfilterMessage.bytes(mark))
        }
        list.expression("immediate") {
            $0.put(NFTA_IMMEDIATE_DREG, register)
            $0.nest(NFTA_IMMEDIATE_DATA) { $0.put(NFTA_DATA_VALUE, NetfilterMessage.bytes(mark)) }
        }
        list.expression("meta") {
            $0.put(NFTA_META_KEY, NFT_META_MARK.rawValue)
            $0.put(NFTA_META_SREG, register)
        }
    }

    // MARK: A batch

    private mutating func send(_ messages: [NetfilterMessage]) throws(SystemError) {
        let call = "set nftables table \(table)"
        let before = sequence
        var bytes = NetfilterMessage.batchBegin.packet(sequence: next())
        for (index, message) in messages.enumerated() {
            bytes += message.packet(sequence: next(), isAcknowledged: index == messages.count - 1)
        }
        let last = sequence
        bytes += NetfilterMessage.batchEnd.packet(sequence: next())
        try unsafe socket.run(call) { handle in unsafe nl_sendto(handle, &bytes, bytes.count) }
        while true {
            // An earlier batch that failed has left answers, too.
            for answer in try NetlinkAnswer.receive(call, from: socket) where answer.sequence > before {
                if answer.error != 0 { throw SystemError(call: call, code: answer.error) }
                if answer.sequence == last { return }
            }
        }
    }

    private mutating func next() -> UInt32 {
        sequence &+= 1
        return sequence
    }
}
