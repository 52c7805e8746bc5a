/// What a tunnel that is not up shows of itself: a connection that has nothing better uses it all the same.
package enum Liveness: Int, Hashable, Sendable, Comparable {
    /// Nothing.
    case silent
    /// Something authentic comes by it, but probes are not answered: ours may not get there.
    case heard
    /// A probe was answered, and fewer than `downAfter` in a row have been lost since. So does every tunnel that is up
    /// or degraded.
    case answering

    package static func < (a: Liveness, b: Liveness) -> Bool { a.rawValue < b.rawValue }
}
