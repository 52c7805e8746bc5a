internal import CSodium

/// Bytes that must not leak: between guard pages, locked against swapping, left out of core files
/// (`SecretPool`), and wiped when the last owner lets go. There is no way to print them.
///
/// Concurrency: immutable once `init` has returned.
@safe package final class SecretBytes: @unchecked Sendable {
    private let storage: UnsafeMutableRawPointer
    package let count: Int

    /// `initialize` is given the zeroed bytes to fill.
    package init(count: Int, initialize: (UnsafeMutableRawPointer) -> Void) {
        let storage = unsafe SecretPool.take(count)
        unsafe initialize(storage)
        unsafe self.storage = storage
        self.count = count
    }

    package convenience init(_ bytes: some Collection<UInt8>) {
        unsafe self.init(count: bytes.count) { storage in
            for (offset, byte) in bytes.enumerated() {
                unsafe storage.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
            }
        }
    }

    deinit { unsafe SecretPool.giveBack(storage, count) }

    /// The pointer is valid while `self` lives.
    package var pointer: UnsafeRawPointer { unsafe UnsafeRawPointer(storage) }

    /// In constant time.
    package func isEqual(to other: SecretBytes) -> Bool {
        guard count == other.count else { return false }
        return unsafe sodium_memcmp(storage, other.storage, count) == 0
    }

    package var isZero: Bool {
        unsafe sodium_is_zero(storage.assumingMemoryBound(to: UInt8.self), count) == 1
    }
}

/// `sodium_init` once a process, before the first call of anything else (libsodium, "Usage").
package let sodiumIsReady: Bool = sodium_init() >= 0
