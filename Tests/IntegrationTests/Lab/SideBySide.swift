/// Runs the cases of a test at once, a few at a time: for tests that wait most of the time and measure none of it. All
/// of them run to their ends, and what fails names its case.
func sideBySide<Case: Sendable>(
    _ cases: [Case], atOnce limit: Int = 4, _ body: @escaping @Sendable (Case) async throws -> Void
) async throws {
    let failures = await withTaskGroup(of: String?.self) { group in
        var failures: [String] = []
        for (index, each) in cases.enumerated() {
            if index >= limit, let failure = await group.next() { failures += failure.map { [$0] } ?? [] }
            group.addTask {
                do {
                    try await body(each)
                    return nil
                } catch {
                    return "\(each): \(error)"
                }
            }
        }
        return await group.reduce(into: failures) { $0 += $1.map { [$0] } ?? [] }
    }
    guard failures.isEmpty else { throw LabError(failures.joined(separator: "\n")) }
}

/// The same for every pair of two lists.
func sideBySide<First: Sendable, Second: Sendable>(
    _ first: [First], _ second: [Second], atOnce limit: Int = 4,
    _ body: @escaping @Sendable (First, Second) async throws -> Void
) async throws {
    let pairs = first.flatMap { each in second.map { (each, $0) } }
    try await sideBySide(pairs, atOnce: limit) { try await body($0.0, $0.1) }
}
