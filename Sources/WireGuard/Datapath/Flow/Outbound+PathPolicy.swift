/// What a path may ask for beside sealing. The usual packet of a path that asks for nothing pays one branch for it.
///
/// 1. Its MTU: what is too long is fragmented, or its sender told; a TCP connection being opened learns of it.
/// 2. Rates: of the connection, then of the path; what comes too early waits, as it is up to here.
/// 3. Translation, last, so that what waits is still looked up and what is quoted still known by its own address.
extension Outbound {
    /// True when the packet, whose checksums are finished, is to be sealed as it is now; false when it has been
    /// seen to.
    @inline(never)
    mutating func applyPathPolicy(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, to destination: Int32,
        _ tos: UInt8, use index: Int
    ) -> Bool {
        let limit = unsafe uses[index].limit
        guard header.totalLength <= limit else {
            unsafe fragment(packet, header, to: destination, tos, use: index)
            return false
        }
        if limit < .max, unsafe MSSClamp.concerns(packet, header: header) {
            unsafe MSSClamp.clamp(packet, header: header, innerMTU: limit, isPartial: false)
        }
        guard unsafe uses[index].isIntercepted else { return true }
        unsafe pass(packet, header, to: destination, tos, use: index)
        return false
    }

    /// The same for a superpacket. One of TCP has been segmented to fit, and never has a SYN.
    @inline(never)
    mutating func applyPathPolicy(
        _ superpacket: Superpacket, to destination: Int32, _ tos: UInt8, use index: Int
    ) -> Bool {
        guard unsafe uses[index].isIntercepted || superpacket.longest > uses[index].limit else { return true }
        for number in 0..<superpacket.segmentCount {
            let (start, length) = unsafe superpacket.segment(number)
            guard let header = unsafe try? InnerHeader(start, count: length) else { continue }
            if unsafe applyPathPolicy(start, header, to: destination, tos, use: index) {
                unsafe seal(start, count: length, tos, use: index)
            }
        }
        return false
    }

    /// A packet that is too long: sent in pieces, or its sender is told what would pass (RFC 1191; RFC 8201). No
    /// sender of IPv6 goes below 1280 bytes, so on a path that carries less the outer packet goes in fragments
    /// (RFC 2473, section 7.1), where anybody on the way can make them.
    private mutating func fragment(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, to destination: Int32,
        _ tos: UInt8, use index: Int
    ) {
        let limit = unsafe uses[index].limit
        if header.family == .v6, header.totalLength <= ICMPError.minimumMTU6, unsafe uses[index].mayFragment {
            if unsafe uses[index].isIntercepted {
                unsafe pass(packet, header, to: destination, tos, use: index)
            } else {
                unsafe seal(
                    packet, count: header.totalLength, tos, use: index, mayFragment: true)
            }
            return
        }
        guard var fragments = unsafe Fragmenter(packet, header: header, mtu: limit) else {
            drops.add(.outboundTooBig)
            let isPassing = unsafe uses[index].path._withUnsafeGuaranteedRef { $0.isInnerMTUPassing }
            // One answer is enough for the segments of one packet.
            if !isPassing, unsafe reply == nil {
                unsafe answer.make(.tooBig(mtu: limit), for: packet, header: header)
            }
            return
        }
        while true {
            let count = unsafe fragments.next(into: scratch)
            guard count > 0 else { return }
            if unsafe uses[index].isIntercepted, let header = unsafe try? InnerHeader(scratch, count: count) {
                unsafe pass(scratch, header, to: destination, tos, use: index)
            } else {
                unsafe seal(scratch, count: count, tos, use: index)
            }
        }
    }

    // MARK: Rates

    private mutating func pass(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, to destination: Int32,
        _ tos: UInt8, use index: Int
    ) {
        let shapers = unsafe (uses[index].connectionShaper, uses[index].pathShaper)
        guard unsafe mayGo(packet, header, past: shapers.0), unsafe mayGo(packet, header, past: shapers.1)
        else { return }
        unsafe translate(packet, header, to: destination, tos, use: index)
    }

    /// False when it waits, or is dropped.
    private func mayGo(
        _ packet: UnsafeRawPointer, _ header: InnerHeader, past shaper: Unmanaged<Shaper>?
    ) -> Bool {
        guard let shaper = unsafe shaper else { return true }
        let verdict = unsafe shaper._withUnsafeGuaranteedRef { shaper in
            unsafe shaper.offer(packet, count: header.totalLength, QueueClass(packet, header: header))
        }
        switch verdict {
        case .send: return true
        case .held: return false
        case .dropped:
            drops.add(.rateLimited)
            return false
        }
    }

    /// Sends what waited and whose time has come: after the packets of a batch, inside it. True when there may be
    /// more: send the runs, call `sent` and `finish`, and this again.
    @inline(__always)
    package mutating func releaseHeld() -> Bool {
        guard !shapers.isEmpty else { return false }
        return releaseAll()
    }

