import Testing

@testable import Daemon

@Suite struct ConfigurationSourceLinesTests {
    private enum Step {
        case key(String)
        case index(Int)
    }

    private func line(_ source: SourceLines, _ path: Step...) -> Int? {
        path.reduce(Optional(source.document)) { place, step in
            switch step {
            case .key(let name): place?.keys[name]
            case .index(let index): place.flatMap { $0.items.indices.contains(index) ? $0.items[index] : nil }
            }
        }?.line
    }

    @Test func keysListsInlineTablesAndArraysOfTablesAreFound() throws {
        let source = try SourceLines(
            """
            # a comment with [brackets] and "quotes"
            top = 1
            [a] # comment
            "quoted key" = 'literal # no comment'
            b.c = 2
            list = [ # comment ]
              "one", # [
              "t,w]o",
              { x = 1, y = [1, 2] },
            ]
            text = \"\"\"
            key = "not a key"
            ""\\\"""\"\"\"
            after = 0x1F

            [[t]]
            n = 1
              [[t.u]]
              m = 1
              [[t.u]]
              m = 2
              [t.u.v]
              w = 1
            [[t]]
            n = 2
            [[t.u]]
            m = 3
            """)
        #expect(line(source, .key("top")) == 2)
        #expect(line(source, .key("a")) == 3)
        #expect(line(source, .key("a"), .key("quoted key")) == 4)
        #expect(line(source, .key("a"), .key("b"), .key("c")) == 5)
        #expect(line(source, .key("a"), .key("list")) == 6)
        #expect(line(source, .key("a"), .key("list"), .index(0)) == 7)
        #expect(line(source, .key("a"), .key("list"), .index(1)) == 8)
        #expect(line(source, .key("a"), .key("list"), .index(2), .key("y"), .index(1)) == 9)
        #expect(line(source, .key("a"), .key("text")) == 11)
        #expect(line(source, .key("a"), .key("key")) == nil)
        #expect(line(source, .key("a"), .key("after")) == 14)
        #expect(line(source, .key("t")) == 16)
        #expect(line(source, .key("t"), .index(0), .key("u"), .index(1), .key("m")) == 21)
        #expect(line(source, .key("t"), .index(0), .key("u"), .index(1), .key("v"), .key("w")) == 23)
        #expect(line(source, .key("t"), .index(1)) == 24)
        #expect(line(source, .key("t"), .index(1), .key("u"), .index(0), .key("m")) == 27)
    }

    @Test("text that is cut off anywhere ends", arguments: 0..<120)
    func everyTruncationEnds(_ length: Int) {
        let text =
            "[[a.\"b\"]]\nx = [1, {y = 'z', w = \"\"\"\n\"\"\"}]\nt.u = \"\\\"\" # c\n[d]\ne = { f = [[1],[2]] }\n\r\n=]}]{,\n\"\n"
        _ = try? SourceLines(String(text.prefix(length)))
    }

    @Test(
        "what is not TOML is refused before the parser sees it",
        arguments: [
            ("[=]", 1), ("[]", 1), ("[a", 1), ("[[a]", 1), ("[a]]", 1), ("[é]", 1), ("a", 1), ("a =", 1),
            ("= 1", 1),
            ("a = ]", 1), ("a = = 1", 1), ("a = [1 2]", 1), ("a = [1,\n2", 2), ("a = [,]", 1), ("a = {", 1),
            ("a = { b = 1, }", 1), ("a = {\nb = 1 }", 1), ("a = 'x", 1), ("a = \"x\ny\"", 1),
            ("a = \"\"\"\nx", 1),
            ("a = \"\\", 1), ("a = \"x\" y", 1), ("a = 1 b = 2", 1), ("a = 1\rb = 2", 1),
            ("\n\"\"\"a\nb\"\"\" = 1", 3),
            ("a = " + String(repeating: "[", count: 100_000), 1), ("a.", 1), ("a..b = 1", 1),
            ("a = 1979-05-27", 1), ("a = 07:", 1), ("a = 1.5", 1), ("a = inf", 1), ("a = 007", 1),
            ("a = 0x", 1), ("a = 0x-1", 1), ("a = 99999999999999999999", 1), ("a = yes", 1), ("a = --1", 1),
            ("a = -", 1),
        ])
    func malformedTextIsRefused(_ text: String, _ line: Int) {
        let problem = #expect(throws: SourceLines.Problem.self) { try SourceLines(text) }
        #expect(problem?.line == line)
    }

    @Test(
        "a name is suggested when it is near",
        arguments: [
            ("endpiont", "endpoint"), ("end_point", "endpoint"), ("Endpoint", "endpoint"),
            ("endpoints", "endpoint"),
            ("keepalive", "persistent-keepalive"), ("xyz", nil), ("", nil),
        ] as [(String, String?)])
    func nearestName(_ text: String, _ meant: String?) {
        #expect(Names.nearest(to: text, in: ["endpoint", "persistent-keepalive", "bind"]) == meant)
    }

    @Test(
        arguments: [
            ("200ms", .milliseconds(200)), ("25s", .seconds(25)), ("2m", .seconds(120)),
            ("1h", .seconds(3600)), ("25", nil),
            ("s", nil), ("-1s", nil), ("1.5s", nil), ("25 s", nil), ("9999999999s", nil), ("", nil),
        ] as [(String, Duration?)])
    func durations(_ text: String, _ value: Duration?) {
        #expect(Durations.parse(text) == value)
    }
}
