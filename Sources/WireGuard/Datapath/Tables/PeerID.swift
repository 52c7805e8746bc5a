/// Number of a peer within its device: small and dense, so that what is kept for each peer is an array.
package struct PeerID: Hashable, Sendable, BitwiseCopyable {
    package let rawValue: Int

    @inlinable package init(_ rawValue: Int) { self.rawValue = rawValue }
}
