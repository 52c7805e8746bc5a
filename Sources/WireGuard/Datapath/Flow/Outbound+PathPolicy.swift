/// What a path may ask for beside sealing. The usual packet of a path that asks for nothing pays one branch for it.
///
/// 1. Its MTU: what is too long is fragmented, or its sender told; a TCP connection being opened learns of it.
/// 2. Rates: of the connection, then of the path; what comes too early waits, as it is up to here.
/// 3. Translation, last, so that what waits is still looked up and what is quoted still known by its own address.
extension Outbound {
    /// True when the packet, whose checksums are finished, is to be sealed as it is now; false when it has been
    /// seen to.
    @inline(never)
    mutating func applyPathPolicy(_ packet: borrowing IPPacket, _ hop: Hop) -> Bool {
        let limit = unsafe uses[hop.use].limit
        guard packet.count <= limit else {
            fragment(packet, hop)
            return false
        }
        if limit < .max, MSSClamp.concerns(packet) { MSSClamp.clamp(packet, innerMTU: limit) }
        guard unsafe uses[hop.use].isIntercepted else { return true }
        pass(packet, hop)
        return false
    }

    /// The same for a superpacket. One of TCP has been segmented to fit, and never has a SYN.
    @inline(never)
    mutating func applyPathPolicy(_ superpacket: Superpacket, _ hop: Hop) -> Bool {
        guard unsafe uses[hop.use].isIntercepted || superpacket.longest > uses[hop.use].limit else {
            return true
        }
        for number in 0..<superpacket.segmentCount {
            let segment = superpacket.segment(number)
            if applyPathPolicy(segment, hop) { seal(segment, hop) }
        }
        return false
    }

    /// A packet that is too long: sent in fragments, or its sender is told what would pass (RFC 1191; RFC 8201). No
    /// sender of IPv6 goes below 1280 bytes, so on a path that carries less the outer packet goes in fragments
    /// (RFC 2473, section 7.1), where anybody on the way can make them.
    private mutating func fragment(_ packet: borrowing IPPacket, _ hop: Hop) {
        let limit = unsafe uses[hop.use].limit
        if packet.family == .v6, packet.count <= ICMPError.minimumMTU6, unsafe uses[hop.use].mayFragment {
            if unsafe uses[hop.use].isIntercepted {
                pass(packet, hop)
            } else {
                seal(packet, hop, mayFragment: true)
            }
            return
        }
        guard var fragments = Fragmenter(packet, mtu: limit) else {
            drops.add(.outboundTooBig)
            let isPassing = unsafe uses[hop.use].path._withUnsafeGuaranteedRef { $0.isInnerMTUPassing }
            // One error is enough for the segments of one packet.
            if !isPassing, unsafe reply == nil { icmpError.make(.tooBig(mtu: limit), for: packet) }
            return
        }
        while let fragment = unsafe fragments.next(into: scratch) {
            if unsafe uses[hop.use].isIntercepted {
                pass(fragment, hop)
            } else {
                seal(fragment, hop)
            }
        }
    }

    // MARK: Rates

    private mutating func pass(_ packet: borrowing IPPacket, _ hop: Hop) {
        let shapers = unsafe (uses[hop.use].connectionShaper, uses[hop.use].pathShaper)
        guard unsafe mayGo(packet, past: shapers.0), unsafe mayGo(packet, past: shapers.1) else { return }
        translate(packet, hop)
    }

    /// False when it waits, or is dropped.
    private func mayGo(_ packet: borrowing IPPacket, past shaper: Unmanaged<Shaper>?) -> Bool {
        guard let shaper = unsafe shaper else { return true }
        let verdict = unsafe shaper._withUnsafeGuaranteedRef { shaper in
            unsafe shaper.offer(packet.bytes, count: packet.count, QueueClass(packet))
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
        guard let bytes = unsafe shaper.first, let start = bytes.baseAddress else { return false }
        do throws(DropReason) {
            let packet = try unsafe IPPacket(start, count: bytes.count)
            return release(packet, of: shaper)
        } catch {
            // It was parsed before it was taken.
            drops.add(.outboundMalformed)
            shaper.removeFirst()
            return true
        }
    }

    private mutating func release(_ packet: borrowing IPPacket, of shaper: Shaper) -> Bool {
        let destination = packet.route(by: .destination, in: table)
        guard destination >= 0, let path = unsafe table.path(to: destination, for: packet) else {
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
        guard unsafe packet.count <= uses[index].limit || uses[index].mayFragment else {
            drops.add(.outboundTooBig)
            return true
        }
        // What waited for a path had passed its connection's limiter.
        if !isConnection, !shaper.isOfPath {
            guard unsafe mayGo(packet, past: uses[index].connectionShaper) else { return true }
        }
        if !isPath { guard unsafe mayGo(packet, past: uses[index].pathShaper) else { return true } }
        translate(
            packet, unsafe Hop(destination: destination, tos: packet.tos & uses[index].tosMask, use: index))
        return true
    }

    /// When what is held may go, or some of it; nil while nothing is. The thread waits no longer.
    package var nextOpening: Instant? { shapers.nextOpening }

    // MARK: Translation

    /// The last step before sealing.
    private mutating func translate(_ packet: borrowing IPPacket, _ hop: Hop) {
        // Ends of inside links speak for themselves; all others have an outside, also to the far gateway.
        let isOfLink =
            table.isPinned(hop.destination)
            && (unsafe uses[hop.use].path._withUnsafeGuaranteedRef {
                $0.inside?.local == packet.address(.source)
            })
        if let translation = unsafe uses[hop.use].translation, !isOfLink {
            let outcome = unsafe translation._withUnsafeGuaranteedRef { $0.outbound(packet) }
            guard outcome != .impossible else {
                drops.add(.untranslatable)
                return
            }
        }
        seal(packet, hop, mayFragment: unsafe packet.count > uses[hop.use].limit)
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
