/// On which line each key and each element of a list stands. TOMLKit parses but keeps no places, so this
/// walks over the same text before it, by the grammar of TOML 1.0 without the values that no key takes;
/// escapes and redefinitions are left to the parser.
///
/// The walk is strict, and the parser is given only what passed it: toml++ 3.4.0 inside TOMLKit ends the
/// process on some malformed texts, such as `[=]`, where it should throw.
struct SourceLines {
    /// A value of the document, or the table that a header opens.
    struct Place {
        /// From 1. Nil for the document.
        fileprivate(set) var line: Int?
        fileprivate(set) var keys: [String: Place] = [:]
        /// The elements of a list.
        fileprivate(set) var items: [Place] = []
    }

    /// The first thing that is not TOML. What is behind it was not looked at.
    struct Problem: Error, Hashable {
        var line: Int
        var problem: String
        var remedy: String
    }

    let document: Place

    init(_ source: String) throws(Problem) {
        var walk = Walk(source)
        document = try walk.readDocument()
    }
}

extension SourceLines.Place {
    /// Puts what was read to where these keys lead from here; what is there already keeps its line. A key of a list of
    /// tables means its last one. `isElement`: as one more of such a list.
    fileprivate mutating func put(
        _ value: Self, at path: ArraySlice<String>, isElement: Bool = false
    ) {
        guard let key = path.first else {
            line = line ?? value.line
            keys.merge(value.keys) { first, _ in first }
            if items.isEmpty { items = value.items }
            return
        }
        keys[key, default: Self(line: value.line)].put(value, inside: path.dropFirst(), isElement)
    }

    private mutating func put(_ value: Self, inside path: ArraySlice<String>, _ isElement: Bool) {
        if isElement, path.isEmpty {
            items.append(value)
        } else if path.isEmpty || items.isEmpty {
            put(value, at: path, isElement: isElement)
        } else {
            items[items.count - 1].put(value, at: path, isElement: isElement)
        }
    }
}

private struct Walk {
    private typealias Place = SourceLines.Place
    private typealias Problem = SourceLines.Problem

    private let text: [UInt8]
    private var position = 0
    private var line = 1
    private var depth = 0

    /// No configuration nests deeper; this bounds the recursion, here and in the parser.
    private static let depthLimit = 16

    init(_ source: String) {
        let bytes = Array(source.utf8)
        text = Array(bytes.starts(with: [0xef, 0xbb, 0xbf]) ? bytes.dropFirst(3) : bytes[...])
    }

    // MARK: The document

    mutating func readDocument() throws(SourceLines.Problem) -> SourceLines.Place {
        var document = Place()
        var header: (keys: [String], isElement: Bool) = ([], false)
        var table = Place()
        while true {
            try skipBlank(newlines: true)
            let byte = peek()
            if byte == nil || byte == UInt8(ascii: "[") {
                document.put(table, at: header.keys[...], isElement: header.isElement)
                guard byte != nil else { return document }
                table = Place(line: line)
                header = try readHeader()
            } else {
                try readPair(in: &table)
            }
            try expectEndOfLine()
        }
    }

    private mutating func readHeader() throws(Problem) -> (keys: [String], isElement: Bool) {
        position += 1
        let isElement = peek() == UInt8(ascii: "[")
        if isElement { position += 1 }
        let keys = try readKeys()
        for _ in 0..<(isElement ? 2 : 1) {
            guard peek() == UInt8(ascii: "]") else {
                throw problem(
                    "a header without its end", "write [gateway], [[connection]] or [[connection.tunnel]]")
            }
            position += 1
        }
        return (keys, isElement)
    }

    private mutating func readPair(in table: inout Place) throws(Problem) {
        let start = line
        let keys = try readKeys()
        guard peek() == UInt8(ascii: "=") else { throw problem("a key without '='", "write KEY = VALUE") }
        position += 1
        var value = try readValue()
        value.line = start
        table.put(value, at: keys[...])
    }

    /// `a."b c".d`, and the blanks behind it.
    private mutating func readKeys() throws(Problem) -> [String] {
        var keys: [String] = []
        while true {
            try skipBlank(newlines: false)
            switch peek() {
            case UInt8(ascii: "\""), UInt8(ascii: "'"):
                let start = line
                keys.append(try readString())
                guard line == start else { throw problem("a key of several lines", "write it on one line") }
            default:
                let start = position
                while let byte = peek(), Self.isBare(byte) { position += 1 }
                guard position > start else {
                    throw problem(
                        "no key where one must be", "write KEY = VALUE, [gateway] or [[connection]]")
                }
                keys.append(String(decoding: text[start..<position], as: UTF8.self))
            }
            try skipBlank(newlines: false)
            guard peek() == UInt8(ascii: ".") else { return keys }
            guard keys.count < Self.depthLimit else { throw problem("too many dots in a key", "nest less") }
            position += 1
        }
    }

    private mutating func expectEndOfLine() throws(Problem) {
        try skipBlank(newlines: false)
        switch peek() {
        case nil, UInt8(ascii: "\n"), UInt8(ascii: "#"): return
        default:
            throw problem(
                "text behind the end of a value or header", "put texts in quotes, and one pair on a line")
        }
    }

