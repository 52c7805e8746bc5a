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

    /// `path` and `query` are decoded.
    package init(method: String, path: String, query: [String: String] = [:]) throws(APIError) {
        guard Printable.isPlain(path),
            query.allSatisfy({ Printable.isPlain($0.key) && Printable.isPlain($0.value) })
        else { throw Self.unprintable }
        let methods = Self.methods(at: path)
        guard !methods.isEmpty else {
            throw APIError(
                code: .notFound, message: "there is nothing at \(path.prefix(128))",
                hint: "try \(APIPath.status)")
        }
        guard methods.contains(method) else {
            throw APIError(
                code: .methodNotAllowed, message: "\(method.prefix(16)) is not for \(path.prefix(128))",
                hint: "it takes \(methods.joined(separator: ", "))")
        }
        switch path {
        case APIPath.status: self = .status
        case APIPath.connections: self = .connections
        case APIPath.tunnels: self = .tunnels
        case APIPath.routes where method == "GET": self = .routes
        case APIPath.routes where method == "POST": self = .addRoute
        case APIPath.routes: self = try Self.removal(query)
        case APIPath.routeGet: self = try Self.question(query)
        case APIPath.events:
            self = .events(
                since: try Self.number(APIPath.sinceParameter, in: query),
                follow: try Self.flag(APIPath.followParameter, in: query))
        default: self = Self.named(path, method)
        }
    }

    /// What a resource is asked for by; none where there is no such path.
    package static func methods(at path: String) -> [String] {
        switch path {
        case APIPath.status, APIPath.connections, APIPath.tunnels, APIPath.routeGet, APIPath.events: ["GET"]
        case APIPath.routes: ["GET", "POST", "DELETE"]
        default:
            switch place(of: path)?.end {
            case "": ["GET"]
            case "/prefer": ["POST", "DELETE"]
            case nil: []
            default: ["POST"]
            }
        }
    }

    /// A connection or a tunnel, and what is to be done with it.
    private static func place(of path: String) -> (folder: String, name: String, end: String)? {
        for (folder, ends) in [
            (APIPath.connections, ["", "/drill"]), (APIPath.tunnels, ["", "/down", "/up", "/prefer"]),
        ] {
            for end in ends {
                if let name = name(in: path, under: folder, before: end) { return (folder, name, end) }
            }
        }
        return nil
    }

    /// `methods` has an answer for the path.
    private static func named(_ path: String, _ method: String) -> ControlRequest {
        guard let (folder, name, end) = place(of: path) else { return .status }
        return switch end {
        case "/drill": .drill(connection: name)
        case "/down": .order(.down, tunnel: name)
        case "/up": .order(.up, tunnel: name)
        case "/prefer": .order(method == "POST" ? .prefer : .unprefer, tunnel: name)
        default: folder == APIPath.tunnels ? .tunnel(name) : .connection(name)
        }
    }

    private static func removal(_ query: [String: String]) throws(APIError) -> ControlRequest {
        guard let prefix = query[APIPath.prefixParameter] else {
            throw APIError(
                code: .badRequest, message: "which route?",
                hint: "DELETE \(APIPath.routes)?\(APIPath.prefixParameter)=10.20.0.0/16")
        }
        return .removeRoute(prefix: prefix, save: try flag(APIPath.saveParameter, in: query))
    }

    private static func question(_ query: [String: String]) throws(APIError) -> ControlRequest {
        guard let destination = query[APIPath.destinationParameter] else {
            throw APIError(
                code: .badRequest, message: "the way to where?",
                hint: "GET \(APIPath.routeGet)?\(APIPath.destinationParameter)=10.20.0.10")
        }
        return .explainRoute(
            RouteQuestion(
                destination: destination, source: query[APIPath.sourceParameter],
                incoming: query[APIPath.incomingParameter]))
    }

    /// For a name with a control character in it: it would be repeated in an answer, and so on a terminal.
    static let unprintable = APIError(
        code: .badRequest, message: "there is a control character in what was asked for",
        hint: "names and paths are text")

    static let undecodable = APIError(
        code: .badRequest, message: "the path is no text of UTF-8",
        hint: "behind a % there are two digits of hexadecimal")

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
}
