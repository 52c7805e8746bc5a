/// Moments of the wall clock, and spans of time, as text.
package enum TimeText {
    /// `2026-11-25T12:33:48.123456789Z`: ISO 8601, of a fixed length from year 0 to 9999.
    package static func utc(unixNanoseconds: Int64) -> String {
        let (seconds, fraction) = floored(unixNanoseconds, by: 1_000_000_000)
        let (days, second) = floored(seconds, by: 86_400)
        let (year, month, day) = date(daysSince1970: days)
        func digits(_ number: Int64, _ count: Int) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
        }
        return "\(digits(year, 4))-\(digits(month, 2))-\(digits(day, 2))T"
            + "\(digits(second / 3600, 2)):\(digits(second / 60 % 60, 2)):\(digits(second % 60, 2))."
            + "\(digits(fraction, 9))Z"
    }

    /// A span of seconds in its two largest units: `3 h 12 min`.
    package static func span(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds >= 1 else { return "0 s" }
        let total = Int(min(seconds, 1e12))
        let parts = [
            (total / 86400, "d"), (total / 3600 % 24, "h"), (total / 60 % 60, "min"), (total % 60, "s"),
        ]
        guard let first = parts.firstIndex(where: { $0.0 > 0 }) else { return "0 s" }
        return parts[first...].prefix(2).filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }.joined(separator: " ")
    }

    /// Proleptic Gregorian. Years are counted from March, so that the leap day is the last of one.
    private static func date(daysSince1970 days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        // From 1 March 0; 400 years are 146,097 days.
        let (era, dayOfEra) = floored(days + 719_468, by: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        return (
            yearOfEra + 400 * era + (month <= 2 ? 1 : 0), month,
            dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        )
    }

    private static func floored(_ value: Int64, by divisor: Int64) -> (Int64, Int64) {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}
