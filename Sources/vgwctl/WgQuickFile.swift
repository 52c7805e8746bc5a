internal import Daemon
internal import WireGuard

/// A configuration of wg-quick(8), read into a draft of ours.
///
/// 1. Each line is read by itself: into the draft, left out, or refused. What became of it is kept.
/// 2. Peers become connections. What two of them name is the last one's, as with wg.
/// 3. The draft is read as vgwd reads it, and what that refuses is said of the line that it comes from.
///
/// With anything refused there is no draft: import writes nothing that `vgwd check` would not take.
struct WgQuickFile {
    /// What became of a section or of a line in it, in the order of the file.
    private(set) var fates: [Fate] = []
    private(set) var draft: ConfigurationDraft

    struct Fate: Hashable {
        /// Nil is about the whole file.
        let line: Int?
        /// As a clause: `[Peer] is connection cloud: PublicKey, AllowedIPs`, `DNS is left out: …`.
        var text: String
    }

    /// Why there is no draft. Never holds a value that could be a secret.
    private struct Refusal {
        /// Nil is about the whole file.
        let line: Int?
        let problem: String
        let remedy: String
    }

    private struct Peer {
        let line: Int
        var name: String?
        var publicKey: PublicKey?
        var presharedKey: PresharedKey?
        /// In the order of the file, each once.
        var prefixes: [IPPrefix] = []
        var prefixLines: [IPPrefix: Int] = [:]
        var endpoint: String?
        var keepalive: UInt16 = 0
        /// What it has, and on which line.
        var lines: [String: Int] = [:]
        var taken: [String] = []
    }

    private enum Section { case none, interface, peer }

    private let tables: RouteTableNames
    private var peers: [Peer] = []
    private var refusals: [Refusal] = []
    /// Lines of [Interface] by the key in lower case, and their keys as they are written.
    private var lines: [String: Int] = [:]
    private var taken: [String] = []
    private var interfaceLine: Int?
    private var addressLines: [Int] = []
    private var commands: [WgQuickCommand] = []

    /// `name` is the interface's: the file's name without `.conf`.
    init(_ text: String, name: String, tables: RouteTableNames = RouteTableNames(texts: [])) throws(Failure) {
        self.tables = tables
        // The stand-in key leaves with an error unless a key of the file takes its place.
        draft = ConfigurationDraft(
            comment: ["Made from \(DraftName.derived(from: name) ?? "a file") of wg-quick by vgwctl import."],
            name: DraftName.derived(from: name) ?? "gateway", privateKey: FreshKey.privateKey())
        nameInterface(name)
        read(text)
        if lines["privatekey"] == nil {
            refuse(nil, "the file has no PrivateKey", "put the interface's PrivateKey into its [Interface]")
        }
        if draft.listenPort == nil { draft.listenPort = 0 }
        // Where wg-quick makes no rules it marks nothing either.
        if draft.firewallMark == nil, draft.table == Self.offTable || !draft.makesRules {
            draft.firewallMark = TOMLText.quoted("off")
        }
        draft.hooks = WgQuickCommand.hooks(of: commands)
        fates += commands.map(\.fate)
        makeConnections()
        if let line = interfaceLine {
            fates.append(Fate(line: line, text: "[Interface] is gateway \(draft.name): \(list(taken))"))
        }
        askDaemon()
        fates.sort { ($0.line ?? 0) < ($1.line ?? 0) }
        try fail()
    }

    // MARK: Lines

    private mutating func read(_ text: String) {
        var section = Section.none
        var comment: String?
        // By bytes: "\r\n" is one Character.
        let bytes = text.utf8.starts(with: [0xef, 0xbb, 0xbf]) ? text.utf8.dropFirst(3) : text.utf8[...]
        for (index, bytes) in bytes.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() {
            let number = index + 1
            let rawLine = Substring(bytes)
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
            defer { comment = nil }
            guard !line.isEmpty else { continue }
            switch line.lowercased() {
            case "[interface]":
                section = .interface
                interfaceLine = interfaceLine ?? number
            case "[peer]":
                section = .peer
                peers.append(Peer(line: number, name: comment.flatMap { Self.name(in: $0) }))
            case _ where line.hasPrefix("["):
                refuse(number, "unknown section", "a wg-quick file has [Interface] and [Peer]")
                section = .none
            default: read(line, number, in: section)
            }
        }
    }

    private mutating func read(_ line: String, _ number: Int, in section: Section) {
        let pair = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard pair.count == 2 else {
            return refuse(number, "no '='", "each line is KEY = VALUE: is this a wg-quick file?")
        }
        let key = pair[0].trimmed
        let value = pair[1].trimmed
        if Self.isOfAmneziaWG(key) {
            return refuse(
                number,
                "\(key) is AmneziaWG's: its packets are disguised, and the far end will not understand vgwd's",
                "set up WireGuard itself at both ends, without \(key) and its like")
        }
        switch section {
        case .none:
            // After an unknown section there is one refusal already.
            guard interfaceLine == nil, peers.isEmpty, refusals.isEmpty else { return }
            refuse(
                number, "\(Self.shown(key)) stands before any section", "put it below [Interface] or [Peer]")
        case .interface: readInterface(key, value, number)
        case .peer: readPeer(key, value, number)
        }
    }

