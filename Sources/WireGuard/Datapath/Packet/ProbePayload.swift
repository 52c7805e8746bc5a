/// How the payload of a vgwd's echo request begins: what the data threads of both ends look at.
///
///     magic (4 bytes)  silence (2 bytes)  ...     big endian
///
/// `silence` tells another vgwd for how many milliseconds it was not heard, so that it learns that what it sends is lost.
/// It is believed of the tunnel that it came by, and of no other.
package enum ProbePayload {
    /// "vgwd".
    package static let magic: UInt32 = 0x7667_7764
    static let silenceOffset = 4
    /// Nothing is said.
    private static let unsaid: UInt16 = .max

    package static func code(silence: Duration?) -> UInt16 {
        guard let silence else { return unsaid }
        return UInt16(min(max(silence.wholeNanoseconds / 1_000_000, 0), Int64(unsaid) - 1))
    }

    package static func silence(code: UInt16) -> Duration? {
        code == unsaid ? nil : .milliseconds(Int64(code))
    }
}
