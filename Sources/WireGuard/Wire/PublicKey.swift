/// A Curve25519 public key: 32 bytes, the identity of a peer.
package struct PublicKey: Hashable, Sendable {
    package static let count = 32

    // Four words, not an array: the key is a dictionary key of every handshake and must not allocate.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.count else { return nil }
        var words: [UInt64] = [0, 0, 0, 0]
        for (offset, byte) in bytes.enumerated() {
            words[offset / 8] |= UInt64(byte) << UInt64(8 * (offset % 8))
        }
        self.words = (words[0], words[1], words[2], words[3])
    }

    package var bytes: [UInt8] {
        [words.0, words.1, words.2, words.3].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
        }
    }

    package static func == (a: PublicKey, b: PublicKey) -> Bool { a.words == b.words }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
        hasher.combine(words.2)
        hasher.combine(words.3)
    }
}

extension PublicKey: CustomStringConvertible {
    /// Base64, the form people exchange.
    package init?(base64 text: String) {
        guard let bytes = Base64.decode(text, count: Self.count) else { return nil }
        self.init(bytes)
    }

    /// Hexadecimal, the form of the `wg` control socket.
    package init?(hex text: String) {
        guard let bytes = Hex.decode(text, count: Self.count) else { return nil }
        self.init(bytes)
    }

    package var base64: String { Base64.encode(bytes) }
    package var hex: String { Hex.encode(bytes) }
    package var description: String { base64 }
}
