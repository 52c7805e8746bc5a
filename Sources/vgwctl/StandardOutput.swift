internal import ControlAPI
internal import Glibc

/// In place of the standard library's: what cannot be written, to a full disk, is a failure of the command. When the
/// reader has gone (`vgwctl status | head`), nobody is left to be told.
func print(_ text: String, terminator: String = "\n") {
    Swift.print(StandardOutput.shown(text), terminator: terminator)
    guard fflush(nil) != 0 else { return }
    if errno == EPIPE { Glibc.exit(0) }
    Failure(.io, "standard output cannot be written (errno \(errno))").exit()
}

enum StandardOutput {
    /// The text with its lines and our own colours, and without what else a terminal could take for an order: names
    /// come from elsewhere.
    static func shown(_ text: String) -> String {
        var result = ""
        var rest = text[...]
        while let escape = rest.firstIndex(of: "\u{1b}") {
            result += Printable.escaping(String(rest[..<escape]), keepsLines: true)
            rest = rest[escape...]
            let order = Palette.orders.first { rest.hasPrefix($0) }
            result += order ?? Printable.escaping("\u{1b}")
            rest = rest.dropFirst(order?.count ?? 1)
        }
        return result + Printable.escaping(String(rest), keepsLines: true)
    }
}
