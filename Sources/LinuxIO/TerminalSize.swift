internal import CLinux

package enum TerminalSize {
    /// Columns of the terminal that standard output is; nil where it is none, or does not say.
    package static var columns: Int? {
        let columns = Int(cl_terminal_columns(1))
        return columns > 0 ? columns : nil
    }
}