    /// Junk packets, padding, message types, signatures, and what hides them: `Jc`, `S1`, `H4`, `I1`, …
    private static func isOfAmneziaWG(_ key: String) -> Bool {
        let key = key.lowercased()
        if ["jc", "jmin", "jmax", "itime"].contains(key) { return true }
        guard let first = key.first, "shij".contains(first), key.utf8.count == 2 else { return false }
        return key.utf8.dropFirst().allSatisfy { (0x31...0x39).contains($0) }
    }

    // MARK: [Interface]

    private mutating func readInterface(_ key: String, _ value: String, _ line: Int) {
        let isRepeatable = ["address", "dns", "preup", "postup", "predown", "postdown"].contains(
            key.lowercased())
        if let earlier = lines.updateValue(line, forKey: key.lowercased()), !isRepeatable {
            leaveOut(earlier, key, "line \(line) says it again, and the last one counts, as with wg")
        }
        if let moment = WgQuickCommand.Moment(rawValue: key.lowercased()) {
            let text = value.replacing("%i", with: draft.interface)
            return commands.append(WgQuickCommand(moment: moment, key: key, line: line, text: text))
        }
        switch key.lowercased() {
        case "privatekey":
            guard let privateKey = PrivateKey(base64: value) else {
                return refuse(line, "PrivateKey is no key", "it must be 32 bytes in base64")
            }
            draft.privateKey = privateKey
        case "listenport":
            guard let port = UInt16(value) else { return wrong(line, key, "a number from 0 to 65535") }
            draft.listenPort = port
        case "address":
            readAddresses(value, line)
        case "mtu":
            guard let mtu = Int(value), (576...65535).contains(mtu) else {
                return wrong(line, key, "a number from 1280 to 65535")
            }
            guard mtu >= 1280 else {
                draft.mtu = nil
                return leaveOut(
                    line, key, "\(mtu) is below 1280, the least that vgwd takes: vgwd finds the MTU itself")
            }
            draft.mtu = mtu
        case "fwmark":
            let digits = value.lowercased()
            let mark = digits.hasPrefix("0x") ? UInt32(digits.dropFirst(2), radix: 16) : UInt32(digits)
            guard let mark = digits == "off" ? 0 : mark else {
                return wrong(line, key, "\"off\" or a number")
            }
            // Without one wg-quick has a mark where it needs it, and so has vgwd.
            draft.firewallMark = mark == 0 ? nil : String(mark)
        case "table":
            guard readTable(value, line) else { return }
        case "dns":
            return leaveOut(
                line, key,
                "vgwd leaves this host's name resolution alone; set it by resolvconf or systemd-resolved")
        case "saveconfig":
            return leaveOut(line, key, "vgwd never writes its configuration")
        default:
            return leaveOut(line, key, "it is no key of wg-quick's [Interface]")
        }
        take(key, &taken)
    }

    private mutating func readAddresses(_ value: String, _ line: Int) {
        for part in Self.parts(value) {
            guard let prefix = IPPrefix(part) else {
                return wrong(line, "Address", "an address such as 10.0.0.2/24")
            }
            guard !draft.addresses.contains(prefix.description) else {
                leaveOut(line, "Address \(prefix)", "it is there already")
                continue
            }
            draft.addresses.append(prefix.description)
            addressLines.append(line)
        }
    }

    /// wg-quick makes rules of its own only for a default route under `auto`. With a table's number or name it makes none,
    /// and neither does vgwd then. Returns false where the line is refused.
    private mutating func readTable(_ value: String, _ line: Int) -> Bool {
        (draft.table, draft.makesRules) = (nil, true)
        switch value.lowercased() {
        case "auto": return true
        case "off":
            draft.table = Self.offTable
            return true
        default: break
        }
        guard let number = UInt32(value) ?? tables[value] else {
            refuse(
                line,
                "Table is neither \"off\", \"auto\", a number nor a name in \(RouteTableNames.mainFile)",
                "write the table's number")
            return false
        }
        if number == GatewayConfiguration.RouteTable.mainNumber {
            draft.table = TOMLText.quoted("main")
        } else {
            draft.table = String(number)
            draft.makesRules = false
            fates.append(
                Fate(
                    line: line,
                    text:
                        "Table: routes go to table \(number), and rules of yours lead there, as with wg-quick: "
                        + "vgwd makes none (rules = false)"))
        }
        return true
    }

