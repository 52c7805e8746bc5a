internal import FoundationEssentials

/// Names of the kernel's routing tables, as iproute2 has them: `100 uplink`, a line each.
struct RouteTableNames {
    static let mainFile = "/etc/iproute2/rt_tables"

    private var numbers: [String: UInt32] = [
        "default": 253, "main": 254, "local": 255,
    ]

    /// Earlier texts go first.
    init(texts: [String]) {
        for line in texts.flatMap({ $0.utf8.split(separator: 0x0a) }) {
            let words = (Substring(line).split(separator: "#", omittingEmptySubsequences: false).first ?? "")
                .split(whereSeparator: \.isWhitespace)
            guard words.count == 2,
                let number = words[0].hasPrefix("0x")
                    ? UInt32(words[0].dropFirst(2), radix: 16) : UInt32(words[0]),
                numbers[String(words[1])] == nil
            else { continue }
            numbers[String(words[1])] = number
        }
    }

    /// Those of this host.
    static func system() -> RouteTableNames {
        let folder = "\(mainFile).d"
        let more = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
            .filter { $0.hasSuffix(".conf") }.map { "\(folder)/\($0)" }
        let files = [mainFile] + more + ["/usr/share/iproute2/rt_tables", "/usr/lib/iproute2/rt_tables"]
        return RouteTableNames(texts: files.compactMap { try? String(contentsOfFile: $0, encoding: .utf8) })
    }

    subscript(name: String) -> UInt32? { numbers[name] }
}
