internal import FoundationEssentials
internal import GatewayCore

/// A run as JSON: every value of every round, in round order, with what the table makes of them.
struct ReportFile: Encodable {
    private struct Row: Encodable {
        var unit: String
        var better: String
        var values: [Double]
        var median: Double
        var ratio: Double?
    }

    private struct Subject: Encodable {
        var name: String
        var program: String
        var figures: [String: Row]
    }

    private struct Note: Encodable {
        var name: String
        var round: Int?
        var reason: String
    }

    private var machine: Machine
    private var rounds: Int
    private var seconds: Int
    private var reference: String?
    private var implementations: [Subject]
    private var failed: [Note]
    private var notMeasured: [Note]

    init(_ report: Report) {
        machine = report.machine
        rounds = report.rounds
        seconds = report.seconds
        reference = report.reference
        let measurements = report.measurements
        implementations = report.implementations.map { implementation in
            let name = implementation.name
            var figures: [String: Row] = [:]
            for (figure, values) in measurements.values[name] ?? [:] {
                guard let statistics = Statistics(values) else { continue }
                figures[figure.rawValue] = Row(
                    unit: figure.unit, better: figure.better.rawValue, values: values,
                    median: statistics.median,
                    ratio: measurements.ratio(name, figure, to: report.reference))
            }
            return Subject(name: name, program: implementation.program, figures: figures)
        }
        failed = measurements.troubles.map { Note(name: $0.name, round: $0.round, reason: $0.reason) }
        notMeasured = report.absent.map { Note(name: $0.name, reason: $0.reason) }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(filePath: path))
    }
}
