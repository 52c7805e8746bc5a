internal import GatewayCore

/// All that a run has measured, and what it could not.
struct Measurements: Sendable {
    struct Trouble: Sendable {
        var name: String
        var round: Int
        var reason: String
    }

    private(set) var values: [String: [Figure: [Double]]] = [:]
    private(set) var troubles: [Trouble] = []

    mutating func add(_ figures: [Figure: Double], to name: String) {
        for (figure, value) in figures { values[name, default: [:]][figure, default: []].append(value) }
    }

    mutating func addTrouble(_ name: String, round: Int, _ reason: String) {
        troubles.append(Trouble(name: name, round: round, reason: reason))
    }

    func statistics(_ name: String, _ figure: Figure) -> Statistics? {
        Statistics(values[name]?[figure] ?? [])
    }

    /// Median against median; nil where either is missing or the reference is nothing.
    func ratio(_ name: String, _ figure: Figure, to reference: String?) -> Double? {
        guard let reference, let own = statistics(name, figure), let base = statistics(reference, figure),
            base.median > 0
        else { return nil }
        return own.median / base.median
    }
}
