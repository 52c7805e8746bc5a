/// Which connections the packets from an address may come from: the longest of all prefixes that holds it, and
/// those who have just that prefix. Several may, where one stands in for another.
struct OriginTable: Sendable {
    /// From a prefix to its index in `starts`.
    private let prefixes: PrefixTable
    /// Index of the first owner of each prefix; one more than there are prefixes.
    private let starts: [Int]
    private let owners: [Int32]

    /// `sources` by index of connection.
    init(_ sources: [[IPPrefix]]) {
        let all = sources.enumerated().flatMap { number, prefixes in
            prefixes.map { (prefix: $0.network, owner: Int32(number)) }
        }.sorted { a, b in
            (a.prefix.family.rawValue, a.prefix.address.bits, a.prefix.length, a.owner)
                < (b.prefix.family.rawValue, b.prefix.address.bits, b.prefix.length, b.owner)
        }
        var order: [(prefix: IPPrefix, value: Int32)] = []
        var starts: [Int] = []
        for (index, entry) in all.enumerated() where order.last?.prefix != entry.prefix {
            order.append((entry.prefix, Int32(starts.count)))
            starts.append(index)
        }
        prefixes = PrefixTable(order)
        self.starts = starts + [all.count]
        owners = all.map(\.owner)
    }

    func holds(_ address: IPAddress, of connection: Int32) -> Bool {
        let position = Int(prefixes.lookup(address))
        guard position >= 0 else { return false }
        var index = starts[position]
        while index < starts[position &+ 1] {
            if owners[index] == connection { return true }
            index &+= 1
        }
        return false
    }
}
