internal import Synchronization

/// A fixed array of atomic words, zero at first.
///
/// Concurrency: the array is immutable, its words are atomics.
@safe final class AtomicArray: @unchecked Sendable {
    let count: Int
    private let words: UnsafeMutablePointer<Atomic<UInt>>

    init(count: Int) {
        self.count = count
        unsafe words = .allocate(capacity: count)
        for index in 0..<count { unsafe (words + index).initialize(to: Atomic(0)) }
    }

    deinit {
        unsafe words.deinitialize(count: count)
        unsafe words.deallocate()
    }

    subscript(index: Int) -> Atomic<UInt> {
        @inline(__always)
        unsafeAddress {
            precondition(index >= 0 && index < count)
            return unsafe UnsafePointer(words + index)
        }
    }
}
