package import ControlAPI
package import GatewayCore
package import LinuxIO
internal import Synchronization
package import WireGuard

/// What other threads ask of the control thread, through its mailbox. An answer is given exactly once, by
/// calling the closure.
package enum ControlCommand: Sendable {
    package typealias Answer<Value> = @Sendable (Result<Value, APIError>) -> Void

    case status(Answer<GatewayStatus>)
    case routes(Answer<RouteList>)
    case addRoute(RouteRequest, by: Caller, Answer<RouteEntry>)
    case removeRoute(prefix: String, save: Bool, by: Caller, Answer<RouteEntry>)
    case explainRoute(RouteQuestion, Answer<RouteExplanation>)
    case tunnel(TunnelOrder, name: String, by: Caller, Answer<TunnelStatus>)
    /// Answered when the drill is over.
    case drill(connection: String, DrillRequest, DrillWaiter, by: Caller, Answer<DrillReport>)
    /// Some drill's waiter has left. It may be over, or not even have begun.
    case drillIsAbandoned
    case events(since: UInt64?, follow: Bool, Answer<EventPage>)
    /// The control server listens.
    case serverIsReady
    case serverHasFailed(String, exitStatus: Int32)
    /// The resolver's answer: the addresses that the name of a tunnel's endpoint stands for now, or what is wrong with
    /// it.
    case resolved(PeerID, host: String, port: UInt16, Result<[NameResolver.Address], NameResolver.Problem>)
    case hookHasFailed(HookRunner.Failure)
    case forwardingWasSurveyed([ForwardingProblem])
}

extension ControlCommand {
    /// For one that comes too late.
    func refuse() {
        let error = APIError(code: .unavailable, message: "vgwd is stopping")
        switch self {
        case .status(let answer): answer(.failure(error))
        case .routes(let answer): answer(.failure(error))
        case .addRoute(_, _, let answer), .removeRoute(_, _, _, let answer): answer(.failure(error))
        case .explainRoute(_, let answer): answer(.failure(error))
        case .tunnel(_, _, _, let answer): answer(.failure(error))
        case .drill(_, _, _, _, let answer): answer(.failure(error))
        case .events(_, _, let answer): answer(.failure(error))
        case .drillIsAbandoned, .serverIsReady, .serverHasFailed, .resolved, .hookHasFailed,
            .forwardingWasSurveyed:
            break
        }
    }
}

/// Whoever waits for a drill.
package final class DrillWaiter: Sendable {
    private let isGone = Atomic(false)

    package init() {}

    /// Before control is told of it: the word may overtake the request.
    package func leave() { isGone.store(true, ordering: .sequentiallyConsistent) }

    package var hasLeft: Bool { isGone.load(ordering: .sequentiallyConsistent) }
}

extension Result<[NameResolver.Address], NameResolver.Problem> {
    /// The resolver's answer in the gateway's types.
    var forGateway: Result<[ResolvedAddress], ResolutionProblem> {
        map { addresses in
            addresses.map { ResolvedAddress($0.address, scope: $0.scope, timeToLive: $0.timeToLive) }
        }.mapError { ResolutionProblem("\($0)", isOfLocalStub: $0.isOfLocalStub) }
    }
}
