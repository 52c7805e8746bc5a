/// What a line of a wg-quick file would have bash do, as far as it can be told without running it.
enum ShellCommand {
    /// Need CAP_NET_ADMIN and nothing else.
    private static let networkPrograms: Set<String> = [
        "ip", "nft", "iptables", "ip6tables", "iptables-nft", "ip6tables-nft", "tc", "true",
    ]

    /// Returns true if the line is commands that only set up networks, one after the other. What bash would expand, or
    /// send elsewhere, is anything.
    static func onlySetsUpNetworks(_ line: String) -> Bool {
        guard !line.contains(where: { "$`<>(){}*?\\~[".contains($0) }) else { return false }
        let commands = line.replacing("&&", with: ";").replacing("||", with: ";").split(separator: ";")
        guard !commands.isEmpty, !commands.contains(where: { $0.contains("&") || $0.contains("|") }) else {
            return false
        }
        return commands.allSatisfy { command in
            guard let program = command.split(whereSeparator: \.isWhitespace).first else { return false }
            let name = program.split(separator: "/").last.map { String($0) } ?? ""
            return networkPrograms.contains(name) && (!program.contains("/") || program.hasPrefix("/"))
        }
    }
}
