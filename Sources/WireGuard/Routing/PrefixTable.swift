/// Longest-prefix match by binary search: prefixes are flattened, once, into the sorted starts of ranges that
/// do not overlap. Ten routes are five comparisons in one cache line, a hundred thousand are eighteen.
package struct PrefixTable: Sendable {
    /// No prefix contains the address.
    package static let none: Int32 = -1

    private let starts4: [UInt32]
    private let values4: [Int32]
    private let starts6: [UInt128]
    private let values6: [Int32]

    /// Where prefixes are equal the last one counts. Values are not negative.
    package init(_ entries: [(prefix: IPPrefix, value: Int32)]) {
        let (starts4, values4) = Self.flatten(entries.filter { $0.prefix.family == .v4 }, end: 0xffff_ffff)
        self.starts4 = starts4.map { UInt32(truncatingIfNeeded: $0) }
        self.values4 = values4
        (starts6, values6) = Self.flatten(entries.filter { $0.prefix.family == .v6 }, end: .max)
    }

    @inline(__always)
    package func lookup(_ address: UInt32) -> Int32 {
        // The last start that is not greater; the first range starts at zero, so there is one.
        var low = 0
        var count = starts4.count
        while count > 1 {
            let half = count / 2
            low = starts4[low &+ half] <= address ? low &+ half : low
            count &-= half
        }
        return values4[low]
    }

    @inline(__always)
    package func lookup(_ address: UInt128) -> Int32 {
        var low = 0
        var count = starts6.count
        while count > 1 {
            let half = count / 2
            low = starts6[low &+ half] <= address ? low &+ half : low
            count &-= half
        }
        return values6[low]
    }

    package func lookup(_ address: IPAddress) -> Int32 {
        address.family == .v4 ? lookup(UInt32(truncatingIfNeeded: address.bits)) : lookup(address.bits)
    }

    /// Walks the prefixes in order of their first address, wider before narrower: a stack holds those that
    /// are open, the innermost on top. Of equal ones the last begins at the same address, and so takes the others' place.
    private static func flatten(
        _ entries: [(prefix: IPPrefix, value: Int32)], end: UInt128
    ) -> (starts: [UInt128], values: [Int32]) {
        let ordered = entries.indices.map { (entries[$0].prefix.first, entries[$0].prefix.length, $0) }.sorted
        {
            $0 < $1
        }
        var starts: [UInt128] = [0]
        var values: [Int32] = [none]
        var open: [(last: UInt128, value: Int32)] = []

        func begin(_ start: UInt128, _ value: Int32) {
            if starts[starts.count - 1] == start {
                values[values.count - 1] = value
            } else if values[values.count - 1] != value {
                starts.append(start)
                values.append(value)
            }
        }
        func close(before limit: UInt128?) {
            while let top = open.last, limit.map({ top.last < $0 }) ?? true {
                open.removeLast()
                if top.last < end { begin(top.last + 1, open.last?.value ?? none) }
            }
        }
        for (first, _, index) in ordered {
            let (prefix, value) = entries[index]
            close(before: first)
            begin(first, value)
            open.append((prefix.last, value))
        }
        close(before: nil)
        return (starts, values)
    }
}
