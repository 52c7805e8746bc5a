/// Text for people, in lines that a terminal shows whole.
enum Prose {
    /// Columns of a terminal that nobody has made wider.
    static let width = 80

    /// `text` in lines of at most `width` columns as far as its words allow, the first behind `first`, the others behind
    /// as many spaces, or `indent` of them. A column is a Character.
    static func wrapped(_ text: String, first: String, indent: Int? = nil, width: Int) -> [String] {
        let indent = String(repeating: " ", count: indent ?? first.count)
        var lines: [String] = []
        var line = first
        var isEmpty = true
        for word in text.split(separator: " ") {
            if !isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                (line, isEmpty) = (indent, true)
            }
            line += isEmpty ? word : " \(word)"
            isEmpty = false
        }
        return lines + [line]
    }
}
