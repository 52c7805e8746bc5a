internal import ControlAPI

/// Columns as wide as their widest cell, two spaces apart. Colours come after the widths are known.
struct Table {
    struct Cell {
        var text: String
        var paint: (String) -> String = { $0 }

        init(_ text: String, paint: @escaping (String) -> String = { $0 }) {
            self.text = text
            self.paint = paint
        }
    }

    var header: [String]
    var rows: [[Cell]] = []
    /// Columns of numbers.
    var rightAligned: Set<Int> = []

    private var widths: [Int] {
        header.indices.map { column in
            max(header[column].count, rows.map { $0[column].text.count }.max() ?? 0)
        }
    }

    /// Columns of the widest line.
    var width: Int { widths.reduce(0, +) + 2 * max(0, header.count - 1) }

    func rendered(_ palette: Palette) -> [String] {
        let widths = widths
        let titles = header.map { title in Cell(title) { palette.bold($0) } }
        return ([titles] + rows).map { cells in
            cells.indices.map { column in
                let padding = String(repeating: " ", count: widths[column] - cells[column].text.count)
                let text = cells[column].paint(cells[column].text)
                if rightAligned.contains(column) { return padding + text }
                return text + padding
            }.joined(separator: "  ").trimmingEnd
        }
    }
}

extension String {
    /// Without the spaces at its end.
    fileprivate var trimmingEnd: String {
        guard let last = lastIndex(where: { $0 != " " }) else { return "" }
        return String(self[...last])
    }
}

/// Numbers as people say them.
enum Human {
    /// Powers of 1024, as `wg show` has them, in three digits.
    static func bytes(_ count: UInt64) -> String {
        var value = Double(count)
        var unit = 0
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        while value >= 1024, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        if unit == 0 { return "\(count) B" }
        let hundredths = UInt64(value * 100)
        let (whole, tenths, last) = (hundredths / 100, hundredths / 10 % 10, hundredths % 10)
        let fraction = whole >= 100 ? "" : whole >= 10 ? ".\(tenths)" : ".\(tenths)\(last)"
        return "\(whole)\(fraction) \(units[unit])"
    }

    static func ago(_ seconds: Double?) -> String {
        guard let seconds else { return "never" }
        return seconds < 1 ? "now" : TimeText.span(seconds) + " ago"
    }

    /// For a narrow column: `3h12m`.
    static func short(_ seconds: Double) -> String {
        TimeText.span(seconds).replacing("min", with: "m").filter { $0 != " " }
    }

    /// What is left of a span: not nothing before it is over.
    static func left(_ seconds: Double) -> String { short(seconds.rounded(.up)) }

    /// Seconds in words: `0.4 ms`, `12.3 ms`, `340 ms`.
    static func milliseconds(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds >= 0, seconds < 1e6 else { return "?" }
        let tenths = Int((seconds * 10_000).rounded())
        return tenths >= 1000 ? "\((tenths + 5) / 10) ms" : "\(tenths / 10).\(tenths % 10) ms"
    }

    /// A share from 0 to 1 in words: `0 %`, `0.5 %`, `12 %`. What is not nothing never looks like it.
    static func percent(_ share: Double) -> String {
        guard share.isFinite, share >= 0, share <= 1 else { return "?" }
        let tenths = share > 0 ? max(1, Int((share * 1000).rounded())) : 0
        return tenths % 10 == 0 || tenths >= 100 ? "\(tenths / 10) %" : "\(tenths / 10).\(tenths % 10) %"
    }
}
