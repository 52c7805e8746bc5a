package import LinuxIO
internal import Synchronization

/// Messages for a thread that waits on an eventfd.
///
/// Concurrency: any thread posts; the owner takes all at once.
package final class Mailbox<Message: Sendable>: Sendable {
    private let messages = Mutex<[Message]>([])
    private let wake: EventFD

    package init(wake: EventFD) { self.wake = wake }

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