    // MARK: Values

    /// With the line on which the value begins.
    private mutating func readValue() throws(Problem) -> Place {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else {
            throw problem("too many brackets within each other", "nest less")
        }
        try skipBlank(newlines: false)
        var place = Place(line: line)
        switch peek() {
        case UInt8(ascii: "\""), UInt8(ascii: "'"): _ = try readString()
        case UInt8(ascii: "["): place.items = try readList()
        case UInt8(ascii: "{"): try readInlineTable(&place)
        default:
            let start = position
            while let byte = peek(), Self.isScalar(byte) { position += 1 }
            guard Self.isValue(text[start..<position]) else {
                throw problem(
                    position == start ? "no value where one must be" : "a value that no key takes",
                    "write \"text\" in quotes, a whole number, true, false, [a list] or { a = \"table\" }")
            }
        }
        return place
    }

    private mutating func readList() throws(Problem) -> [Place] {
        position += 1
        var items: [Place] = []
        while true {
            try skipBlank(newlines: true)
            if take(UInt8(ascii: "]")) { return items }
            items.append(try readValue())
            try skipBlank(newlines: true)
            if take(UInt8(ascii: ",")) { continue }
            if take(UInt8(ascii: "]")) { return items }
            throw problem("a list without its end", "put commas between its elements and ']' behind the last")
        }
    }

    private mutating func readInlineTable(_ table: inout Place) throws(Problem) {
        position += 1
        try skipBlank(newlines: false)
        if take(UInt8(ascii: "}")) { return }
        while true {
            try readPair(in: &table)
            try skipBlank(newlines: false)
            if take(UInt8(ascii: ",")) { continue }
            if take(UInt8(ascii: "}")) { return }
            throw problem(
                "an inline table without its end",
                "put commas between its keys and '}' on the line where it begins")
        }
    }

    /// The text between the quotes, escapes as they stand: they are of no use in a key of ours.
    private mutating func readString() throws(Problem) -> String {
        let opening = line
        guard let quote = peek() else { return "" }
        let isMultiline = text[position...].starts(with: [quote, quote, quote])
        position += isMultiline ? 3 : 1
        let start = position
        while let byte = peek(), isMultiline || byte != UInt8(ascii: "\n") {
            if byte == UInt8(ascii: "\\"), quote == UInt8(ascii: "\"") {
                position += 1
                // The parser would end the text there.
                guard !Self.zeroEscapes.contains(where: { text[position...].starts(with: $0.utf8) }) else {
                    throw problem("a zero byte in a text", "leave it out: no name and no path has one")
                }
                if isMultiline || peek() != UInt8(ascii: "\n") { advance() }
            } else if byte != quote {
                advance()
            } else {
                let end = position
                var run = 0
                while peek() == quote, run < (isMultiline ? 5 : 1) {
                    run += 1
                    position += 1
                }
                if !isMultiline || run >= 3 { return String(decoding: text[start..<end], as: UTF8.self) }
            }
        }
        line = opening
        throw problem("a text without its end", "put a quote behind it")
    }

    private static let zeroEscapes = ["u0000", "U00000000"]

    // MARK: Bytes

    private func problem(_ problem: String, _ remedy: String) -> Problem {
        Problem(line: line, problem: problem, remedy: remedy)
    }

    private func peek() -> UInt8? { position < text.count ? text[position] : nil }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        position += 1
        return true
    }

    private mutating func advance() {
        if peek() == UInt8(ascii: "\n") { line += 1 }
        position += 1
    }

    /// Spaces and tabs; with `newlines` line ends and comments too. A carriage return is part of a line end,
    /// or wrong.
    private mutating func skipBlank(newlines: Bool) throws(Problem) {
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"): position += 1
            case UInt8(ascii: "\r"):
                guard position + 1 < text.count, text[position + 1] == UInt8(ascii: "\n") else {
                    throw problem("a carriage return in a line", "end lines with a line feed")
                }
                position += 1
            case UInt8(ascii: "\n") where newlines: advance()
            case UInt8(ascii: "#") where newlines:
                while let byte = peek(), byte != UInt8(ascii: "\n") { position += 1 }
            default: return
            }
        }
    }

    private static func isBare(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "_"): true
        default: false
        }
    }

    private static func isScalar(_ byte: UInt8) -> Bool {
        isBare(byte) || [UInt8(ascii: "+"), UInt8(ascii: "."), UInt8(ascii: ":")].contains(byte)
    }

    /// Booleans and whole numbers, up to the size of a number: no key takes a fraction or a date.
    private static func isValue(_ scalar: ArraySlice<UInt8>) -> Bool {
        let word = String(decoding: scalar, as: UTF8.self)
        if word == "true" || word == "false" || word == "0" { return true }
        if word.hasPrefix("0x") {
            return word.dropFirst(2).allSatisfy(\.isHexDigit) && Int(word.dropFirst(2), radix: 16) != nil
        }
        let digits = word.first == "+" || word.first == "-" ? word.dropFirst() : word[...]
        return digits.first != "0" && digits.utf8.allSatisfy { (0x30...0x39).contains($0) }
            && Int(word) != nil
    }
}
