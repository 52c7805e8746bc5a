internal import FoundationEssentials

/// A run as a table for people. It fits in 110 columns.
struct Report {
    var machine: Machine
    var rounds: Int
    var seconds: Int
    var implementations: [Implementation]
    var absent: [(name: String, reason: String)]
    /// What ratios are taken to; nil when it was not measured.
    var reference: String?
    var measurements: Measurements

    private static let nameWidth = 20
    private static let width = 110

    var table: String {
        var lines = [
            machine.line,
            "\(rounds) round\(rounds == 1 ? "" : "s") of \(seconds) s a measurement, both ends on this machine",
            "",
        ]
        for figure in Figure.allCases where implementations.contains(where: { has($0, figure) }) {
            lines.append("\(figure.title) [\(figure.unit), \(figure.better.rawValue) is better]")
            if lines.count == 4 { lines.append(heading) }
            lines += implementations.compactMap { row($0.name, figure) }
            lines.append("")
        }
        lines += notes
        return lines.joined(separator: "\n")
    }

    private func has(_ implementation: Implementation, _ figure: Figure) -> Bool {
        measurements.statistics(implementation.name, figure) != nil
    }

    private var heading: String {
        "  " + Self.left("", Self.nameWidth) + Self.right("median", 10) + Self.right("least … most", 22)
            + Self.right("rounds", 8) + (reference.map { "    against \($0)" } ?? "")
    }

    private func row(_ name: String, _ figure: Figure) -> String? {
        guard let statistics = measurements.statistics(name, figure) else { return nil }
        let range = "\(Self.number(statistics.least)) … \(Self.number(statistics.most))"
        var line = "  " + Self.left(name, Self.nameWidth) + Self.right(Self.number(statistics.median), 10)
        line += Self.right(range, 22) + Self.right("\(statistics.count)", 8)
        if let ratio = measurements.ratio(name, figure, to: reference) {
            line += Self.right("\(Self.number(ratio)) x", 12)
        }
        return line
    }

    private var notes: [String] {
        var lines = ["What was run:"]
        lines += implementations.map { "  " + Self.left($0.name, Self.nameWidth) + $0.program }
        let failed = measurements.troubles.map { ($0.name, "round \($0.round): \($0.reason)") }
        if !failed.isEmpty { lines.append("Failed:") }
        lines += failed.flatMap { Self.note($0.0, $0.1) }
        if !absent.isEmpty { lines.append("Not measured:") }
        lines += absent.flatMap { Self.note($0.name, $0.reason) }
        if reference == nil { lines.append("No ratios: the reference was not measured.") }
        return lines
    }

    // MARK: Text

    /// A reason may quote a daemon, so it is broken at spaces to stay in the table's width.
    private static func note(_ name: String, _ reason: String) -> [String] {
        var lines: [String] = []
        var line = "  " + left(name, nameWidth)
        var isFresh = true
        for word in reason.split(separator: " ") {
            if !isFresh, line.count + 1 + word.count > width {
                lines.append(line)
                line = "  " + left("", nameWidth)
                isFresh = true
            }
            line += (isFresh ? "" : " ") + word
            isFresh = false
        }
        return lines + [line]
    }

    /// Three digits that matter are more than the machine gives.
    static func number(_ value: Double) -> String {
        let places = value >= 100 || value == 0 ? 0 : value >= 10 ? 1 : value >= 0.1 ? 2 : 3
        var scale = 1
        for _ in 0..<places { scale *= 10 }
        let scaled = Int((value * Double(scale)).rounded())
        guard places > 0 else { return "\(scaled)" }
        let fraction = "\(scaled % scale)"
        return "\(scaled / scale).\(String(repeating: "0", count: places - fraction.count))\(fraction)"
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(1, width - text.count)) + text
    }
}
