import FoundationEssentials
import WireGuard

/// What the tests of Wire, Crypto and Noise share: the public vectors (Vectors/SOURCES.txt) and bytes as
/// text.
enum Vectors {
    /// Decodes `Vectors/NAME.json`, beside this file.
    static func load<Content: Decodable>(_ name: String, as: Content.Type) throws -> Content {
        let folder = #filePath.split(separator: "/").dropLast().joined(separator: "/")
        let file = URL(filePath: "/\(folder)/Vectors/\(name).json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Content.self, from: Data(contentsOf: file))
    }
}

extension [UInt8] {
    /// Pairs of hexadecimal digits; spaces and line ends between them are for the reader.
    init(hex text: String) {
        let digits = text.compactMap { $0.hexDigitValue }
        self = stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] * 16 + digits[$0 + 1]) }
    }

    /// The same with one bit the other way round.
    func flipping(bit: Int) -> [UInt8] {
        var copy = self
        copy[bit / 8] ^= 1 << UInt8(bit % 8)
        return copy
    }
}

extension SecretBytes {
    /// What the code under test has no way to do.
    var revealed: [UInt8] {
        unsafe [UInt8](UnsafeRawBufferPointer(start: pointer, count: count))
    }
}

extension Keypair {
    func seal(_ plaintext: [UInt8], mtu: Int) -> [UInt8]? {
        var chacha = ChaCha20Poly1305()
        return seal(plaintext, mtu: mtu, by: &chacha)
    }
}

extension TransportKey {
    func sealed(_ plaintext: [UInt8], counter: UInt64) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: plaintext.count + Self.tagSize)
        var chacha = ChaCha20Poly1305()
        unsafe plaintext.withUnsafeBytes { plaintext in
            unsafe output.withUnsafeMutableBytes { output in
                // An empty array has no address; the cipher does not read it.
                let start = unsafe plaintext.baseAddress ?? UnsafeRawPointer(output.baseAddress!)
                unsafe seal(
                    counter: counter, plaintext: start, count: plaintext.count, into: output.baseAddress!,
                    by: &chacha)
            }
        }
        return output
    }

    /// In place, as the data path does it.
    func opened(_ ciphertext: [UInt8], counter: UInt64) -> [UInt8]? {
        guard !ciphertext.isEmpty else { return nil }
        var buffer = ciphertext
        var chacha = ChaCha20Poly1305()
        let isAuthentic = unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe open(
                counter: counter, ciphertext: UnsafeRawPointer(buffer.baseAddress!), count: buffer.count,
                into: buffer.baseAddress!, by: &chacha)
        }
        return isAuthentic ? Array(buffer.dropLast(Self.tagSize)) : nil
    }
}

/// Gives out what a vector prescribes, in order, and then zeros.
struct ScriptedEntropy: Entropy {
    var script: [UInt8]

    mutating func fill(_ bytes: UnsafeMutableRawBufferPointer) {
        for index in bytes.indices {
            unsafe bytes[index] = script.isEmpty ? 0 : script.removeFirst()
        }
    }
}

extension Instant {
    /// So many seconds after the origin that all tests share.
    static func at(_ seconds: Double) -> Instant {
        Instant(nanoseconds: 1_000_000_000_000 + UInt64(seconds * 1_000_000_000))
    }
}
