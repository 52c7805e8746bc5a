internal import FoundationEssentials

/// What is measured of each daemon.
enum Figure: String, CaseIterable, Codable, CodingKeyRepresentable {
    case tcp1 = "TCP 1, Gbit/s"
    case tcp1Reverse = "TCP 1 reverse, Gbit/s"
    case tcp4 = "TCP 4, Gbit/s"
    case tcp4Reverse = "TCP 4 reverse, Gbit/s"
    case cpu = "daemon CPU s / Gbit"
    case memory = "resident, MB"
}

/// All figures of a run; prints medians, ranges, and ratios to the reference.
struct Report: Codable {
    /// What ratios are taken to, where it was measured.
    private static let reference = "wireguard-go"

    var rounds: Int
    var seconds: Int
    var names: [String]
    private var figures: [String: [Figure: [Double]]] = [:]

    init(rounds: Int, seconds: Int, names: [String]) {
        self.rounds = rounds
        self.seconds = seconds
        self.names = names
    }

    mutating func add(_ round: [Figure: Double], to name: String) {
        for (figure, value) in round { figures[name, default: [:]][figure, default: []].append(value) }
    }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }

    var table: String {
        let title = "\(rounds) rounds of \(seconds) s, both ends on this machine; median (least … most)"
        var lines = [title, ""]
        for figure in Figure.allCases {
            lines.append(figure.rawValue)
            let base = figures[Self.reference]?[figure].map(Self.median)
            for name in names {
                guard let values = figures[name]?[figure], let least = values.min(), let most = values.max()
                else {
                    continue
                }
                let median = Self.median(values)
                var line = "  " + Self.pad(name, to: 16) + Self.pad(Self.number(median), to: 9)
                line += Self.pad("(\(Self.number(least)) … \(Self.number(most)))", to: 22)
                if let base, base > 0 { line += "\(Self.number(median / base)) x \(Self.reference)" }
                lines.append(line)
            }
        }
        return lines.joined(separator: "\n")
    }

    private static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
    }

    /// Three digits that matter are more than the machine gives.
    private static func number(_ value: Double) -> String {
        let scaled = Int((value * 100).rounded())
        let cents = scaled % 100
        return "\(scaled / 100).\(cents < 10 ? "0" : "")\(cents)"
    }

    private static func pad(_ text: String, to width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}
