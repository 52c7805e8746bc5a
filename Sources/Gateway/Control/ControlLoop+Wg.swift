internal import ControlAPI
internal import DataPlane
internal import LinuxIO
internal import Logging
internal import WireGuard

/// The `wg` program's view of this gateway.
extension ControlLoop: WgHandler {
    func wgReport() -> WgDeviceReport {
        let peers = state.connections.flatMap { connection in
            connection.tunnels.enumerated().compactMap { place, tunnel -> WgPeerReport? in
                // Its language has one private key an interface.
                guard tunnel.privateKey == nil, let peer = device.peerID(for: tunnel.publicKey),
                    let status = device.status(of: peer)
                else { return nil }
                return WgPeerReport(
                    publicKey: tunnel.publicKey, presharedKey: tunnel.presharedKey,
                    endpoint: status.underlay?.endpoint,
                    lastHandshake: status.lastHandshake.map { unixNanoseconds(of: $0) } ?? 0,
                    transmittedBytes: status.transmittedBytes, receivedBytes: status.receivedBytes,
                    persistentKeepalive: tunnel.persistentKeepalive,
                    // A prefix belongs to one peer there.
                    allowedIPs: place == 0 ? connection.prefixes : [])
            }
        }
        return WgDeviceReport(
            privateKey: state.privateKey, listenPort: underlays.port, firewallMark: state.firewallMark,
            peers: peers)
    }

    /// 1. The whole change is made to a copy of the state.
    /// 2. What the system may refuse, the sockets, comes first: a refusal leaves everything as it was. Around
    ///    it the rules of another mark change, so that at no time a packet finds none.
    /// 3. Then the device, the forwarding table and the routes follow the copy.
    func wgApply(_ set: WgSet, by client: UnixStream.Credentials?) -> Int32 {
        let before = settings.managesLink ? WgView(state, salt: viewSalt) : nil
        var next = state
        guard let steps = next.apply(set) else { return WgRequest.tooBig }
        // `wg setconf` without FwMark asks for none: where rules hang on the mark, that is the configured
        // one.
        if next.firewallMark == 0 { next.firewallMark = settings.state.firewallMark }
        do throws(SystemError) {
            let isPortAsked = set.listenPort != nil
            try keeper.changeMark(to: next.firewallMark, prefixes: wantedPrefixes()) {
                () throws(SystemError) in try moveSockets(to: next, isPortAsked: isPortAsked)
            }
        } catch {
            log.error("wg set refused", metadata: ["error": "\(error)"])
            return error.code
        }
        state = next
        hooks?.setFirewallMark(next.firewallMark)
        openReturnPath()
        var asked: [PublicKey] = []
        for step in steps {
            switch step {
            case .privateKey(let key): device.setPrivateKey(key, now: now)
            case .removePeer(let key): removePeer(key)
            case .addPeer(let tunnel):
                if let connection = state.connection(of: tunnel.key) { addConnection(connection) }
            case .presharedKey(let key, let secret):
                if let peer = device.peerID(for: key) { device.setPresharedKey(secret, for: peer, now: now) }
            case .endpoint(let key, let endpoint):
                guard let peer = device.peerID(for: key) else { continue }
                device.setUnderlay(UnderlayPath(endpoint: endpoint), for: peer, now: now)
                tunnels[peer]?.endpoints = EndpointSelector([.address(endpoint)], now: now)
                tunnels[peer]?.pathMTU?.pathChanged(now: now)
                noteEndpoint(of: peer)
                asked.append(key)
            case .persistentKeepalive(let key, let seconds):
                if let peer = device.peerID(for: key) {
                    device.setPersistentKeepalive(seconds, for: peer, now: now)
                }
            }
        }
        dropConnections()
        for name in connections.keys { connectionChanged(name) }
        publishForwarding()
        reconcileRoutes()
        for key in asked {
            guard let peer = device.peerID(for: key) else { continue }
            if device.status(of: peer)?.state == .idle { askAhead(peer) }
            follow(peer)
        }
        if let before { compareWithFile(before, client) }
        return 0
    }

    /// The file says what this gateway is: what `wg` makes of it holds until the next start, and is shown until then.
    private func compareWithFile(_ before: WgView, _ client: UnixStream.Credentials?) {
        let view = WgView(state, salt: viewSalt)
        let changes = view.differences(from: before)
        guard !changes.isEmpty, let fileView else { return }
        changedByWg = view.differences(from: fileView)
        // By number: to look into a directory of users may take long, and control has timers to keep.
        let user = client.map { $0.user == 0 ? "root" : "\($0.user)" }
        var details = ["changes": changes.joined(separator: "; "), "user": user ?? "unknown"]
        details["process"] = client.map { "\($0.process)" }
        raise(
            .changedByWg, reason: changedByWg.isEmpty ? "as-in-file" : "not-in-file",
            "wg, run by user \(user ?? "unknown"), set: \(changes.joined(separator: "; "))"
                + (changedByWg.isEmpty ? "; now it is as in the file" : ""), details: details, level: .notice)
    }

    /// Nil while it is as the file says.
    var wgNotice: String? {
        changedByWg.isEmpty
            ? nil
            : "differs from the file by wg: \(changedByWg.joined(separator: "; ")) (a restart goes back to the file)"
    }

    private func moveSockets(to next: GatewayState, isPortAsked: Bool) throws(SystemError) {
        let isPortNew =
            isPortAsked && next.listenPort != state.listenPort && next.listenPort != underlays.port
        guard isPortNew || next.firewallMark != state.firewallMark else { return }
        var moved = underlays
        try moved.move(toPort: isPortNew ? next.listenPort : nil, mark: next.firewallMark)
        if isPortNew { try use(moved) } else { underlays = moved }
    }

    /// Other sockets from here on.
    func use(_ next: Underlays) throws(SystemError) {
        try watchHandshakes(of: next.groups, instead: underlays.groups)
        queueDropsBefore += underlays.groups.queueDrops
        queueDropsBefore -= min(queueDropsBefore, next.groups.queueDrops)
        let before = underlays.groups
        underlays = next
        underlays.keep(before, until: dataPlane.replaceSockets(next.groups))
    }
}
