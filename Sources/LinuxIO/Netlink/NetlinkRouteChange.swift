internal import CNetlink
internal import Glibc
internal import WireGuard

package enum NetlinkRouteChange: Hashable, Sendable {
    /// In place of a route to the same destination with the same metric in the same table, whosever it is; with
    /// `replacing` false that is EEXIST.
    case add(NetlinkRoute, replacing: Bool)
    /// One that is not there is no error.
    case remove(NetlinkRoute)

    private var route: NetlinkRoute {
        switch self {
        case .add(let route, _), .remove(let route): route
        }
    }

    /// What the kernel's refusal says was attempted.
    fileprivate var call: String {
        switch self {
        case .add(let route, _): "add \(route)"
        case .remove(let route): "remove \(route)"
        }
    }

    /// Whether a removal failed as the route has gone by itself, or with its interface.
    fileprivate func isDone(despite error: Int32) -> Bool {
        if case .remove = self { error == ESRCH || error == ENODEV } else { false }
    }

    /// struct nlmsghdr, struct rtmsg, attributes.
    fileprivate func append(to bytes: inout [UInt8], sequence: UInt32, isAcknowledged: Bool) {
        let route = route
        let start = bytes.count
        let isOnLink = route.gateway == nil && route.kind == .unicast
        var flags = NLM_F_REQUEST | (isAcknowledged ? NLM_F_ACK : 0)
        var type = RTM_DELROUTE
        if case .add(_, let replacing) = self {
            flags |= NLM_F_CREATE | (replacing ? NLM_F_REPLACE : NLM_F_EXCL)
            type = RTM_NEWROUTE
        }
        bytes.append(number: UInt32(0))
        bytes.append(number: UInt16(type))
        bytes.append(number: UInt16(flags))
        bytes.append(number: sequence)
        bytes.append(number: UInt32(0))
        bytes.append(UInt8(NetlinkParsing.number(route.destination.family)))
        bytes.append(UInt8(route.destination.length))
        bytes.append(0)  // source length
        bytes.append(0)  // class
        bytes.append(UInt8(exactly: route.table) ?? 0)
        bytes.append(route.protocol)
        bytes.append(UInt8((isOnLink ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE).rawValue))
        bytes.append(route.kind.rawValue)
        bytes.append(number: UInt32(0))  // flags
        func put(_ attribute: rtattr_type_t, _ number: UInt32) {
            bytes.append(number: UInt16(8))
            bytes.append(number: UInt16(attribute.rawValue))
            bytes.append(number: number)
        }
        func put(_ attribute: rtattr_type_t, _ address: IPAddress) {
            let value = address.bytes
            bytes.append(number: UInt16(4 + value.count))
            bytes.append(number: UInt16(attribute.rawValue))
            bytes += value
        }
        put(RTA_DST, route.destination.address)
        put(RTA_PRIORITY, route.metric)
        put(RTA_TABLE, route.table)
        if let source = route.preferredSource { put(RTA_PREFSRC, source) }
        if route.interface != 0 { put(RTA_OIF, route.interface) }
        if let gateway = route.gateway { put(RTA_GATEWAY, gateway) }
        let length = UInt32(bytes.count - start)
        for place in 0..<4 { bytes[start + place] = UInt8(truncatingIfNeeded: length >> UInt32(8 * place)) }
    }
}

extension [UInt8] {
    /// In host order; Linux on our processors is little endian.
    fileprivate mutating func append<Number: FixedWidthInteger>(number: Number) {
        for place in 0..<(Number.bitWidth / 8) {
            append(UInt8(truncatingIfNeeded: number >> Number(8 * place)))
        }
    }
}

extension Netlink {
    /// Requests in one datagram. Were all of them refused, the answers would still fit into the socket's buffer.
    private static let batchSize = 64
    /// In milliseconds. The kernel answers before it returns from the sending, unless it is out of memory.
    private static let answerTimeout = 10_000

    /// Makes the changes in order, in as few system calls as they fit in, and goes on behind one that the kernel refuses:
    /// `refused` hears of it, with its place.
    package func apply(
        _ changes: [NetlinkRouteChange], refused: (Int, SystemError) -> Void
    ) throws(SystemError) {
        guard !changes.isEmpty else { return }
        try System.setReceiveTimeout(routeSocket.fd, milliseconds: Self.answerTimeout)
        // Answers that came too late for a call before must not be taken for those of this one.
        System.discardReceived(routeSocket.fd)
        var bytes: [UInt8] = []
        for start in stride(from: 0, to: changes.count, by: Self.batchSize) {
            let last = min(start + Self.batchSize, changes.count) - 1
            bytes.removeAll(keepingCapacity: true)
            for place in start...last {
                changes[place].append(to: &bytes, sequence: UInt32(place), isAcknowledged: place == last)
            }
            try unsafe routeSocket.run("change routes") { handle in
                unsafe nl_sendto(handle, &bytes, bytes.count)
            }
            var isAnswered = false
            while !isAnswered {
                for answer in try NetlinkAnswer.receive("change routes", from: routeSocket) {
                    let place = Int(answer.sequence)
                    isAnswered = isAnswered || place == last
                    guard answer.error != 0, !changes[place].isDone(despite: answer.error) else { continue }
                    refused(place, SystemError(call: changes[place].call, code: answer.error))
                }
            }
        }
    }
}
