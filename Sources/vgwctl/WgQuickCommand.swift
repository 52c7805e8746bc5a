internal import ControlAPI

/// A PreUp, PostUp, PreDown or PostDown of a wg-quick file.
///
/// wg-quick runs commands as root and waits for them; a hook runs as vgwd's user, with its right to set up networks. So a
/// command that only does that becomes a hook: what is done after the start, and what is undone before the end. The rest
/// is for the unit, which runs it as root.
struct WgQuickCommand {
    enum Moment: String, CaseIterable {
        case preUp = "preup"
        case postUp = "postup"
        case preDown = "predown"
        case postDown = "postdown"

        /// Nil: vgwd tells nobody of it.
        var event: GatewayEvent.Kind? {
            switch self {
            case .preUp: nil
            case .postUp: .started
            case .preDown, .postDown: .stopping
            }
        }

        /// What systemd has at that moment.
        var unitKey: String {
            switch self {
            case .preUp: "ExecStartPre"
            case .postUp: "ExecStartPost"
            case .preDown: "ExecStop"
            case .postDown: "ExecStopPost"
            }
        }
    }

    let moment: Moment
    /// As the file writes it.
    let key: String
    let line: Int
    /// With the interface's name in it.
    let text: String

    /// What the gateway tells a hook of that runs the command; nil where none can.
    private var event: GatewayEvent.Kind? { Self.onlySetsUpNetworks(text) ? moment.event : nil }

    var fate: WgQuickFile.Fate {
        guard let event else {
            let why =
                moment.event == nil
                ? "no hook runs before the interface is there" : "a hook has not root's rights"
            return WgQuickFile.Fate(
                line: line,
                text: "\(key) is left out: \(why); 'systemctl edit vgwd' takes it: "
                    + "[Service] \(moment.unitKey)=+/bin/bash -c '…'")
        }
        let when = event == .started ? "has started" : "is told to stop"
        return WgQuickFile.Fate(
            line: line, text: "\(key) is run by a [[hook]] when vgwd \(when), as its user: \(text)")
    }

    /// A hook for the start and one for the end, as far as there are commands for them. wg-quick does what goes before the
    /// interface first, else the order is the file's.
    static func hooks(of commands: [WgQuickCommand]) -> [ConfigurationDraft.Hook] {
        let ordered = Moment.allCases.flatMap { moment in commands.filter { $0.moment == moment } }
        return [(GatewayEvent.Kind.started, "PostUp"), (.stopping, "PreDown and PostDown")].compactMap {
            event, words in
            let script = ordered.filter { $0.event == event }.map(\.text)
            guard !script.isEmpty else { return nil }
            return ConfigurationDraft.Hook(
                comment: "\(words) of wg-quick. It runs as vgwd's user, with the right to set up networks.",
                on: event, run: ["/bin/bash", "-ec", script.joined(separator: "\n")])
        }
    }

    /// Need CAP_NET_ADMIN and nothing else.
    private static let networkPrograms: Set<String> = [
        "ip", "nft", "iptables", "ip6tables", "iptables-nft", "ip6tables-nft", "tc", "true",
    ]
    /// What needs more: another network namespace, and a program that `ip` starts.
    private static let furtherWords: Set<String> = ["netns", "-n", "-netns", "exec"]

    /// Returns true if the line is commands that only set up networks, one after the other. What bash would expand, or
    /// send elsewhere, is anything.
    private static func onlySetsUpNetworks(_ line: String) -> Bool {
        guard !line.contains(where: { "$`<>(){}*?\\~[".contains($0) }) else { return false }
        let commands = line.replacing("&&", with: ";").replacing("||", with: ";").split(separator: ";")
        guard !commands.isEmpty, !commands.contains(where: { $0.contains("&") || $0.contains("|") }) else {
            return false
        }
        return commands.allSatisfy { command in
            let words = command.split(whereSeparator: \.isWhitespace).map { String($0) }
            guard let program = words.first else { return false }
            let name = program.split(separator: "/").last.map { String($0) } ?? ""
            guard networkPrograms.contains(name), !program.contains("/") || program.hasPrefix("/") else {
                return false
            }
            return name != "ip" || furtherWords.isDisjoint(with: words)
        }
    }
}
