internal import FoundationEssentials
internal import GatewayCore

/// Nanoseconds an operation, of every work and round.
struct MicroReport {
    private var names: [String] = []
    private var values: [String: [Double]] = [:]
    private var references: [String: String] = [:]

    mutating func add(_ name: String, _ elapsed: Duration, _ count: Int, against reference: String? = nil) {
        if values[name] == nil { names.append(name) }
        let (seconds, attoseconds) = elapsed.components
        let nanoseconds = Double(seconds) * 1e9 + Double(attoseconds) / 1e9
        values[name, default: []].append(nanoseconds / Double(count))
        references[name] = reference
    }

    var table: String {
        var lines = [Self.line("", "ns", "least … most", "against libsodium")]
        for name in names {
            guard let statistics = values[name].flatMap({ Statistics($0) }) else { continue }
            let range = "\(Report.number(statistics.least)) … \(Report.number(statistics.most))"
            let ratio = ratio(name).map { Report.number($0) + " x" } ?? ""
            lines.append(Self.line(name, Report.number(statistics.median), range, ratio))
        }
        return lines.joined(separator: "\n")
    }

    /// The median of the ratios round by round: what slows the machine in a round slows both.
    private func ratio(_ name: String) -> Double? {
        guard let reference = references[name].flatMap({ values[$0] }), let own = values[name] else {
            return nil
        }
        return Statistics(zip(own, reference).map { $0 / $1 })?.median
    }

    private static func line(_ name: String, _ median: String, _ range: String, _ ratio: String) -> String {
        func right(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(1, width - text.count)) + text
        }
        let left = name + String(repeating: " ", count: max(1, 66 - name.count))
        return left + right(median, 8) + right(range, 18) + right(ratio, 19)
    }

    func write(to path: String) throws {
        struct Row: Encodable {
            var values: [Double]
            var ratio: Double?
        }
        var rows: [String: Row] = [:]
        for name in names { rows[name] = Row(values: values[name] ?? [], ratio: ratio(name)) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(rows).write(to: URL(filePath: path))
    }
}
