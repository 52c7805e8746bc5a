/// Text for people, in lines that a terminal shows whole.
package enum Prose {
    /// Columns of a terminal that nobody has made wider.
    package static let width = 80

    /// `text` in lines of at most `width` columns as far as its words allow, the first behind `first`, the others behind
    /// as many spaces, or `indent` of them. A column is a Character. Words that belong together have U+00A0 between them,
    /// which becomes a space.
    package static func wrapped(_ text: String, first: String, indent: Int? = nil, width: Int) -> [String] {
        let indent = String(repeating: " ", count: indent ?? first.count)
        var lines: [String] = []
        var line = first
        var isEmpty = true
        for word in words(of: text) {
            if !isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                (line, isEmpty) = (indent, true)
            }
            line += isEmpty ? word : " \(word)"
            isEmpty = false
        }
        return (lines + [line]).map { $0.replacing("\u{a0}", with: " ") }
    }

    /// A number and its unit are one word.
    private static func words(of text: String) -> [Substring] {
        var words: [Substring] = []
        for word in text.split(separator: " ") {
            let unit = word.prefix { $0.isLetter || $0 == "%" }
            if let last = words.last, last.last?.isNumber ?? false, units.contains(String(unit)) {
                words[words.count - 1] = text[last.startIndex..<word.endIndex]
            } else {
                words.append(word)
            }
        }
        return words
    }

    private static let units: Set<String> = ["ms", "s", "min", "h", "d", "%", "B", "KiB", "MiB", "GiB"]
}
