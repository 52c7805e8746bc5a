/// The time that an initiation carries, so that an old one cannot be played back (section 5.1): TAI64N, eight
/// bytes of seconds from 2^62 and four of nanoseconds, big endian.
package struct TAI64N: Hashable, Comparable, Sendable {
    package static let count = 12
    /// 1970-01-01 00:00:10 TAI is the Unix epoch. Leap seconds since do not matter: only order does.
    private static let unixEpoch: UInt64 = 0x4000_0000_0000_000a
    /// Stamps are rounded down to this many nanoseconds, so that they say little of our clock.
    private static let granularity: UInt32 = 1 << 24

    private var seconds: UInt64
    private var nanoseconds: UInt32

    /// Any 12 bytes: a peer's stamp is only ever compared.
    package init?(bytes: [UInt8]) {
        guard bytes.count == Self.count else { return nil }
        seconds = bytes[..<8].reduce(0) { $0 << 8 | UInt64($1) }
        nanoseconds = bytes[8...].reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// Rounded down to a multiple of 2^24 ns within the second.
    package init(unixNanoseconds: Int64) {
        var (second, fraction) = unixNanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        if fraction < 0 {
            second -= 1
            fraction += 1_000_000_000
        }
        seconds = Self.unixEpoch &+ UInt64(bitPattern: second)
        nanoseconds = UInt32(fraction) & ~(Self.granularity - 1)
    }

    package var bytes: [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: seconds >> UInt64(8 * (7 - $0))) }
            + (0..<4).map { UInt8(truncatingIfNeeded: nanoseconds >> UInt32(8 * (3 - $0))) }
    }

    /// The order of the bytes, as every implementation compares them.
    package static func < (a: TAI64N, b: TAI64N) -> Bool {
        (a.seconds, a.nanoseconds) < (b.seconds, b.nanoseconds)
    }

    /// The smallest rounded stamp that is later: what to send when the clock has not moved past the last one.
    /// At the end of time it stays where it is.
    package func next() -> TAI64N {
        var later = self
        let step = (nanoseconds & ~(Self.granularity - 1)).addingReportingOverflow(Self.granularity)
        if !step.overflow, step.partialValue < 1_000_000_000 {
            later.nanoseconds = step.partialValue
        } else if seconds < .max {
            later.seconds += 1
            later.nanoseconds = 0
        }
        return later
    }
}