    private static let offTable = TOMLText.quoted("off")

    /// The file's name, where vgwd takes it.
    private mutating func nameInterface(_ name: String) {
        let fallback = draft.interface
        draft.interface = name
        guard let error = draft.errors.first(where: { $0.key == "gateway.interface" }) else { return }
        draft.interface = fallback
        fates.append(
            Fate(
                line: nil,
                text: "the interface is \(fallback), not as the file: \(error.problem); \(error.remedy)"))
    }

    // MARK: [Peer]

    private mutating func readPeer(_ key: String, _ value: String, _ line: Int) {
        let last = peers.count - 1
        if let earlier = peers[last].lines.updateValue(line, forKey: key.lowercased()),
            key.lowercased() != "allowedips"
        {
            leaveOut(earlier, key, "line \(line) says it again, and the last one counts, as with wg")
        }
        switch key.lowercased() {
        case "publickey":
            guard let publicKey = PublicKey(base64: value) else {
                return refuse(line, "PublicKey is no key", "it must be 32 bytes in base64")
            }
            peers[last].publicKey = publicKey
        case "presharedkey":
            guard let presharedKey = PresharedKey(base64: value) else {
                return refuse(line, "PresharedKey is no key", "it must be 32 bytes in base64")
            }
            peers[last].presharedKey = presharedKey.isNone ? nil : presharedKey
        case "allowedips":
            for part in Self.parts(value) {
                guard let prefix = IPPrefix(part.hasPrefix("+") ? String(part.dropFirst()) : part) else {
                    return wrong(line, key, "prefixes such as 10.20.0.0/16")
                }
                guard peers[last].prefixLines[prefix.network] == nil else {
                    leaveOut(line, "AllowedIPs \(prefix.network)", "it is there already")
                    continue
                }
                peers[last].prefixes.append(prefix.network)
                peers[last].prefixLines[prefix.network] = line
            }
        case "endpoint":
            do throws(Failure) {
                peers[last].endpoint = try EndpointText.parse(value, defaultPort: nil)
            } catch {
                // What was written is not repeated: it may be a key.
                return wrong(
                    line, key, "an address or a name with a port: 192.0.2.1:51820, [fe80::1%eth0]:51820")
            }
        case "persistentkeepalive":
            guard let seconds = value.lowercased() == "off" ? 0 : UInt16(value) else {
                return wrong(line, key, "\"off\" or a number from 0 to 65535")
            }
            peers[last].keepalive = seconds
        default:
            return leaveOut(line, key, "it is no key of wg-quick's [Peer]")
        }
        take(key, &peers[last].taken)
    }

    private mutating func makeConnections() {
        var names = Set(peers.compactMap(\.name))
        var used: Set<String> = []
        var keys: Set<PublicKey> = []
        var ownerOfPrefix: [IPPrefix: Int] = [:]
        for (index, peer) in peers.enumerated() {
            for prefix in peer.prefixes { ownerOfPrefix[prefix] = index }
        }
        for (index, peer) in peers.enumerated() {
            guard let publicKey = peer.publicKey else {
                if peer.lines["publickey"] == nil {
                    refuse(peer.line, "this [Peer] has no PublicKey", "add it, or take the peer out")
                }
                continue
            }
            if !keys.insert(publicKey).inserted {
                refuse(peer.line, "another [Peer] has this PublicKey too", "merge the two into one")
                continue
            }
            // As the kernel does: a prefix belongs to the peer that names it last.
            for prefix in peer.prefixes where ownerOfPrefix[prefix] != index {
                leaveOut(
                    peer.prefixLines[prefix] ?? peer.line, "AllowedIPs \(prefix)",
                    "it stays with the last peer that names it, as with wg")
            }
            var name = peer.name ?? ""
            if name.isEmpty || !used.insert(name).inserted {
                name = ((index + 1)...).lazy.map { "peer-\($0)" }.first { names.insert($0).inserted } ?? name
                used.insert(name)
            }
            let routes = peer.prefixes.filter { ownerOfPrefix[$0] == index }
            draft.connections.append(
                ConfigurationDraft.Connection(
                    name: name, routes: routes, publicKey: publicKey, presharedKey: peer.presharedKey,
                    endpoint: peer.endpoint, persistentKeepalive: peer.keepalive))
            fates.append(Fate(line: peer.line, text: "[Peer] is connection \(name): \(list(peer.taken))"))
            if routes.contains(where: \.isMulticast) {
                fates.append(
                    Fate(
                        line: peer.lines["allowedips"] ?? peer.line,
                        text: "AllowedIPs: multicast is carried, and the kernel gets no route for it"))
            }
        }
    }

    // MARK: What vgwd says

