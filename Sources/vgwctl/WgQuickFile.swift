internal import WireGuard

/// A configuration of wg-quick(8), read into a draft of ours. What vgwd has no counterpart for is listed,
/// never lost in silence.
struct WgQuickFile {
    /// What is not carried over, as a line for a person: `line 5: DNS: …`.
    private(set) var notes: [String] = []
    private(set) var draft: ConfigurationDraft

    private var peers: [Peer] = []

    private struct Peer {
        var line: Int
        var name: String?
        var publicKey: PublicKey?
        var presharedKey: PresharedKey?
        var prefixes: [IPPrefix] = []
        var endpoint: String?
        var keepalive: UInt16 = 0
    }

    private enum Section { case none, interface, peer }

    /// `name` is the interface's: the file's name without `.conf`.
    init(_ text: String, name: String) throws(Failure) {
        // The stand-in leaves with an error unless a key of the file takes its place.
        draft = ConfigurationDraft(
            comment: ["Made from \(name).conf of wg-quick by vgwctl import."],
            name: DraftName.derived(from: name) ?? "gateway", interface: name,
            privateKey: FreshKey.privateKey())
        var hasPrivateKey = false
        var section = Section.none
        var comment: String?
        for (index, rawLine) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let number = index + 1
            let parts = rawLine.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
            let line = (parts.first ?? "").trimmed
            if parts.count == 2, line.isEmpty {
                let remark = parts[1].trimmed
                if section == .peer, let last = peers.indices.last, peers[last].line == number - 1 {
                    peers[last].name = peers[last].name ?? Self.name(in: remark)
                } else {
                    comment = remark
                }
                continue
            }
            guard !line.isEmpty else {
                comment = nil
                continue
            }
            switch line.lowercased() {
            case "[interface]": section = .interface
            case "[peer]":
                section = .peer
                peers.append(Peer(line: number, name: comment.flatMap { Self.name(in: $0) }))
            case _ where line.hasPrefix("["):
                throw Failure(
                    .data, "line \(number): unknown section",
                    hint: "A wg-quick file has [Interface] and [Peer].")
            default:
                let pair = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard pair.count == 2 else {
                    throw Failure(
                        .data, "line \(number): no '='",
                        hint: "Each line is KEY = VALUE. Is this a wg-quick file?")
                }
                let key = pair[0].trimmed
                let value = pair[1].trimmed
                switch section {
                case .none:
                    throw Failure(.data, "line \(number): \(Self.shown(key)) stands before any section")
                case .interface:
                    if key.lowercased() == "privatekey" { hasPrivateKey = true }
                    try readInterface(key, value, number)
                case .peer: try readPeer(key, value, number)
                }
            }
            comment = nil
        }
        guard hasPrivateKey else {
            throw Failure(
                .data, "the file has no PrivateKey",
                hint: "Put the interface's PrivateKey into its [Interface].")
        }
        if draft.listenPort == nil { draft.listenPort = 0 }
        try makeConnections()
    }

    // MARK: Keys

    private mutating func readInterface(_ key: String, _ value: String, _ line: Int) throws(Failure) {
        switch key.lowercased() {
        case "privatekey":
            guard let privateKey = PrivateKey(base64: value) else {
                throw Failure(
                    .data, "line \(line): PrivateKey is no key", hint: "It must be 32 bytes in base64.")
            }
            draft.privateKey = privateKey
        case "listenport":
            guard let port = UInt16(value) else { throw Self.wrong(line, key, "a number from 0 to 65535") }
            draft.listenPort = port
        case "address":
            for part in Self.parts(value) {
                guard let prefix = IPPrefix(part) else {
                    throw Self.wrong(line, key, "an address such as 10.0.0.2/24")
                }
                draft.addresses.append(prefix.description)
            }
        case "mtu":
            guard let mtu = Int(value), (576...65535).contains(mtu) else {
                throw Self.wrong(line, key, "a number from 1280 to 65535")
            }
            if mtu < 1280 {
                notes.append("line \(line): MTU \(mtu) is below 1280, the least that vgwd takes: left to it")
            } else {
                draft.mtu = mtu
            }
        case "fwmark":
            let mark =
                value.lowercased().hasPrefix("0x") ? UInt32(value.dropFirst(2), radix: 16) : UInt32(value)
            guard let mark = value.lowercased() == "off" ? 0 : mark else {
                throw Self.wrong(line, key, "\"off\" or a number")
            }
            // Without one wg-quick has a mark where it needs it, and so has vgwd.
            if mark != 0 { draft.firewallMark = String(mark) }
        case "table":
            switch value.lowercased() {
            case "auto": break
            case "off": draft.table = "\"off\""
            case "main": draft.table = "\"main\""
            default:
                guard let table = UInt32(value), table > 0 else {
                    throw Self.wrong(line, key, "\"off\", \"auto\" or a number")
                }
                draft.table = String(table)
            }
        case "dns":
            note(line, key, "vgwd leaves name resolution alone; set it with resolvconf or systemd-resolved")
        case "preup", "postup", "predown", "postdown":
            note(line, key, "vgwd runs no commands in this version; put it into a drop-in of vgwd.service")
        case "saveconfig": note(line, key, "vgwd never writes its configuration")
        default: note(line, key, "it is no key of wg-quick's [Interface]")
        }
    }

    private mutating func readPeer(_ key: String, _ value: String, _ line: Int) throws(Failure) {
        let last = peers.count - 1
        switch key.lowercased() {
        case "publickey":
            guard let publicKey = PublicKey(base64: value) else {
                throw Failure(
                    .data, "line \(line): PublicKey is no key", hint: "It must be 32 bytes in base64.")
            }
            peers[last].publicKey = publicKey
        case "presharedkey":
            guard let presharedKey = PresharedKey(base64: value) else {
                throw Failure(
                    .data, "line \(line): PresharedKey is no key", hint: "It must be 32 bytes in base64.")
            }
            peers[last].presharedKey = presharedKey.isNone ? nil : presharedKey
        case "allowedips":
            for part in Self.parts(value) {
                guard let prefix = IPPrefix(part.hasPrefix("+") ? String(part.dropFirst()) : part) else {
                    throw Self.wrong(line, key, "prefixes such as 10.20.0.0/16")
                }
                if !peers[last].prefixes.contains(prefix.network) {
                    peers[last].prefixes.append(prefix.network)
                }
            }
        case "endpoint":
            guard let endpoint = try? EndpointText.parse(value, defaultPort: nil) else {
                throw Self.wrong(line, key, "an address or a name with a port, such as 192.0.2.1:51820")
            }
            peers[last].endpoint = endpoint
        case "persistentkeepalive":
            guard let seconds = value.lowercased() == "off" ? 0 : UInt16(value) else {
                throw Self.wrong(line, key, "\"off\" or a number from 0 to 65535")
            }
            peers[last].keepalive = seconds
        default: note(line, key, "it is no key of wg-quick's [Peer]")
        }
    }

    // MARK: Connections

    private mutating func makeConnections() throws(Failure) {
        var names: Set<String> = []
        for (index, peer) in peers.enumerated() {
            guard let publicKey = peer.publicKey else {
                throw Failure(
                    .data, "line \(peer.line): this [Peer] has no PublicKey",
                    hint: "Add it, or take the peer out.")
            }
            guard !draft.connections.contains(where: { $0.publicKey == publicKey }) else {
                throw Failure(
                    .data, "line \(peer.line): another [Peer] has this PublicKey too",
                    hint: "Merge the two into one.")
            }
            // As the kernel does: a prefix belongs to the peer that names it last.
            let later = peers[(index + 1)...].flatMap(\.prefixes)
            let routes = peer.prefixes.filter { !later.contains($0) }
            for taken in peer.prefixes where later.contains(taken) {
                notes.append("line \(peer.line): \(taken) stays with the last peer that names it, as with wg")
            }
            var name = peer.name ?? "peer-\(index + 1)"
            if !names.insert(name).inserted {
                name = "peer-\(index + 1)"
                names.insert(name)
            }
            draft.connections.append(
                ConfigurationDraft.Connection(
                    name: name, routes: routes, publicKey: publicKey, presharedKey: peer.presharedKey,
                    endpoint: peer.endpoint, persistentKeepalive: peer.keepalive))
        }
    }

    private mutating func note(_ line: Int, _ key: String, _ why: String) {
        notes.append("line \(line): \(Self.shown(key)) is not carried over: \(why)")
    }

    // MARK: Text

    private static func parts(_ value: String) -> [String] {
        value.split { $0 == "," || $0.isWhitespace }.map { String($0) }
    }

    /// A comment beside [Peer] that is short enough to be meant as its name: `# Cloud gateway`, `# Name =
    /// cloud`.
    private static func name(in comment: String) -> String? {
        let text = comment.split(separator: "=", maxSplits: 1).last ?? ""
        guard text.utf8.count <= 32 else { return nil }
        return DraftName.derived(from: text.trimmed)
    }

    /// Keys of one file land in another's text only when they cannot be secrets.
    private static func shown(_ key: String) -> String {
        key.utf8.count <= 24 && key.allSatisfy { $0.isASCII && $0.isLetter } ? key : "a key"
    }

    private static func wrong(_ line: Int, _ key: String, _ right: String) -> Failure {
        Failure(.data, "line \(line): \(shown(key)) is not \(right)")
    }
}
