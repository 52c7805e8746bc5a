/// The lab's own failures: what was not as it had to be.
struct LabError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Asks again and again until the condition holds. The limit is what a busy machine may need, not what is
/// good: no test of the lab judges speed.
func eventually(
    _ what: String, within limit: Duration = .seconds(40), every pause: Duration = .milliseconds(50),
    _ condition: () async throws -> Bool
) async throws {
    let clock = ContinuousClock()
    let deadline = clock.now + limit
    var lastError: (any Error)?
    repeat {
        do {
            if try await condition() { return }
            lastError = nil
        } catch {
            lastError = error
        }
        try await Task.sleep(for: pause)
    } while clock.now < deadline
    let detail = lastError.map { ": \($0)" } ?? ""
    throw LabError("not within \(limit): \(what)\(detail)")
}
