/// The two addresses of a tunnel's own link, ours and the far gateway's: what probes go between.
package struct InsideLink: Hashable, Sendable, BitwiseCopyable {
    package let local: IPAddress
    package let remote: IPAddress

    @inlinable package init(local: IPAddress, remote: IPAddress) {
        self.local = local
        self.remote = remote
    }
}
