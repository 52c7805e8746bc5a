/// Where the control API answers: HTTP/1.1 with JSON bodies over a Unix socket.
///
/// | request | body | answer |
/// |---|---|---|
/// | `GET /v1/status` | | `GatewayStatus` |
/// | `GET /v1/connections` | | `ConnectionList` |
/// | `GET /v1/connections/NAME` | | `ConnectionStatus` |
/// | `GET /v1/tunnels` | | `TunnelList` |
/// | `GET /v1/tunnels/NAME` | | `TunnelStatus` |
/// | `GET /v1/routes` | | `RouteList` |
/// | `POST /v1/routes` | `RouteRequest` | 201 and the `RouteEntry` |
/// | `DELETE /v1/routes?prefix=PREFIX` | | 200 and the `RouteEntry` that was taken out |
///
/// Every other status carries an `APIError`. A prefix stands in the query, as its slash would split a path.
package enum APIPath {
    package static let defaultSocket = "/run/vgwd/vgwd.sock"

    package static let status = "/v1/status"
    package static let connections = "/v1/connections"
    package static let tunnels = "/v1/tunnels"
    package static let routes = "/v1/routes"

    /// The query parameter of `DELETE /v1/routes`.
    package static let prefixParameter = "prefix"

    /// Bodies past this size are refused unread, by both sides.
    package static let requestLimit = 64 * 1024
    package static let answerLimit = 16 * 1024 * 1024
}
