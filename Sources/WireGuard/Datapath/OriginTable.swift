/// Which connections the packets from an address may come from: the longest of all prefixes that holds it, and
/// those who have just that prefix. Several may, where one stands in for another.
struct OriginTable: Sendable {
    /// To the position of a prefix in `starts`.
    private let prefixes: PrefixTable
    /// Where the owners of each prefix begin; one more than there are prefixes.
    private let starts: [Int]
    private let owners: [Int32]

    /// `sources` by number of connection.
    init(_ sources: [[IPPrefix]]) {
        var ownersOf: [IPPrefix: [Int32]] = [:]
        var order: [IPPrefix] = []
        for (number, prefixes) in sources.enumerated() {
            for prefix in prefixes.map(\.network) {
                if ownersOf[prefix] == nil { order.append(prefix) }
                ownersOf[prefix, default: []].append(Int32(number))
            }
        }
        var starts = [0]
        var owners: [Int32] = []
        for prefix in order {
            owners += ownersOf[prefix] ?? []
            starts.append(owners.count)
        }
        prefixes = PrefixTable(order.enumerated().map { (prefix: $1, value: Int32($0)) })
        self.starts = starts
        self.owners = owners
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
