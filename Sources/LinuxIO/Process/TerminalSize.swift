internal import CLinux

package enum TerminalSize {
    /// Columns of the terminal that standard output is; nil where it is none, or does not say.
    package static var columns: Int? { columns(of: 1) }
    /// Those of standard error.
    package static var errorColumns: Int? { columns(of: 2) }

    private static func columns(of descriptor: Int32) -> Int? {
        let columns = Int(cl_terminal_columns(descriptor))
        // In less nothing is readable.
        return columns > 0 ? max(columns, 40) : nil
    }
}
