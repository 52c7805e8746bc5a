import Testing
import WireGuard

@testable import GatewayCore

@Suite struct LearnedGuardTests {
    /// The macros of the tests take no `inout`.
    private final class Holder {
        var guarded: LearnedGuard

        init(connections: Int, limit: Int) { guarded = LearnedGuard(connections: connections, limit: limit) }

        func hold(_ number: Int, for connection: String) -> Bool {
            guarded.hold(Self.prefix(number), for: connection)
        }
        func release(_ number: Int) { guarded.release(Self.prefix(number)) }
        func connection(of number: Int) -> String? { guarded.connection(of: Self.prefix(number)) }

        static func prefix(_ number: Int) -> IPPrefix { IPPrefix("10.\(number).0.0/16")! }
    }

    @Test("what was learned once is held until it is let go of, whoever learned it last")
    func held() {
        let holder = Holder(connections: 2, limit: 8)
        #expect(holder.hold(1, for: "a") && holder.hold(1, for: "a"))
        #expect(holder.connection(of: 1) == "a")
        #expect(holder.hold(1, for: "b"))
        #expect(holder.connection(of: 1) == "b")
        #expect(holder.guarded.prefixes == [Holder.prefix(1)])
        holder.release(1)
        holder.release(1)
        #expect(holder.guarded.prefixes.isEmpty && holder.connection(of: 1) == nil)
    }

    @Test("a far gateway that announces one prefix after the other uses up no room but its own")
    func share() {
        let holder = Holder(connections: 2, limit: 8)
        #expect((0..<20).map { holder.hold($0, for: "churn") } == (0..<20).map { $0 < 4 })
        #expect((20..<24).allSatisfy { holder.hold($0, for: "quiet") })
        #expect(!holder.hold(24, for: "quiet"))
        // It is held already, in another's room.
        #expect(holder.hold(0, for: "quiet") && holder.connection(of: 0) == "churn")
        holder.release(0)
        #expect(holder.hold(30, for: "churn") && !holder.hold(31, for: "churn"))
    }

    @Test("what an earlier run left is held, within the limit, and belongs to who learns it again")
    func adopted() {
        let holder = Holder(connections: 1, limit: 4)
        holder.guarded.adopt((0..<9).map(Holder.prefix))
        #expect(holder.guarded.prefixes == Set((0..<4).map(Holder.prefix)))
        #expect(holder.guarded.holds(Holder.prefix(2)) && holder.connection(of: 2) == nil)
        #expect(holder.hold(2, for: "a") && holder.connection(of: 2) == "a")
        holder.guarded.adopt([Holder.prefix(2)])
        #expect(holder.connection(of: 2) == "a")
    }
}
