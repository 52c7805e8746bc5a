internal import ControlAPI
internal import FoundationEssentials
internal import Glibc
internal import LinuxIO

enum Environment {
    static subscript(name: String) -> String? { ProcessInfo.processInfo.environment[name] }
}

/// What the program may take for granted of the one who reads and types.
enum Terminal {
    static var isInteractive: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 }

    /// Colour is for terminals, and never where NO_COLOR (no-color.org) is set to anything.
    static var hasColour: Bool {
        isatty(STDOUT_FILENO) == 1 && (Environment["NO_COLOR"] ?? "").isEmpty && Environment["TERM"] != "dumb"
    }

    /// Columns that a line may have: of COLUMNS in the environment, or else of the terminal.
    static var width: Int {
        let given = Environment["COLUMNS"].flatMap { Int($0) } ?? TerminalSize.columns ?? Prose.width
        return min(max(given, 40), 400)
    }

    /// Asks until the answer is accepted; an empty answer takes `fallback`. Nil at the end of input.
    static func ask<Value>(
        _ question: String, fallback: String? = nil, accept: (String) throws(Failure) -> Value
    ) -> Value? {
        while true {
            print(question + (fallback.map { " [\($0)]" } ?? "") + ": ", terminator: "")
            guard let line = readLine() else { return nil }
            let answer = line.trimmed
            do {
                return try accept(answer.isEmpty ? fallback ?? "" : answer)
            } catch {
                print("  \(error.message)" + (error.hint.map { "; \($0)" } ?? ""))
            }
        }
    }
}

extension StringProtocol {
    var trimmed: String {
        let start = drop { $0.isWhitespace }
        var end = start.endIndex
        while end > start.startIndex, start[start.index(before: end)].isWhitespace {
            end = start.index(before: end)
        }
        return String(start[..<end])
    }
}

/// SGR colours, or nothing.
struct Palette {
    let isOn: Bool

    private enum Colour: String, CaseIterable {
        case end = "\u{1b}[0m"
        case bold = "\u{1b}[1m"
        case dim = "\u{1b}[2m"
        case red = "\u{1b}[31m"
        case green = "\u{1b}[32m"
        case yellow = "\u{1b}[33m"
    }

    /// All that this program ever sends to a terminal beside text.
    static let orders = Colour.allCases.map(\.rawValue)

    func green(_ text: String) -> String { paint(text, .green) }
    func yellow(_ text: String) -> String { paint(text, .yellow) }
    func red(_ text: String) -> String { paint(text, .red) }
    func bold(_ text: String) -> String { paint(text, .bold) }
    func dim(_ text: String) -> String { paint(text, .dim) }

    func paint(_ text: String, _ state: TunnelState) -> String {
        switch state {
        case .up: green(text)
        case .connecting, .degraded: yellow(text)
        case .idle, .disabled: dim(text)
        case .down: red(text)
        }
    }

    private func paint(_ text: String, _ colour: Colour) -> String {
        isOn ? colour.rawValue + text + Colour.end.rawValue : text
    }
}
