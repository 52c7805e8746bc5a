internal import Synchronization

/// What was dropped, by reason.
///
/// Concurrency: any thread adds and reads. Each data thread has one of its own, so that none waits for a cache
/// line of another.
package final class DropCounters: Sendable {
    private let words = AtomicArray(count: DropReason.allCases.count)

    package init() {}

    @inline(__always)
    package func add(_ reason: DropReason, count: Int = 1) {
        words[reason.index].wrappingAdd(UInt(count), ordering: .relaxed)
    }

    package subscript(reason: DropReason) -> UInt64 { UInt64(words[reason.index].load(ordering: .relaxed)) }

    /// Those that are not zero.
    package var snapshot: [DropReason: UInt64] {
        var result: [DropReason: UInt64] = [:]
        for reason in DropReason.allCases where self[reason] > 0 { result[reason] = self[reason] }
        return result
    }
}
