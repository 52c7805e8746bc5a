/// `POST /v1/routes`: send what is for `prefix` to `connection`, and take from it what comes from there.
package struct RouteRequest: Codable, Hashable, Sendable {
    package var prefix: String
    package var connection: String

    package init(prefix: String, connection: String) {
        self.prefix = prefix
        self.connection = connection
    }
}

package struct RouteEntry: Codable, Hashable, Sendable {
    package enum Origin: String, Codable, Hashable, Sendable {
        case configured
        /// Added through the control API; gone after a restart.
        case runtime
    }

    package var prefix: String
    package var connection: String
    package var origin: Origin
    /// Whether the kernel has it. Under `table = "off"` it is somebody else's work, and this is false.
    package var installed: Bool
    /// Why not, where it should be.
    package var reason: String?

    package init(prefix: String, connection: String, origin: Origin, installed: Bool, reason: String? = nil) {
        self.prefix = prefix
        self.connection = connection
        self.origin = origin
        self.installed = installed
        self.reason = reason
    }
}

package struct RouteList: Codable, Hashable, Sendable {
    package var routes: [RouteEntry]

    package init(routes: [RouteEntry]) { self.routes = routes }
}
