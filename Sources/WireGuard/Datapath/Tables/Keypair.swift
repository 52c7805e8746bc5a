internal import Synchronization

/// The keys of one session, both directions (whitepaper, section 5.4.5).
///
/// Concurrency: created and retired by the control thread through ``KeypairTable``. The outbound thread and
/// the control thread seal, sharing the send counter; the inbound thread opens, and owns the replay window
/// elsewhere. Everything else is immutable.
package final class Keypair: Sendable {
    package let role: Role
    /// What the peer writes in the messages it sends us.
    package let localIndex: UInt32
    /// What we write in the messages that we send.
    package let remoteIndex: UInt32
    package let createdAt: Instant
    package let path: TunnelPath
    /// Grows from keypair to keypair and, unlike an index, is never given twice in the life of the process: it tells
    /// which of two keypairs is newer, and whose replay window a slot holds.
    let serial = Keypair.nextSerial.wrappingAdd(1, ordering: .relaxed).newValue

    private static let nextSerial = Atomic<UInt64>(0)

    let sendKey: TransportKey
    let receiveKey: TransportKey
    private let nextCounter: Atomic<UInt64>
    /// True once the inbound thread has heard the peer under this key and has done what follows from that.
    let heard = Atomic<Bool>(false)
    /// Inbound asks for a rekey once a keypair.
    let receiveRekeyAsked = Atomic<Bool>(false)

    /// `firstCounter` is 0 outside tests of the counter's end.
    package init(
        role: Role, localIndex: UInt32, remoteIndex: UInt32, send: TransportKey, receive: TransportKey,
        path: TunnelPath, createdAt: Instant, firstCounter: UInt64 = 0
    ) {
        self.role = role
        self.localIndex = localIndex
        self.remoteIndex = remoteIndex
        self.createdAt = createdAt
        self.path = path
        sendKey = send
        receiveKey = receive
        nextCounter = Atomic(firstCounter)
    }

    /// How many messages have been sealed under this key.
    package var sendCounter: UInt64 { nextCounter.load(ordering: .relaxed) }

    /// The initiator has the responder's proof in its response; the responder has none before it hears the key used.
    var isConfirmed: Bool { role == .initiator || heard.load(ordering: .relaxed) }

    package func isExpired(at now: Instant) -> Bool {
        now >= createdAt + Protocol.rejectAfterTime || sendCounter >= Protocol.rejectAfterMessages
    }

    /// Whether a message that was just sent under it asks for a new one: only the initiator minds the time.
    func isRekeyDue(at now: Instant) -> Bool {
        let isOld = now.nanoseconds >= createdAt.nanoseconds &+ rekeyAfter
        return (isOld && role == .initiator) || sendCounter >= Protocol.rekeyAfterMessages
    }

    /// Takes `count` consecutive counter values, each given out once in the life of the key; nil at the end
    /// of them.
    ///
    /// Looking before adding keeps the sum from wrapping: at most a batch a thread goes past the limit, which
    /// lies 2^13 before the end.
    @inline(__always)
    func takeCounters(_ count: Int) -> UInt64? {
        guard nextCounter.load(ordering: .relaxed) <= Protocol.rejectAfterMessages &- UInt64(count) else {
            return nil
        }
        return nextCounter.wrappingAdd(UInt64(count), ordering: .relaxed).oldValue
    }
}

private let rekeyAfter = UInt64(Protocol.rekeyAfterTime.wholeNanoseconds)