    @inline(never)
    private mutating func releaseAll() -> Bool {
        for number in 0..<shapers.count {
            let shaper = shapers[number]
            while !shaper.isEmpty {
                if isFull { return true }
                guard releaseFirst(of: shaper) else { break }
            }
        }
        shapers.removeRetired()
        return false
    }

    /// What is held goes where the table leads to now: a failed path's packets to the next one at once, whatever its
    /// own rate was, and in fragments where that one carries less and may have them. False when the first packet's
    /// time has not come.
    private mutating func releaseFirst(of shaper: Shaper) -> Bool {
        guard let bytes = unsafe shaper.first, let packet = bytes.baseAddress,
            let header = unsafe try? InnerHeader(packet, count: bytes.count)
        else {
            // It was parsed before it was taken.
            drops.add(.outboundMalformed)
            shaper.removeFirst()
            return true
        }
        let destination = unsafe header.destination(of: packet, in: table)
        guard destination >= 0, let path = unsafe table.path(to: destination, for: packet, header: header)
        else {
            drops.add(.noRoute)
            shaper.removeFirst()
            return true
        }
        let index = unsafe use(path)
        let own = unsafe Unmanaged.passUnretained(shaper).toOpaque()
        let isPath = unsafe uses[index].pathShaper?.toOpaque() == own
        let isConnection = unsafe uses[index].connectionShaper?.toOpaque() == own
        if isPath || isConnection { guard shaper.takeFirst() else { return false } }
        defer { shaper.removeFirst() }
        guard unsafe uses[index].underlay != nil else {
            drops.add(unsafe uses[index].isCut ? .drilled : .noEndpoint)
            return true
        }
        guard unsafe header.totalLength <= uses[index].limit || uses[index].mayFragment else {
            drops.add(.outboundTooBig)
            return true
        }
        // What waited for a path had passed its connection's limiter.
        if !isConnection, !shaper.isOfPath {
            guard unsafe mayGo(packet, header, past: uses[index].connectionShaper) else { return true }
        }
        if !isPath { guard unsafe mayGo(packet, header, past: uses[index].pathShaper) else { return true } }
        let tos = unsafe ECN.tos(packet, family: header.family) & uses[index].tosMask
        unsafe translate(packet, header, to: destination, tos, use: index)
        return true
    }

    /// When what is held may go, or some of it; nil while nothing is. The thread waits no longer.
    package var nextOpening: Instant? { shapers.nextOpening }

    // MARK: Translation

    /// The last step before sealing.
    private mutating func translate(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, to destination: Int32,
        _ tos: UInt8, use index: Int
    ) {
        // Ends of inside links speak for themselves; all others have an outside, also to the far gateway.
        let isOfLink =
            table.isPinned(destination)
            && (unsafe uses[index].path._withUnsafeGuaranteedRef {
                unsafe $0.inside?.local == header.sourceAddress(of: packet)
            })
        if let translation = unsafe uses[index].translation, !isOfLink {
            let outcome = unsafe translation._withUnsafeGuaranteedRef {
                unsafe $0.outbound(packet, header: header)
            }
            guard outcome != .impossible else {
                drops.add(.untranslatable)
                return
            }
        }
        unsafe seal(
            packet, count: header.totalLength, tos, use: index,
            mayFragment: header.totalLength > uses[index].limit)
    }

    // MARK: Paths

    /// Looks up what the connection asks for: once a batch, for a path that there is something for.
    @inline(never)
    mutating func equip(_ use: UnsafeMutablePointer<PathUse>, _ features: ForwardingTable.Features) {
        let peer = unsafe use.pointee.path._withUnsafeGuaranteedRef { $0.peer }
        let number = table.connection(of: peer)
        guard number >= 0 else { return }
        let connection = table.connections[Int(number)]
        if features.contains(.copiesDSCP) { unsafe use.pointee.tosMask = .max }
        if let translation = connection.translation {
            unsafe use.pointee.translation = .passUnretained(translation)
        }
        if features.contains(.isLimited) {
            let overhead = unsafe Self.overhead(use.pointee.underlay)
            if let limiter = connection.limiter {
                unsafe use.pointee.connectionShaper = shapers.shaper(
                    for: limiter, isOfPath: false, overhead: overhead, now: now)
            }
            if let limiter = connection.pathLimiter(of: peer) {
                unsafe use.pointee.pathShaper = shapers.shaper(
                    for: limiter, isOfPath: true, overhead: overhead, now: now)
            }
        }
        unsafe use.pointee.isIntercepted =
            use.pointee.translation != nil || use.pointee.connectionShaper != nil
            || use.pointee.pathShaper != nil
        unsafe use.pointee.hasPolicy = use.pointee.hasPolicy || use.pointee.isIntercepted
    }

    /// IP and UDP headers, and what a message has beside the inner packet.
    private static func overhead(_ underlay: UnderlayPath?) -> Int {
        (underlay?.endpoint.address.family == .v6 ? 48 : 28) + Protocol.transportOverhead
    }
}
