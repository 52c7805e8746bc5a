internal import Synchronization

/// Keypairs by local index: the low bits of an index are its slot, the rest is random, so that a lookup is
/// one load and one comparison, with no lock and no reference counting.
///
/// Concurrency: control reserves, installs and releases (the ledger, behind a lock that only control takes).
/// Data threads look up inside a batch. A released keypair is let go, and so wiped, by `reclaim`, in two waits for
/// every data thread to finish the batch that it was in:
///
/// 1. `release` takes it out of its slot. A batch that found it there before may still publish it for sending
///    (`TunnelPath.supersede`); once all of these have ended nobody can.
/// 2. Then it is withdrawn from its path. A batch that found it there before may still seal under it; once all of these
///    have ended nobody holds it.
///
/// One wait is not enough: an inbound batch may publish after `release` looked, and an outbound batch that begins
/// later may find that. The order of releasing, publishing and withdrawing on the part of control does not matter.
@safe package final class KeypairTable: Sendable {
    private struct Retired {
        enum Stage {
            /// No message finds it any more.
            case unlinked
            /// Nor does a packet to be sent.
            case withdrawn
        }

        let keypair: Keypair
        let index: UInt32
        var stage = Stage.unlinked
        /// Epochs of the threads when it came to this stage.
        var epochs: [(thread: DataThreadEpoch, at: UInt64)]
    }

    private struct Ledger {
        /// The index each slot is reserved for; freed after reclaim, so that a slot is never in two hands.
        var reserved: [UInt32: UInt32] = [:]
        var keypairs: [UInt32: Keypair] = [:]
        var retired: [Retired] = []
        var epochs: [DataThreadEpoch] = []

        var epochsNow: [(thread: DataThreadEpoch, at: UInt64)] { epochs.map { ($0, $0.current) } }

        /// Whether a thread may still be in the batch that it was in at that time. One that registered later never saw
        /// what was taken away before; one that has ended holds nothing.
        func isHeld(since epochs: [(thread: DataThreadEpoch, at: UInt64)]) -> Bool {
            epochs.contains { epoch in
                !epoch.thread.hasPassed(epoch.at) && self.epochs.contains { $0 === epoch.thread }
            }
        }
    }

    private let slots: AtomicArray
    private let mask: UInt32
    /// How many pairs of data threads share the peers.
    package let workers: Int
    private let ledger = Mutex(Ledger())

    /// Indices to have room for a peer. It holds at most four: three keypairs and a handshake. As many more may wait
    /// for the data threads to let go of them, and workers do not divide the indices evenly.
    package static let indicesPerPeer = 8

    /// `capacity` is rounded up to a power of two.
    package init(capacity: Int, workers: Int = 1) {
        precondition((1...Self.workerLimit).contains(workers))
        self.workers = workers
        var size = 16
        while size < capacity { size *= 2 }
        slots = AtomicArray(count: size)
        mask = UInt32(size - 1)
    }

    package var capacity: Int { slots.count }

    /// Workers that one byte of the index can tell apart evenly enough.
    package static let workerLimit = 64

    /// The worker that a peer's packets are received by: all of them, so that nothing overtakes and one thread
    /// owns the replay window.
    package func worker(of peer: PeerID) -> Int { peer.rawValue % workers }

    /// The worker that a message with this receiver index belongs to. The kernel's filter computes the same
    /// from the message's fifth byte.
    @inline(__always)
    package static func worker(ofIndex index: UInt32, among workers: Int) -> Int {
        Int(index & 0xff) % workers
    }

    /// The worker that takes a transport message, which control calls for what came to another thread. Throws where no
    /// keypair is installed for it, so that a stranger's message troubles nobody else.
    package func worker(for message: [UInt8]) throws(DropReason) -> Int {
        guard message.count >= Protocol.transportOverhead else { throw .messageLengthWrong }
        let index = message.littleEndianWord(at: 4)
        guard ledger.withLock({ $0.keypairs[index] != nil }) else { throw .receiverIndexUnknown }
        return Self.worker(ofIndex: index, among: workers)
    }

    /// Each data thread registers its epoch before its first batch.
    package func register(_ epoch: DataThreadEpoch) { ledger.withLock { $0.epochs.append(epoch) } }

    /// For a data thread that has ended.
    package func unregister(_ epoch: DataThreadEpoch) {
        ledger.withLock { $0.epochs.removeAll { $0 === epoch } }
        reclaim()
    }

    /// A random index that nobody has and that is the worker's, or nil when there is none left.
    package func reserveIndex(for worker: Int = 0, entropy: inout some Entropy) -> UInt32? {
        let random = entropy.next(UInt32.self)
        let start = random & mask
        return ledger.withLock { ledger in
            guard ledger.reserved.count < slots.count else { return nil }
            for offset in 0...mask {
                let slot = (start &+ offset) & mask
                let index = random & ~mask | slot
                guard ledger.reserved[slot] == nil, Self.worker(ofIndex: index, among: workers) == worker
                else { continue }
                ledger.reserved[slot] = index
                return index
            }
            return nil
        }
    }

    /// From now on messages to `keypair.localIndex`, which must be reserved, find it.
    package func install(_ keypair: Keypair) {
        ledger.withLock { ledger in
            precondition(ledger.reserved[keypair.localIndex & mask] == keypair.localIndex)
            ledger.keypairs[keypair.localIndex] = keypair
            unsafe slots[Int(keypair.localIndex & mask)].store(
                UInt(bitPattern: Unmanaged.passUnretained(keypair).toOpaque()),
                ordering: .sequentiallyConsistent)
        }
    }

    /// Frees a reserved index, and lets its keypair go, if one was installed, when the data threads no longer
    /// hold it. Control publishes it no more.
    package func release(_ index: UInt32) {
        ledger.withLock { ledger in
            guard ledger.reserved[index & mask] == index else { return }
            guard let keypair = ledger.keypairs.removeValue(forKey: index) else {
                ledger.reserved[index & mask] = nil
                return
            }
            slots[Int(index & mask)].store(0, ordering: .sequentiallyConsistent)
            ledger.retired.append(Retired(keypair: keypair, index: index, epochs: ledger.epochsNow))
        }
        reclaim()
    }

    /// Lets go of what no data thread can still hold. Cheap; control calls it once a round of its loop.
    package func reclaim() {
        ledger.withLock { ledger in
            guard !ledger.retired.isEmpty else { return }
            var held: [Retired] = []
            for var retired in ledger.retired {
                if retired.stage == .unlinked, !ledger.isHeld(since: retired.epochs) {
                    retired.keypair.path.withdraw(retired.keypair)
                    retired.stage = .withdrawn
                    retired.epochs = ledger.epochsNow
                }
                if retired.stage == .withdrawn, !ledger.isHeld(since: retired.epochs) {
                    ledger.reserved[retired.index & mask] = nil
                } else {
                    held.append(retired)
                }
            }
            ledger.retired = held
        }
    }

    /// Call within a batch only.
    @inline(__always)
    func lookup(_ index: UInt32) -> Unmanaged<Keypair>? {
        let word = slots[Int(index & mask)].load(ordering: .sequentiallyConsistent)
        guard let opaque = unsafe UnsafeRawPointer(bitPattern: word) else { return nil }
        let keypair = unsafe Unmanaged<Keypair>.fromOpaque(opaque)
        return unsafe keypair._withUnsafeGuaranteedRef { $0.localIndex == index } ? keypair : nil
    }
}
