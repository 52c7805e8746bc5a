internal import GatewayCore
internal import WireGuard

/// Bytes of a client of the `wg` socket in, whole requests out. Nothing of a `set` is handed on before all of
/// it was read and found good, so there is nothing to undo, and a client that never finishes holds up nobody.
///
/// 1. A block opens with `get=1` or `set=1`; anything else refuses the block.
/// 2. Lines `key=value`; with the first `public_key` the keys are a peer's.
/// 3. An empty line ends the block. The first thing wrong in it is what it is refused for; the rest is
///    skipped.
package struct WgRequestParser {
    /// The longest sensible line, a key in hexadecimal, has 80 bytes.
    package static let lineLimit = 512
    /// A `set` of ten thousand peers with twenty prefixes each is well below.
    package static let requestLimit = 16 * 1024 * 1024

    private enum Block {
        case none
        case get
        case set(WgSet, peer: WgPeerChange?)
        case refused(isSet: Bool, errno: Int32)
    }

    private var block = Block.none
    private var line: [UInt8] = []
    private var blockSize = 0
    /// Names of interfaces belong to the system: `wg` writes `[fe80::1%eth0]:51820`.
    private let interfaceIndex: (String) -> UInt32?

    package init(interfaceIndex: @escaping (String) -> UInt32? = { _ in nil }) {
        self.interfaceIndex = interfaceIndex
        // A line that grew would leave a key behind.
        line.reserveCapacity(Self.lineLimit)
    }

    /// What came out complete. Nil: the client is past all limits, and there is nothing to be said to it.
    package mutating func feed(_ bytes: some Sequence<UInt8>) -> [WgRequest]? {
        var requests: [WgRequest] = []
        for byte in bytes {
            if byte != UInt8(ascii: "\n") {
                guard line.count < Self.lineLimit else { return nil }
                line.append(byte)
                continue
            }
            blockSize += line.count + 1
            guard blockSize <= Self.requestLimit else { return nil }
            if let request = endOfLine() { requests.append(request) }
        }
        return requests
    }

    /// A line may hold a key: its bytes do not stay behind in the buffer. Also to be called when the client leaves.
    package mutating func wipe() {
        for place in line.indices { line[place] = 0 }
        line.removeAll(keepingCapacity: true)
    }

    private mutating func endOfLine() -> WgRequest? {
        defer { wipe() }
        guard !line.isEmpty else { return endOfBlock() }
        switch block {
        case .none:
            // Not as a String: that would be a copy of a key that comes where none is expected.
            block =
                if line.elementsEqual("get=1".utf8) {
                    .get
                } else if line.elementsEqual("set=1".utf8) {
                    .set(WgSet(), peer: nil)
                } else {
                    .refused(isSet: line.starts(with: "set=".utf8), errno: WgRequest.invalid)
                }
        case .get:
            block = .refused(isSet: false, errno: WgRequest.invalid)
        case .set(var set, var peer):
            block = .none
            block =
                apply(&set, &peer) ? .set(set, peer: peer) : .refused(isSet: true, errno: WgRequest.invalid)
        case .refused:
            break
        }
        return nil
    }

    private mutating func endOfBlock() -> WgRequest? {
        defer {
            block = .none
            blockSize = 0
        }
        switch block {
        case .none: return nil
        case .get: return .get
        case .set(var set, let peer):
            if let peer { set.peers.append(peer) }
            return .set(set)
        case .refused(let isSet, let errno): return .refused(isSet: isSet, errno: errno)
        }
    }

    /// All that there are.
    private static let keys = [
        "private_key", "preshared_key", "public_key", "listen_port", "fwmark", "replace_peers", "remove",
        "update_only",
        "endpoint", "persistent_keepalive_interval", "replace_allowed_ips", "allowed_ip", "protocol_version",
    ]

    /// One `key=value` of a `set`. False: refused.
    private func apply(_ set: inout WgSet, _ peer: inout WgPeerChange?) -> Bool {
        guard let separator = line.firstIndex(of: UInt8(ascii: "=")) else { return false }
        guard let key = Self.keys.first(where: { line[..<separator].elementsEqual($0.utf8) }) else {
            return false
        }
        switch key {
        case "private_key" where peer == nil:
            guard let secret = SecretBytes(hex: line[(separator + 1)...]) else { return false }
            // Clamping would make a key of the zeros that mean "none".
            set.privateKey = secret.isZero ? .remove : .set(PrivateKey(clamping: secret))
            return true
        case "preshared_key" where peer != nil:
            guard let secret = SecretBytes(hex: line[(separator + 1)...]) else { return false }
            peer?.presharedKey = PresharedKey(secret)
            return true
        // A secret where none may be: its text is looked at no more.
        case "private_key", "preshared_key": return false
        default:
            break
        }
        let value = String(decoding: line[(separator + 1)...], as: UTF8.self)
        if key == "public_key" {
            guard let publicKey = PublicKey(hex: value) else { return false }
            if let peer { set.peers.append(peer) }
            peer = WgPeerChange(publicKey: publicKey)
            return true
        }
        return peer == nil ? Self.apply(key, value, to: &set) : apply(key, value, to: &peer!)
    }

    private static func apply(_ key: String, _ value: String, to set: inout WgSet) -> Bool {
        switch key {
        case "listen_port":
            guard let port: UInt16 = number(value) else { return false }
            set.listenPort = port
        case "fwmark":
            guard let mark: UInt32 = number(value) else { return false }
            set.firewallMark = mark
        case "replace_peers":
            guard value == "true" else { return false }
            set.replacePeers = true
        default:
            return false
        }
        return true
    }

    private func apply(_ key: String, _ value: String, to peer: inout WgPeerChange) -> Bool {
        switch key {
        case "remove":
            guard value == "true" else { return false }
            peer.remove = true
        case "update_only":
            guard value == "true" else { return false }
            peer.updateOnly = true
        case "endpoint":
            guard let endpoint = endpoint(value) else { return false }
            peer.endpoint = endpoint
        case "persistent_keepalive_interval":
            guard let seconds: UInt16 = Self.number(value) else { return false }
            peer.persistentKeepalive = seconds
        case "replace_allowed_ips":
            guard value == "true" else { return false }
            peer.replaceAllowedIPs = true
            peer.allowedIPs.removeAll()
        case "allowed_ip":
            let isRemoval = value.hasPrefix("-")
            guard value.contains("/"),
                let prefix = IPPrefix(String(isRemoval ? value.dropFirst() : value[...]))
            else { return false }
            peer.allowedIPs.append(isRemoval ? .remove(prefix.network) : .add(prefix.network))
        case "protocol_version":
            return value == "1"
        default:
            return false
        }
        return true
    }

    private func endpoint(_ text: String) -> Endpoint? {
        if let endpoint = Endpoint(text) { return endpoint.port == 0 ? nil : endpoint }
        guard text.hasPrefix("["), let percent = text.firstIndex(of: "%"),
            let bracket = text.lastIndex(of: "]"),
            percent < bracket, let index = interfaceIndex(String(text[text.index(after: percent)..<bracket]))
        else { return nil }
        return Endpoint("\(text[..<percent])%\(index)\(text[bracket...])")
    }

    /// Decimal digits and nothing else, in the range of the type.
    private static func number<Value: FixedWidthInteger>(_ text: String) -> Value? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Value(text)
    }
}
