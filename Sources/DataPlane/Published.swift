internal import Synchronization

/// A value that one thread replaces and others look at often: a reader compares a generation, and takes the
/// lock only when it moved.
///
/// Concurrency: any thread may publish; each reader is a local of its thread.
final class Published<Value: Sendable>: Sendable {
    private let generation = Atomic<UInt64>(1)
    private let current: Mutex<Value>

    init(_ value: Value) { current = Mutex(value) }

    /// Returns the generation of the value: a reader that has reached it holds no older value.
    @discardableResult
    func publish(_ value: Value) -> UInt64 {
        current.withLock { $0 = value }
        return generation.wrappingAdd(1, ordering: .releasing).newValue
    }

    var value: Value { current.withLock { $0 } }

    struct Reader: ~Copyable {
        private let source: Published
        /// Generation of `value`, or of one before it.
        private(set) var generation: UInt64
        private(set) var value: Value

        init(_ source: Published) {
            self.source = source
            generation = source.generation.load(ordering: .acquiring)
            value = source.value
        }

        /// Returns true if `value` is another than before.
        @discardableResult
        mutating func refresh() -> Bool {
            let newest = source.generation.load(ordering: .acquiring)
            guard newest != generation else { return false }
            generation = newest
            value = source.value
            return true
        }
    }
}
