package import ControlAPI
internal import Synchronization

/// Hands each event to those who follow.
///
/// Concurrency: control publishes, and never waits for a reader: each follower has a queue of its own, and
/// loses the oldest of it when it is too slow. A follower is of one reader; it is gone when that lets go of
/// it.
package final class EventHub: Sendable {
    package static let followerLimit = 32

    private struct Entry: Sendable {
        weak var follower: EventFollower?
    }

    private struct State: Sendable {
        var entries: [Entry] = []
        var hasEnded = false
    }

    private let state = Mutex(State())
    private let limit: Int

    package init(limit: Int = EventHub.followerLimit) { self.limit = limit }

    /// What is published from now on.
    package func follow(capacity: Int = EventFollower.capacity) throws(APIError) -> EventFollower {
        let follower = EventFollower(capacity: capacity)
        try state.withLock { state throws(APIError) in
            guard !state.hasEnded else {
                throw APIError(code: .unavailable, message: "vgwd is stopping")
            }
            state.entries.removeAll { $0.follower == nil }
            guard state.entries.count < limit else {
                throw APIError(
                    code: .unavailable, message: "\(limit) clients follow the events already",
                    hint: "end one of them, or ask without follow")
            }
            state.entries.append(Entry(follower: follower))
        }
        return follower
    }

    package func publish(_ event: GatewayEvent) {
        for follower in followers() { follower.offer(event) }
    }

    /// Each follower gets what it has not read yet, and then the end. Nobody can follow any more.
    package func end() {
        state.withLock { $0.hasEnded = true }
        for follower in followers() { follower.end() }
    }

    private func followers() -> [EventFollower] {
        state.withLock { state in state.entries.compactMap(\.follower) }
    }
}

/// Concurrency: one task reads; any thread offers and ends.
package final class EventFollower: Sendable {
    /// Events that wait for the reader.
    package static let capacity = 256

    private typealias Waiter = CheckedContinuation<[EventLine]?, Never>

    private struct State: Sendable {
        var queue: Ring<GatewayEvent>
        var lost: UInt64 = 0
        var waiter: Waiter?
        var hasEnded = false
    }

    private let state: Mutex<State>

    fileprivate init(capacity: Int) { state = Mutex(State(queue: Ring(capacity: capacity))) }

    fileprivate func offer(_ event: GatewayEvent) {
        let waiter = state.withLock { state -> Waiter? in
            guard !state.hasEnded else { return nil }
            guard let waiter = state.waiter else {
                if state.queue.append(event) { state.lost += 1 }
                return nil
            }
            state.waiter = nil
            return waiter
        }
        waiter?.resume(returning: [.event(event)])
    }

    /// Everything since the last call, once there is something; nil at the end.
    package func next() async -> [EventLine]? {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (isReady, lines) = state.withLock { state -> (Bool, [EventLine]?) in
                    if !state.queue.isEmpty { return (true, Self.take(&state)) }
                    if state.hasEnded { return (true, nil) }
                    state.waiter = continuation
                    return (false, nil)
                }
                if isReady { continuation.resume(returning: lines) }
            }
        } onCancel: {
            end()
        }
    }

    private static func take(_ state: inout State) -> [EventLine] {
        let lost: [EventLine] = state.lost == 0 ? [] : [.lost(count: state.lost)]
        state.lost = 0
        return lost + state.queue.takeAll().map { .event($0) }
    }

    package func end() {
        let waiter = state.withLock { state -> Waiter? in
            state.hasEnded = true
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: nil)
    }
}

/// The answer to a question for events.
package struct EventPage: Sendable {
    package var lines: [EventLine]
    /// Follows the events after `lines`; nil unless that was asked for.
    package var follower: EventFollower?
}
