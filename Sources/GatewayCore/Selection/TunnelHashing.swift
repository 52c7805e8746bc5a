/// Spreads 256 buckets of flows over tunnels by their weights: weighted rendezvous hashing. Each bucket draws
/// a number for each tunnel and goes to the best; so when a tunnel leaves, only its buckets move, and they
/// come back when it does.
///
/// The best draw `u` of (0, 1) for a weight `w` is the one with the least `-log2(u) / w`. Logarithms are
/// integers, so that every machine and every run agrees.
struct TunnelHashing: Sendable {
    struct Member: Hashable, Sendable {
        var name: String
        /// At least 1.
        var weight: Int
        /// Carries flows now. The others are here so that they find their buckets again.
        var isIn: Bool
    }

    static let bucketCount = 256
    /// Draws that are tried for the fairest one: a single one of so few buckets may be 20 % off.
    private static let salts: UInt64 = 16

    private var members: [Member] = []
    private var buckets: [Int] = []
    private var salt: UInt64 = 0

    /// By bucket, a place in `members`; empty when none of them is in. Computed when something changed.
    mutating func assign(_ members: [Member]) -> [Int] {
        guard members != self.members else { return buckets }
        // All members choose the salt, whoever is in: what goes where must not change by a failure.
        if members.map(\.identity) != self.members.map(\.identity) { salt = Self.fairestSalt(of: members) }
        self.members = members
        buckets = Self.spread(members, salt: salt)
        return buckets
    }

    private static func fairestSalt(of members: [Member]) -> UInt64 {
        guard members.count > 1 else { return 0 }
        let everybody = members.map { Member(name: $0.name, weight: $0.weight, isIn: true) }
        return (0..<salts).min { unfairness(everybody, salt: $0) < unfairness(everybody, salt: $1) } ?? 0
    }

    /// The greatest error of a share, in parts of that share.
    private static func unfairness(_ members: [Member], salt: UInt64) -> Double {
        let total = members.reduce(0.0) { $0 + Double($1.weight) }
        var counts = [Int](repeating: 0, count: members.count)
        for place in spread(members, salt: salt) { counts[place] += 1 }
        return members.indices.map { place in
            let share = Double(bucketCount) * Double(members[place].weight) / total
            return abs(Double(counts[place]) - share) / max(share, 1)
        }.max() ?? 0
    }

    private static func spread(_ members: [Member], salt: UInt64) -> [Int] {
        let present = members.indices.filter { members[$0].isIn }.map { place in
            (place: place, key: mix(hash(members[place].name) ^ mix(salt)), weight: members[place].weight)
        }
        guard let first = present.first else { return [] }
        guard present.count > 1 else { return [Int](repeating: first.place, count: bucketCount) }
        return (0..<UInt64(bucketCount)).map { bucket in
            var best = first
            var bestDraw = UInt64.max
            for member in present {
                let draw = rarity(mix(member.key &+ (bucket &+ 1) &* 0x9e37_79b9_7f4a_7c15))
                // draw / weight < bestDraw / best.weight. Equal ones: the first of a fixed order.
                let mine = draw.multipliedFullWidth(by: UInt64(best.weight))
                let theirs = bestDraw.multipliedFullWidth(by: UInt64(member.weight))
                if bestDraw == .max || (mine.high, mine.low, member.key) < (theirs.high, theirs.low, best.key)
                {
                    best = member
                    bestDraw = draw
                }
            }
            return best.place
        }
    }

    /// `-log2(u / 2^64)` in 2^-16ths, rounded up: never 0.
    static func rarity(_ u: UInt64) -> UInt64 {
        let u = max(u, 1)
        let zeros = u.leadingZeroBitCount
        // In [1, 2), the binary point behind the highest bit; each squaring yields one bit of its logarithm.
        var mantissa = u << UInt64(zeros)
        var fraction: UInt64 = 0
        for _ in 0..<16 {
            let square = mantissa.multipliedFullWidth(by: mantissa)
            let isTwoOrMore = square.high >> 63 == 1
            fraction = fraction << 1 | (isTwoOrMore ? 1 : 0)
            mantissa = isTwoOrMore ? square.high : square.high << 1 | square.low >> 63
        }
        return UInt64(zeros + 1) << 16 - fraction
    }

    /// FNV-1a of the name's UTF-8.
    private static func hash(_ name: String) -> UInt64 {
        name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
    }

    /// The finalizer of SplitMix64.
    private static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value &+ 0x9e37_79b9_7f4a_7c15
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}

extension TunnelHashing.Member {
    /// What its draws depend on.
    fileprivate var identity: Self { TunnelHashing.Member(name: name, weight: weight, isIn: true) }
}
