/// Rates as the configuration writes them: `500 Mbit/s`, `1.25 Gbit/s`, `800kbit/s`.
enum Rates {
    private static let range: ClosedRange<UInt64> = 64_000...1_000_000_000_000

    /// Bits a second.
    static func parse(_ text: String) -> UInt64? {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(number.count).drop { $0 == " " }
        let factor: UInt64
        switch unit.lowercased() {
        case "kbit/s": factor = 1000
        case "mbit/s": factor = 1_000_000
        case "gbit/s": factor = 1_000_000_000
        default: return nil
        }
        guard let thousandths = Decimals.thousandths(number) else { return nil }
        let (product, isTooMuch) = thousandths.multipliedReportingOverflow(by: factor)
        let rate = product / 1000
        return !isTooMuch && range.contains(rate) ? rate : nil
    }
}

/// Shares as the configuration writes them: `5%`, `0.5 %`.
enum Shares {
    /// 0 to 1.
    static func parse(_ text: String) -> Double? {
        guard text.hasSuffix("%") else { return nil }
        let number = text.dropLast().reversed().drop { $0 == " " }.reversed()
        guard let thousandths = Decimals.thousandths(Substring(String(number))), thousandths <= 100_000 else {
            return nil
        }
        return Double(thousandths) / 100_000
    }
}

/// `12`, `0.5`, `1.25`: up to three decimals.
enum Decimals {
    static func thousandths(_ text: Substring) -> UInt64? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard let whole = parts.first, parts.count <= 2, (1...9).contains(whole.utf8.count),
            let units = UInt64(whole)
        else { return nil }
        guard parts.count == 2 else { return units * 1000 }
        let decimals = parts[1]
        guard (1...3).contains(decimals.utf8.count),
            let fraction = UInt64(decimals + String(repeating: "0", count: 3 - decimals.utf8.count))
        else { return nil }
        return units * 1000 + fraction
    }
}
