internal import Glibc
package import WireGuard

/// The clocks of the system.
package enum SystemClock {
    /// CLOCK_BOOTTIME: monotonic, and counts suspends, so that a session ages while the machine sleeps.
    @inline(__always)
    package static func now() -> Instant { Instant(nanoseconds: UInt64(bitPattern: read(CLOCK_BOOTTIME))) }

    /// CLOCK_REALTIME, since 1970: for TAI64N stamps and for people. May jump.
    package static func unixNanoseconds() -> Int64 { read(CLOCK_REALTIME) }

    @inline(__always)
    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        _ = unsafe clock_gettime(clock, &time)
        return Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
    }
}
