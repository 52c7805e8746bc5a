/// The numbers that tell a gateway's rules and tables from those of others on the host.
package struct RoutingNumbers: Hashable, Sendable {
    /// What outer packets are marked with; 0 is no mark.
    package var mark: UInt32
    /// Where the routes go; nil: somebody else installs them.
    package var table: UInt32?

    package init(mark: UInt32, table: UInt32?) {
        self.mark = mark
        self.table = table
    }

    /// What a configuration says of one number.
    package enum Wish: Hashable, Sendable {
        /// This one, whoever else has it.
        case fixed(UInt32)
        /// The first one that nobody else has, from this one on.
        case free(from: UInt32)
    }

    /// What a configuration says of both. Where both are free they are one number.
    package struct Wishes: Hashable, Sendable {
        /// Nil: no mark.
        package var mark: Wish?
        /// Nil: no table.
        package var table: Wish?

        package init(mark: Wish?, table: Wish?) {
            self.mark = mark
            self.table = table
        }

        /// With `number` in place of what is free.
        package func numbers(with number: UInt32) -> RoutingNumbers {
            func chosen(_ wish: Wish) -> UInt32 { if case .fixed(let fixed) = wish { fixed } else { number } }
            return RoutingNumbers(mark: mark.map(chosen) ?? 0, table: table.map(chosen))
        }

        /// Where the search for a free number begins; nil when there is nothing to choose.
        package var first: UInt32? {
            for case .free(let first)? in [mark, table] { return first }
            return nil
        }

        /// As if nobody else had any.
        package var preferred: RoutingNumbers { numbers(with: first.map { Self.next(from: $0) } ?? 0) }

        /// What is fixed, alone.
        package var fixed: RoutingNumbers {
            func number(_ wish: Wish?) -> UInt32? { if case .fixed(let fixed)? = wish { fixed } else { nil } }
            return RoutingNumbers(mark: number(mark) ?? 0, table: number(table))
        }

        /// What of `numbers` was chosen, alone.
        package func open(of numbers: RoutingNumbers) -> RoutingNumbers {
            func isFree(_ wish: Wish?) -> Bool { if case .free? = wish { true } else { false } }
            return RoutingNumbers(
                mark: isFree(mark) ? numbers.mark : 0, table: isFree(table) ? numbers.table : nil)
        }

        /// What to try, the best first: the number that the configuration begins with, the one of earlier runs, and those
        /// that follow.
        package func candidates(remembered: RoutingNumbers?) -> [RoutingNumbers] {
            guard let first else { return [numbers(with: 0)] }
            let isMarkFree = if case .free? = mark { true } else { false }
            let earlier = isMarkFree ? remembered?.mark : remembered?.table
            let following = sequence(first: first) { $0 &+ 1 }.prefix(Self.limit)
            return ([first] + [earlier].compactMap(\.self) + following).filter { !Self.reserved.contains($0) }
                .map { numbers(with: $0) }
        }

        /// RT_TABLE_UNSPEC, RT_TABLE_DEFAULT, RT_TABLE_MAIN and RT_TABLE_LOCAL of rtnetlink. As a mark 0 is none.
        private static let reserved: Set<UInt32> = [0, 253, 254, 255]
        /// More gateways than a host can have.
        private static let limit = 1024

        private static func next(from first: UInt32) -> UInt32 {
            sequence(first: first) { $0 &+ 1 }.first { !reserved.contains($0) } ?? first
        }
    }
}
