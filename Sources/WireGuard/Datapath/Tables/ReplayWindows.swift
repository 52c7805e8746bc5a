/// The replay window of each keypair, by slot of the keypair table. Memory is taken, and touched, only for
/// slots in use.
///
/// Concurrency: a local of the inbound thread.
@safe struct ReplayWindows: ~Copyable {
    private let mask: UInt32
    private let windows: UnsafeMutablePointer<ReplayWindow>
    /// Serial of the keypair that the window belongs to; 0 while the window's memory is untouched.
    private let owners: UnsafeMutablePointer<UInt64>

    init(capacity: Int) {
        mask = UInt32(capacity - 1)
        unsafe windows = .allocate(capacity: capacity)
        unsafe owners = .allocate(capacity: capacity)
        unsafe owners.initialize(repeating: 0, count: capacity)
    }

    deinit {
        unsafe windows.deallocate()
        unsafe owners.deallocate()
    }

    @inline(__always)
    mutating func accept(_ counter: UInt64, keypair: Keypair) -> Bool {
        let slot = Int(keypair.localIndex & mask)
        if unsafe owners[slot] != keypair.serial {
            unsafe (windows + slot).initialize(to: ReplayWindow())
            unsafe owners[slot] = keypair.serial
        }
        return unsafe windows[slot].accept(counter)
    }
}
