/// Text from elsewhere that goes to a terminal, into a log or into a message: a control character in it could be an order
/// to the terminal, and a mark of direction could show it as another text.
package enum Printable {
    /// Whether a text is shown as it is.
    package static func isPlain(_ text: String) -> Bool {
        // Nearly every text is of these: that is seen faster.
        text.utf8.allSatisfy { 0x20..<0x7f ~= $0 } || text.unicodeScalars.allSatisfy { !isOrder($0) }
    }

    /// With each such character as `\u{1b}`. Line ends stay where `keepsLines`.
    package static func escaping(_ text: String, keepsLines: Bool = false) -> String {
        guard !isPlain(text) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if isOrder(scalar), !(keepsLines && scalar == "\n") {
                result += "\\u{\(String(scalar.value, radix: 16))}"
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// With a space for each such character, line ends too.
    package static func blanking(_ text: String) -> String {
        guard !isPlain(text) else { return text }
        var result = ""
        for scalar in text.unicodeScalars { result.unicodeScalars.append(isOrder(scalar) ? " " : scalar) }
        return result
    }

    /// Cc of Unicode, the line and paragraph separators, and what sets the direction of text (UAX #9).
    private static func isOrder(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7f..<0xa0, 0x061c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069: true
        default: false
        }
    }
}
