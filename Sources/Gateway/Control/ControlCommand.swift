package import ControlAPI
package import WireGuard

/// What other threads ask of the control thread, through its mailbox. An answer is given exactly once, by
/// calling the closure.
package enum ControlCommand: Sendable {
    package typealias Answer<Value> = @Sendable (Result<Value, APIError>) -> Void

    case status(Answer<GatewayStatus>)
    case routes(Answer<RouteList>)
    case addRoute(RouteRequest, Answer<RouteEntry>)
    case removeRoute(prefix: String, Answer<RouteEntry>)
    /// The control server listens.
    case serverIsReady
    case serverHasFailed(String)
    /// Of the resolver: the endpoint that the name of a tunnel stands for now, or what is wrong with it.
    case resolved(PublicKey, Endpoint?, problem: String?)
}

extension ControlCommand {
    /// For one that comes too late.
    func refuse() {
        let error = APIError(code: .unavailable, message: "vgwd is stopping")
        switch self {
        case .status(let answer): answer(.failure(error))
        case .routes(let answer): answer(.failure(error))
        case .addRoute(_, let answer), .removeRoute(_, let answer): answer(.failure(error))
        case .serverIsReady, .serverHasFailed, .resolved: break
        }
    }
}
