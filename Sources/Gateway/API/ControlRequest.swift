package import ControlAPI

/// What a request to the control API is for, from its method, path and query alone.
package enum ControlRequest: Hashable, Sendable {
    case status
    case connections
    case connection(String)
    case tunnels
    case tunnel(String)
    case routes
    /// The route is in the body.
    case addRoute
    case removeRoute(prefix: String, save: Bool)
    case explainRoute(RouteQuestion)
    case order(TunnelOrder, tunnel: String)
    /// How long is in the body, where there is one.
    case drill(connection: String)
    /// Those after number `since`; nil is all that are kept.
    case events(since: UInt64?, follow: Bool)

    /// `query` holds decoded parameters.
    package init(method: String, path: String, query: [String: String] = [:]) throws(APIError) {
        func only(_ methods: String..., then request: ControlRequest) throws(APIError) -> ControlRequest {
            guard methods.contains(method) else { throw Self.wrongMethod(method, path, methods) }
            return request
        }
        switch path {
        case APIPath.status: self = try only("GET", then: .status)
        case APIPath.connections: self = try only("GET", then: .connections)
        case APIPath.tunnels: self = try only("GET", then: .tunnels)
        case APIPath.routes:
            switch method {
            case "GET": self = .routes
            case "POST": self = .addRoute
            case "DELETE":
                guard let prefix = query[APIPath.prefixParameter] else {
                    throw APIError(
                        code: .badRequest, message: "which route?",
                        hint: "DELETE \(APIPath.routes)?\(APIPath.prefixParameter)=10.20.0.0/16")
                }
                self = .removeRoute(prefix: prefix, save: try Self.flag(APIPath.saveParameter, in: query))
            default: throw Self.wrongMethod(method, path, ["GET", "POST", "DELETE"])
            }
        case APIPath.routeGet:
            guard method == "GET" else { throw Self.wrongMethod(method, path, ["GET"]) }
            guard let destination = query[APIPath.destinationParameter] else {
                throw APIError(
                    code: .badRequest, message: "the way to where?",
                    hint: "GET \(APIPath.routeGet)?\(APIPath.destinationParameter)=10.20.0.10")
            }
            self = .explainRoute(
                RouteQuestion(
                    destination: destination, source: query[APIPath.sourceParameter],
                    incoming: query[APIPath.incomingParameter]))
        case APIPath.events:
            guard method == "GET" else { throw Self.wrongMethod(method, path, ["GET"]) }
            self = .events(
                since: try Self.number(APIPath.sinceParameter, in: query),
                follow: try Self.flag(APIPath.followParameter, in: query))
        default:
            if let name = Self.name(in: path, under: APIPath.connections) {
                self = try only("GET", then: .connection(name))
            } else if let name = Self.name(in: path, under: APIPath.tunnels) {
                self = try only("GET", then: .tunnel(name))
            } else if let name = Self.name(in: path, under: APIPath.connections, before: "/drill") {
                self = try only("POST", then: .drill(connection: name))
            } else if let name = Self.name(in: path, under: APIPath.tunnels, before: "/down") {
                self = try only("POST", then: .order(.down, tunnel: name))
            } else if let name = Self.name(in: path, under: APIPath.tunnels, before: "/up") {
                self = try only("POST", then: .order(.up, tunnel: name))
            } else if let name = Self.name(in: path, under: APIPath.tunnels, before: "/prefer") {
                self = try only(
                    "POST", "DELETE", then: .order(method == "POST" ? .prefer : .unprefer, tunnel: name))
            } else {
                throw APIError(
                    code: .notFound, message: "there is nothing at \(path.prefix(128))",
                    hint: "try \(APIPath.status)")
            }
        }
    }

    /// Of `FOLDER/NAME` and what is behind it.
    private static func name(in path: String, under folder: String, before end: String = "") -> String? {
        guard path.hasPrefix(folder + "/"), path.hasSuffix(end) else { return nil }
        let name = path.dropFirst(folder.count + 1).dropLast(end.count)
        return name.isEmpty || name.contains("/") ? nil : String(name)
    }

    private static func flag(_ name: String, in query: [String: String]) throws(APIError) -> Bool {
        switch query[name] {
        case nil, "0", "false": return false
        case "1", "true", "": return true
        default:
            throw APIError(code: .badRequest, message: "\(name) is on or off", hint: "write \(name)=1")
        }
    }

    private static func number(_ name: String, in query: [String: String]) throws(APIError) -> UInt64? {
        guard let text = query[name] else { return nil }
        guard let number = UInt64(text) else {
            throw APIError(
                code: .badRequest, message: "\(name) is no number of an event",
                hint: "write the sequence of the last one that you have: \(name)=17")
        }
        return number
    }

    private static func wrongMethod(_ method: String, _ path: String, _ right: [String]) -> APIError {
        APIError(
            code: .methodNotAllowed, message: "\(method.prefix(16)) is not for \(path.prefix(128))",
            hint: "it takes \(right.joined(separator: ", "))")
    }
}
