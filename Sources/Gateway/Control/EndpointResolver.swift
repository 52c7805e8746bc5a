internal import LinuxIO
internal import WireGuard

/// Names of endpoints to addresses, off the control thread: a name server may take ten seconds to say nothing,
/// and nobody may wait for that.
///
/// Concurrency: control asks; the answer comes by the closure, on the resolver's thread.
final class EndpointResolver: Sendable {
    typealias Answer = @Sendable (Endpoint?, _ problem: String?) -> Void
    typealias FullAnswer = @Sendable (Result<[NameResolver.Address], NameResolver.Problem>) -> Void

    private let resolver = NameResolver()

    /// The first address, as the host prefers them.
    func resolve(_ host: String, port: UInt16, answer: @escaping Answer) {
        resolver.resolve(host) { result in
            switch result {
            case .success(let addresses):
                answer(addresses.first.map { Endpoint(address: $0.address, port: port) }, nil)
            case .failure(let problem): answer(nil, "\(problem)")
            }
        }
    }

    /// All addresses, in the order that the host prefers, and how long each holds.
    func resolve(_ host: String, answer: @escaping FullAnswer) { resolver.resolve(host, answer: answer) }

    /// At the end of a run: what is still open is answered as unresolved.
    func stop() { resolver.stop() }
}
