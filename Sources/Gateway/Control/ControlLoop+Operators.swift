internal import ControlAPI
internal import WireGuard

/// The operator's hand: tunnels taken down and preferred, drills, ways explained, routes kept.
extension ControlLoop {
    private static func unfinished(_ feature: String) -> APIError {
        APIError(code: .notInThisVersion, message: "\(feature): not in this version")
    }

    func order(_ order: TunnelOrder, tunnel name: String) throws(APIError) -> TunnelStatus {
        throw Self.unfinished("orders to a tunnel")
    }

    /// The answer is given when the drill is over, or refused at once. Whoever holds an answer when the gateway
    /// ends refuses it (`finish`).
    func drill(
        _ connection: String, _ request: DrillRequest, answer: @escaping ControlCommand.Answer<DrillReport>
    ) {
        answer(.failure(Self.unfinished("drills")))
    }

    func explainRoute(to destination: IPAddress) throws(APIError) -> RouteExplanation {
        throw Self.unfinished("the way of a packet")
    }

    /// Writes the runtime routes that outlive this run, with one more or one less. It is in effect already; what
    /// throws here is taken back.
    func saveRoutes(adding: Connection.Route? = nil, of connection: String? = nil, removing: IPPrefix? = nil)
        throws(APIError)
    {
        throw Self.unfinished("routes that outlive a restart")
    }
}
