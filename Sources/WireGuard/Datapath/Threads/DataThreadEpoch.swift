internal import Synchronization

/// A data thread's promise to the control thread: between two batches it holds no keypair.
///
/// Concurrency: one data thread enters and leaves; control reads. Odd while a batch is under way. A keypair
/// that was taken out of every table before control saw an even or a later epoch can no longer be in use.
package final class DataThreadEpoch: Sendable {
    private let count = Atomic<UInt64>(0)

    package init() {}

    @inline(__always)
    package func enter() { count.wrappingAdd(1, ordering: .sequentiallyConsistent) }

    @inline(__always)
    package func leave() { count.wrappingAdd(1, ordering: .releasing) }

    var current: UInt64 { count.load(ordering: .sequentiallyConsistent) }

    func hasPassed(_ epoch: UInt64) -> Bool { epoch & 1 == 0 || current != epoch }
}
