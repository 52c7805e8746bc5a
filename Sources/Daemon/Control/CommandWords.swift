/// Words that somebody types behind `vgwd` who means a command, and that would name an interface there. An interface of such
/// a name would run in the background, with nothing to show for it.
package enum CommandWords {
    private static let units: Set<String> = ["start", "stop", "restart", "enable", "disable"]
    private static let hands: Set<String> = [
        "status", "events", "route", "routes", "tunnel", "drill", "pair", "import", "genkey", "pubkey",
        "genpsk", "show",
    ]
    private static let others: [String: String] = [
        "reload": "a changed configuration takes 'systemctl restart vgwd'",
        "up": "an interface is brought up by 'wg-quick up', a tunnel by 'vgwctl tunnel up NAME'",
        "down": "an interface is taken down by 'wg-quick down', a tunnel by 'vgwctl tunnel down NAME'",
        "version": "'vgwd --version' tells it",
    ]

    /// What to type instead, with the reason; nil for a word that may be an interface's name.
    package static func advice(on word: String) -> String? {
        let word = word.lowercased()
        let instead: String
        if units.contains(word) {
            instead = "'systemctl \(word) vgwd' does that"
        } else if hands.contains(word) {
            instead = "'vgwctl \(command(word))' does that"
        } else if let other = others[word] {
            instead = other
        } else {
            return nil
        }
        return "'\(word)' is no command of vgwd, and no interface is made of that name: \(instead)"
    }

    private static func command(_ word: String) -> String {
        switch word {
        case "show": "status"
        case "routes": "route list"
        default: word
        }
    }
}
