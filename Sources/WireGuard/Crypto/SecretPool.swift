internal import CSodium
internal import Synchronization

/// Locked memory, split into slots for keys. A `sodium_malloc` of its own for each key would cost five system
/// calls (27 µs here, most of a handshake), a locked page of the 8 MB that a service may lock, and four
/// mappings.
///
/// The slots of one slab lie between guard pages and a canary, left out of core files and, unless the process may not
/// (`isLocked`), locked against swapping. There are two sizes: for a key, and for an AES key schedule. A slot is wiped when it comes back.
/// Slabs are kept for the next keys.
///
/// Concurrency: any thread may take and give back; the mutex guards the list of free slots, nothing in them.
package enum SecretPool {
    static let slotSizes = [128, 512]
    /// Two pages: a slab ends at a page's end, so slots are aligned to their size.
    private static let slabSize = 8192

    /// Addresses of free slots, all of them zeroed, by size.
    private static let free = Mutex<[[UInt]]>([[], []])
    private static let lockHasFailed = Atomic(false)

    /// Whether all of it is locked. What is not can be written to swap: the process may lock no more
    /// (RLIMIT_MEMLOCK).
    package static var isLocked: Bool { !lockHasFailed.load(ordering: .relaxed) }

    /// `count` zeroed bytes. Traps when there is no memory: running on with an unprotected key would break a
    /// promise silently.
    static func take(_ count: Int) -> UnsafeMutableRawPointer {
        precondition(sodiumIsReady, "libsodium could not be initialised")
        guard let kind = slotSizes.firstIndex(where: { count <= $0 }) else { return unsafe allocate(count) }
        return unsafe free.withLock { free in
            if free[kind].isEmpty {
                let slab = unsafe allocate(slabSize)
                for offset in stride(from: 0, to: slabSize, by: slotSizes[kind]) {
                    free[kind].append(UInt(bitPattern: unsafe slab + offset))
                }
            }
            guard let slot = unsafe UnsafeMutableRawPointer(bitPattern: free[kind].removeLast()) else {
                preconditionFailure("a slot has an address")
            }
            return unsafe slot
        }
    }

    /// Wipes what `take(count)` gave, and takes it back.
    static func giveBack(_ memory: UnsafeMutableRawPointer, _ count: Int) {
        guard let kind = slotSizes.firstIndex(where: { count <= $0 }) else {
            return unsafe sodium_free(memory)
        }
        unsafe sodium_memzero(memory, slotSizes[kind])
        let address = UInt(bitPattern: memory)
        free.withLock { $0[kind].append(address) }
    }

    private static func allocate(_ count: Int) -> UnsafeMutableRawPointer {
        guard let memory = unsafe sodium_malloc(count) else {
            fatalError("no locked memory for a key: raise LimitMEMLOCK (ulimit -l)")
        }
        // `sodium_malloc` has tried, and tells nobody when it could not.
        if unsafe sodium_mlock(memory, count) != 0 { lockHasFailed.store(true, ordering: .relaxed) }
        unsafe sodium_memzero(memory, count)
        return unsafe memory
    }
}
