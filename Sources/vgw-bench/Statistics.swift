internal import GatewayCore

/// The values of one figure over all rounds.
struct Statistics {
    let least: Double
    let median: Double
    let most: Double
    let count: Int

    /// Nil without values.
    init?(_ values: [Double]) {
        let sorted = values.sorted()
        guard let least = sorted.first, let most = sorted.last else { return nil }
        let middle = sorted.count / 2
        self.least = least
        self.most = most
        count = sorted.count
        median = sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
    }
}
