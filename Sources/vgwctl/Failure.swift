internal import ControlAPI
internal import Glibc

/// Why a command could not do its work: what, where, and what to do. The statuses are those of sysexits.h.
struct Failure: Error, Hashable {
    enum Status: Int32 {
        case refused = 1
        case data = 65
        case unavailable = 69
        case cannotCreate = 73
        case io = 74
        case protocolBroken = 76
        case notPermitted = 77
    }

    var status: Status
    var message: String
    var hint: String?

    init(_ status: Status, _ message: String, hint: String? = nil) {
        self.status = status
        self.message = message
        self.hint = hint
    }

    init(_ error: APIError) {
        self.init(error.code == .forbidden ? .notPermitted : .refused, error.message, hint: error.hint)
    }

    var text: String { "vgwctl: \(message)" + (hint.map { "\n\($0)" } ?? "") }

    func exit() -> Never {
        // Nothing more goes to standard output, so its stream can write to standard error.
        _ = dup2(STDERR_FILENO, STDOUT_FILENO)
        Swift.print(Printable.escaping(text, keepsLines: true))
        Glibc.exit(status.rawValue)
    }
}
