internal import LinuxIO

/// What is being done, on standard error: standard output is the table alone.
enum Progress {
    static func say(_ text: String) { StandardError.print("vgw-bench: \(text)") }
}
