/// Where the control API answers: HTTP/1.1 with JSON bodies over a Unix socket.
///
/// | request | body | answer |
/// |---|---|---|
/// | `GET /v1/status` | | `GatewayStatus` |
/// | `GET /v1/connections` | | `ConnectionList` |
/// | `GET /v1/connections/NAME` | | `ConnectionStatus` |
/// | `POST /v1/connections/NAME/drill` | `DrillRequest`, or none | `DrillReport`, when it is over |
/// | `GET /v1/tunnels` | | `TunnelList` |
/// | `GET /v1/tunnels/NAME` | | `TunnelStatus` |
/// | `POST /v1/tunnels/NAME/down`, `up`, `prefer` | | `TunnelStatus` |
/// | `DELETE /v1/tunnels/NAME/prefer` | | `TunnelStatus` |
/// | `GET /v1/routes` | | `RouteList` |
/// | `GET /v1/routes/get?destination=ADDRESS[&from=ADDRESS][&iif=DEVICE]` | | `RouteExplanation` |
/// | `POST /v1/routes` | `RouteRequest` | 201 and the `RouteEntry` |
/// | `DELETE /v1/routes?prefix=PREFIX[&save=1]` | | 200 and the `RouteEntry` that was taken out |
/// | `GET /v1/events[?since=SEQUENCE][&follow=1]` | | `EventLine`, one a line |
///
/// Every other status carries an `APIError`. A prefix stands in the query, as its slash would split a path.
///
/// Events come oldest first: all that the daemon keeps, or those after `since`. A `since` that was not reached
/// yet is of an earlier run, and all are sent. With `follow` the answer goes on until either end closes it.
package enum APIPath {
    package static let defaultSocket = "/run/vgwd/vgwd.sock"

    package static let status = "/v1/status"
    package static let connections = "/v1/connections"
    package static let tunnels = "/v1/tunnels"
    package static let routes = "/v1/routes"
    package static let routeGet = "/v1/routes/get"
    package static let events = "/v1/events"

    package static func drill(_ connection: String) -> String { "\(connections)/\(connection)/drill" }

    package static func tunnel(_ name: String) -> String { "\(tunnels)/\(name)" }

    // Query parameters. A flag is on as `1`.
    package static let prefixParameter = "prefix"
    package static let saveParameter = "save"
    package static let destinationParameter = "destination"
    package static let sourceParameter = "from"
    package static let incomingParameter = "iif"
    package static let sinceParameter = "since"
    package static let followParameter = "follow"

    /// Bodies past this size are refused unread, by both sides.
    package static let requestLimit = 64 * 1024
    package static let answerLimit = 16 * 1024 * 1024

    /// What `%` and two digits of hexadecimal stand for (RFC 3986, section 2.1). Nil where that is no text.
    package static func percentDecoded(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            let digits = rest.prefix(2)
            guard digits.count == 2, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
            else { return nil }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