    /// Where each value of the draft comes from, by the key that vgwd's errors have: the line, and the key in it.
    private var origins: [String: (line: Int, key: String)] {
        var origins: [String: (line: Int, key: String)] = [:]
        func note(_ name: String, _ line: Int?, _ key: String) {
            if let line { origins[name] = (line, key) }
        }
        for (name, key) in [
            ("name", "PrivateKey"), ("private-key-file", "PrivateKey"), ("listen-port", "ListenPort"),
            ("mtu", "MTU"), ("firewall-mark", "FwMark"), ("table", "Table"), ("rules", "Table"),
            ("address", "Address"),
        ] { note("gateway.\(name)", lines[key.lowercased()], key) }
        for (place, line) in addressLines.enumerated() {
            note("gateway.address[#\(place + 1)]", line, "Address")
        }
        for connection in draft.connections {
            guard let peer = peers.last(where: { $0.publicKey == connection.publicKey }) else { continue }
            let connectionKey = "connection[\(connection.name)]"
            note(connectionKey, peer.line, "[Peer]")
            note("\(connectionKey).routes", peer.lines["allowedips"], "AllowedIPs")
            for (place, route) in connection.routes.enumerated() {
                note("\(connectionKey).routes[#\(place + 1)]", peer.prefixLines[route], "AllowedIPs")
            }
            for (name, key) in [
                ("public-key", "PublicKey"), ("preshared-key-file", "PresharedKey"), ("endpoint", "Endpoint"),
                ("persistent-keepalive", "PersistentKeepalive"),
            ] { note("\(connectionKey).tunnel[#1].\(name)", peer.lines[key.lowercased()], key) }
        }
        return origins
    }

    private mutating func askDaemon() {
        let errors = draft.errors
        guard !errors.isEmpty else { return }
        let origins = origins
        for error in errors {
            var name = Substring(error.key)
            while origins[String(name)] == nil, let end = name.lastIndex(where: { $0 == "." || $0 == "[" }) {
                name = name[..<end]
            }
            let origin = origins[String(name)]
            guard !refusals.contains(where: { $0.line == origin?.line }) else { continue }
            // Lines that it names are the draft's, which nobody has seen.
            let problem = error.problem.replacing(#/ \(line \d+\)/#, with: "")
            refuse(origin?.line, "\(origin?.key ?? error.key): \(problem)", error.remedy)
        }
    }

    private func fail() throws(Failure) {
        guard let first = refusals.first else { return }
        func text(_ refusal: Refusal) -> String {
            (refusal.line.map { "line \($0): " } ?? "") + refusal.problem
        }
        guard refusals.count > 1 else { throw Failure(.data, text(first), hint: first.remedy) }
        let sorted = refusals.sorted { ($0.line ?? 0) < ($1.line ?? 0) }
        throw Failure(
            .data,
            "\(refusals.count) things cannot be taken:\n"
                + sorted.map { "  \(text($0)); \($0.remedy)" }.joined(separator: "\n"),
            hint: "Nothing was written.")
    }

    // MARK: Fates

    private mutating func refuse(_ line: Int?, _ problem: String, _ remedy: String) {
        refusals.append(Refusal(line: line, problem: problem, remedy: remedy))
    }

    private mutating func wrong(_ line: Int, _ key: String, _ right: String) {
        refuse(line, "\(Self.shown(key)) is not \(right)", "write it so, or leave it out")
    }

    private mutating func leaveOut(_ line: Int, _ key: String, _ why: String) {
        fates.append(Fate(line: line, text: "\(Self.shown(key)) is left out: \(why)"))
    }

    private func take(_ key: String, _ taken: inout [String]) {
        if !taken.contains(where: { $0.lowercased() == key.lowercased() }) { taken.append(key) }
    }

    private func list(_ keys: [String]) -> String { keys.isEmpty ? "nothing" : keys.joined(separator: ", ") }

    // MARK: Text

    private static func parts(_ value: String) -> [String] {
        value.split { $0 == "," || $0.isWhitespace }.map { String($0) }
    }

    /// A comment beside [Peer] that is short enough to be meant as its name: `# Cloud gateway`, `# Name = cloud`. A key
    /// that is commented out (`#DNS = 192.0.2.53`) is none.
    private static func name(in comment: String) -> String? {
        let parts = comment.split(separator: "=", maxSplits: 1)
        if parts.count == 2 {
            let key = parts[0].lowercased().filter { $0.isLetter }
            guard ["name", "friendlyname", "peername", "peer", "client"].contains(key) else { return nil }
        }
        guard let text = parts.last, text.count <= 32 else { return nil }
        return DraftName.derived(from: text.trimmed)
    }

    /// Keys of one file land in another's text only when they cannot be secrets.
    private static func shown(_ key: String) -> String {
        let word = key.split(separator: " ").first ?? ""
        return word.utf8.count <= 24 && word.allSatisfy { $0.isASCII && $0.isLetter } ? key : "a key"
    }
}
