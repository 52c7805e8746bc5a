/// Names of connections and tunnels, of interfaces, and of keys that were probably meant.
package enum Names {
    package static func isValid(_ text: String) -> Bool {
        guard (1...63).contains(text.utf8.count), let first = text.utf8.first, isAlphanumeric(first) else {
            return false
        }
        return text.utf8.allSatisfy { isAlphanumeric($0) || [0x2d, 0x2e, 0x5f].contains($0) }
    }

    /// What Linux takes (`dev_valid_name`): 1 to 15 bytes, no space, slash or colon, not `.` or `..`.
    static func isInterface(_ text: String) -> Bool {
        guard (1...15).contains(text.utf8.count), text != ".", text != ".." else { return false }
        return text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x2f && $0 != 0x3a }
    }

    /// Why vgwd's own interface cannot have a name that Linux takes or not, and what would be right; nil if it can.
    /// `shown` is the text for an error.
    static func interfaceProblem(
        _ text: String, shownAs shown: String
    ) -> (problem: String, remedy: String)? {
        let problem: String? =
            if !isInterface(text) {
                "\(shown) cannot name an interface"
            } else if reservedInterfaces.contains(text) {
                "\(shown) is no name for vgwd's interface: Linux has it for itself"
            } else if text.hasPrefix("-") {
                "\(shown) begins with '-', so 'ip' and 'wg' take it for an option"
            } else if text.contains("%") {
                "\(shown) has a '%', which Linux replaces by a number"
            } else {
                nil
            }
        return problem.map {
            ($0, "use 1 to 15 characters without spaces, '/', ':' and '%', such as \"vgw0\"")
        }
    }

    /// The loopback, and what stands for all and for new interfaces in /proc/sys/net.
    private static let reservedInterfaces = ["lo", "all", "default"]

    /// A DNS name, as far as looking it up makes sense (RFC 1123, section 2.1). One whose last label is all
    /// digits is an address gone wrong.
    static func isHost(_ text: String) -> Bool {
        guard (1...253).contains(text.utf8.count) else { return false }
        var labels = text.split(separator: ".", omittingEmptySubsequences: false)
        if labels.last?.isEmpty == true { labels.removeLast() }
        guard let last = labels.last, !last.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return false
        }
        return labels.allSatisfy { label in
            (1...63).contains(label.utf8.count)
                && label.utf8.allSatisfy { isAlphanumeric($0) || $0 == 0x2d || $0 == 0x5f }
                && label.utf8.first != 0x2d && label.utf8.last != 0x2d
        }
    }

    /// The known name at the least edit distance, if it is near enough to be meant.
    static func nearest(to text: String, in known: [String]) -> String? {
        let normal = text.lowercased().replacing("_", with: "-").prefix(64)
        let best = known.map { (name: $0, distance: distance(String(normal), $0)) }
            .min { ($0.distance, $0.name) < ($1.distance, $1.name) }
        guard let best, best.distance <= max(1, min(3, best.name.utf8.count / 3)) else {
            // A part of a longer name: `keepalive`, `preshared-key`.
            return normal.utf8.count >= 4 ? known.filter { $0.contains(normal) }.min() : nil
        }
        return best.name
    }

    /// Optimal string alignment: insert, delete, replace, swap neighbours.
    private static func distance(_ a: String, _ b: String) -> Int {
        let a = Array(a.utf8)
        let b = Array(b.utf8)
        var rows = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
        for i in 0...a.count { rows[i][0] = i }
        for j in 0...b.count { rows[0][j] = j }
        guard !a.isEmpty, !b.isEmpty else { return max(a.count, b.count) }
        for i in 1...a.count {
            for j in 1...b.count {
                let cost = a[i - 1] == b[j - 1] ? 0 : 1
                var least = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + cost)
                if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
                    least = min(least, rows[i - 2][j - 2] + 1)
                }
                rows[i][j] = least
            }
        }
        return rows[a.count][b.count]
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        default: false
        }
    }
}
