package import LinuxIO
internal import Synchronization

/// A value that one thread replaces and others look at often: a reader compares a generation, and takes the
/// lock only when it moved.
///
/// Concurrency: any thread may publish; each reader is a local of its thread.
package final class Published<Value: Sendable>: Sendable {
    private let generation = Atomic<UInt64>(1)
    private let current: Mutex<Value>

    package init(_ value: Value) { current = Mutex(value) }

    /// Returns the generation of the value: a reader that has reached it holds no older value.
    @discardableResult
    package func publish(_ value: Value) -> UInt64 {
        current.withLock { $0 = value }
        return generation.wrappingAdd(1, ordering: .releasing).newValue
    }

    package var value: Value { current.withLock { $0 } }

    package struct Reader: ~Copyable {
        private let source: Published
        /// Generation of `value`, or of one before it.
        package private(set) var generation: UInt64
        package private(set) var value: Value

        package init(_ source: Published) {
            self.source = source
            generation = source.generation.load(ordering: .acquiring)
            value = source.value
        }

        /// True when `value` is another than before.
        @discardableResult
        package mutating func refresh() -> Bool {
            let newest = source.generation.load(ordering: .acquiring)
            guard newest != generation else { return false }
            generation = newest
            value = source.value
            return true
        }
    }
}

/// Messages for a thread that waits on an eventfd.
///
/// Concurrency: any thread posts; the owner takes all at once.
package final class Mailbox<Message: Sendable>: Sendable {
    private let messages = Mutex<[Message]>([])
    private let wake: EventCounter

    package init(wake: EventCounter) { self.wake = wake }

    package func post(_ message: Message) {
        messages.withLock { $0.append(message) }
        wake.signal()
    }

    /// Everything posted so far, oldest first.
    package func take() -> [Message] {
        messages.withLock { messages in
            defer { messages.removeAll(keepingCapacity: true) }
            return messages
        }
    }
}
