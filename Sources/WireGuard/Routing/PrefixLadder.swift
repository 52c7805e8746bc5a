/// Finds the prefixes around an address or another prefix, by one question for each length that there is.
package struct PrefixLadder {
    private let known: Set<IPPrefix>
    /// Longest first.
    private let lengths: [IPAddress.Family: [Int]]

    package init(_ prefixes: some Sequence<IPPrefix>) {
        known = Set(prefixes)
        var lengths: [IPAddress.Family: Set<Int>] = [:]
        for prefix in known { lengths[prefix.family, default: []].insert(prefix.length) }
        self.lengths = lengths.mapValues { $0.sorted(by: >) }
    }

    /// Those that contain the address, longest first.
    package func prefixes(around address: IPAddress) -> [IPPrefix] {
        shorter(than: address.family.width + 1, around: address)
    }

    /// Those that contain the prefix and are shorter, longest first.
    package func prefixes(around prefix: IPPrefix) -> [IPPrefix] {
        shorter(than: prefix.length, around: prefix.address)
    }

    private func shorter(than limit: Int, around address: IPAddress) -> [IPPrefix] {
        (lengths[address.family] ?? []).compactMap { length in
            guard length < limit, let wider = IPPrefix(address: address, length: length)?.network
            else { return nil }
            return known.contains(wider) ? wider : nil
        }
    }
}
