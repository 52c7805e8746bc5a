internal import ArgumentParser

/// A duration as the configuration writes it, or a plain number of seconds.
struct Seconds: ExpressibleByArgument, Hashable {
    var value: Double

    init(value: Double) { self.value = value }

    /// For --help.
    var defaultValueDescription: String {
        value == value.rounded() ? "\(Int(value))s" : "\(value)s"
    }

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits), number.isFinite else { return nil }
        switch argument.dropFirst(digits.count) {
        case "ms": value = number / 1000
        case "s", "": value = number
        case "m": value = number * 60
        default: return nil
        }
    }
}
