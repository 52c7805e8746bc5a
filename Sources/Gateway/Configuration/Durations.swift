/// Durations as the configuration writes them: `200ms`, `25s`, `2m`, `1h`.
enum Durations {
    static func parse(_ text: String) -> Duration? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty, digits.utf8.count <= 9, let number = Int64(digits) else { return nil }
        switch text.dropFirst(digits.count) {
        case "ms": return .milliseconds(number)
        case "s": return .seconds(number)
        case "m": return .seconds(60 * number)
        case "h": return .seconds(3600 * number)
        default: return nil
        }
    }
}
