/// Keeps keys that stand in the wrong place out of errors.
enum Redaction {
    /// Whether there could be a key in `text`: then it must not be repeated. A path may be as long, but has
    /// no `=` behind it.
    static func looksLikeKey(_ text: String) -> Bool {
        runs(of: text).contains { $0.utf8.count >= 40 && ($0.hasSuffix("=") || !text.hasPrefix("/")) }
    }

    /// `text` with every run of `length` characters that could be from a key replaced.
    static func hidingKeys(in text: String, from length: Int = 40) -> String {
        runs(of: text).map { $0.utf8.count >= length && $0.utf8.allSatisfy(isBase64) ? "…" : $0 }.joined()
    }

    /// `text` cut where characters of base64 begin and end.
    private static func runs(of text: String) -> [String] {
        var runs: [[UInt8]] = []
        for byte in text.utf8 {
            if let last = runs.last?.last, isBase64(last) == isBase64(byte) {
                runs[runs.count - 1].append(byte)
            } else {
                runs.append([byte])
            }
        }
        return runs.map { String(decoding: $0, as: UTF8.self) }
    }

    private static func isBase64(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "+"), UInt8(ascii: "/"), UInt8(ascii: "="):
            true
        default: false
        }
    }
}
