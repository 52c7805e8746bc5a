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
    case removeRoute(prefix: String)

    /// `prefix` is the query parameter of that name, decoded.
    package init(method: String, path: String, prefix: String?) throws(APIError) {
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
                guard let prefix else {
                    throw APIError(
                        code: .badRequest, message: "which route?",
                        hint: "DELETE \(APIPath.routes)?\(APIPath.prefixParameter)=10.20.0.0/16")
                }
                self = .removeRoute(prefix: prefix)
            default: throw Self.wrongMethod(method, path, ["GET", "POST", "DELETE"])
            }
        default:
            if let name = Self.name(in: path, under: APIPath.connections) {
                self = try only("GET", then: .connection(name))
            } else if let name = Self.name(in: path, under: APIPath.tunnels) {
                self = try only("GET", then: .tunnel(name))
            } else {
                throw APIError(
                    code: .notFound, message: "there is nothing at \(path.prefix(128))",
                    hint: "try \(APIPath.status)")
            }
        }
    }

    /// The last part of `FOLDER/NAME`.
    private static func name(in path: String, under folder: String) -> String? {
        guard path.hasPrefix(folder + "/") else { return nil }
        let name = path.dropFirst(folder.count + 1)
        return name.isEmpty || name.contains("/") ? nil : String(name)
    }

    private static func wrongMethod(_ method: String, _ path: String, _ right: [String]) -> APIError {
        APIError(
            code: .methodNotAllowed, message: "\(method.prefix(16)) is not for \(path.prefix(128))",
            hint: "it takes \(right.joined(separator: ", "))")
    }
}
