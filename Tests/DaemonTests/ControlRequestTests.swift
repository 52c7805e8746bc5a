import ControlAPI
import Testing

@testable import ControlServer

@Suite struct ControlRequestTests {
    @Test(
        "paths lead to what they name",
        arguments: [
            ("GET", "/v1/status", ControlRequest.status), ("GET", "/v1/connections", .connections),
            ("GET", "/v1/connections/aws-vpc", .connection("aws-vpc")), ("GET", "/v1/tunnels", .tunnels),
            ("GET", "/v1/tunnels/zone-a", .tunnel("zone-a")), ("GET", "/v1/routes", .routes),
            ("POST", "/v1/routes", .addRoute), ("GET", "/v1/events", .events(since: nil, follow: false)),
            ("POST", "/v1/connections/aws-vpc/drill", .drill(connection: "aws-vpc")),
            ("POST", "/v1/tunnels/zone-a/down", .order(.down, tunnel: "zone-a")),
            ("POST", "/v1/tunnels/zone-a/up", .order(.up, tunnel: "zone-a")),
            ("POST", "/v1/tunnels/zone-a/prefer", .order(.prefer, tunnel: "zone-a")),
            ("DELETE", "/v1/tunnels/zone-a/prefer", .order(.unprefer, tunnel: "zone-a")),
            // Names that are words of the API too.
            ("GET", "/v1/tunnels/up", .tunnel("up")), ("GET", "/v1/connections/drill", .connection("drill")),
            ("POST", "/v1/tunnels/up/up", .order(.up, tunnel: "up")),
        ])
    func paths(_ method: String, _ path: String, _ wanted: ControlRequest) throws {
        #expect(try ControlRequest(method: method, path: path) == wanted)
    }

    @Test func queries() throws {
        func events(_ query: [String: String]) throws(APIError) -> ControlRequest {
            try ControlRequest(method: "GET", path: "/v1/events", query: query)
        }
        #expect(try events(["since": "17", "follow": "1"]) == .events(since: 17, follow: true))
        #expect(try events(["follow": ""]) == .events(since: nil, follow: true))
        #expect(try events(["follow": "0"]) == .events(since: nil, follow: false))
        for wrong in [["since": "-1"], ["since": "x"], ["follow": "maybe"]] {
            let error = #expect(throws: APIError.self) { try events(wrong) }
            #expect(error?.code == .badRequest)
        }
        #expect(
            try ControlRequest(method: "GET", path: "/v1/routes/get", query: ["destination": "10.0.0.1"])
                == .explainRoute(RouteQuestion(destination: "10.0.0.1")))
        let error = #expect(throws: APIError.self) {
            try ControlRequest(method: "GET", path: "/v1/routes/get")
        }
        #expect(error?.code == .badRequest)
    }

    @Test func removal() throws {
        #expect(
            try ControlRequest(method: "DELETE", path: "/v1/routes", query: ["prefix": "10.0.0.0/8"])
                == .removeRoute(prefix: "10.0.0.0/8", save: false))
        #expect(
            try ControlRequest(
                method: "DELETE", path: "/v1/routes", query: ["prefix": "10.0.0.0/8", "save": "1"])
                == .removeRoute(prefix: "10.0.0.0/8", save: true))
        #expect(throws: APIError.self) {
            try ControlRequest(method: "DELETE", path: "/v1/routes")
        }
    }

    @Test(
        "what a resource is asked for by stands in one place",
        arguments: [
            ("/v1/status", ["GET"]), ("/v1/routes", ["GET", "POST", "DELETE"]),
            ("/v1/tunnels/a/down", ["POST"]),
            ("/v1/tunnels/a/prefer", ["POST", "DELETE"]), ("/v1/tunnels/a", ["GET"]), ("/v1/nothing", []),
            ("/v1/connections/a/drill", ["POST"]),
        ])
    func methods(_ path: String, _ methods: [String]) {
        #expect(ControlRequest.methods(at: path) == methods)
    }

    @Test("a control character in a path or a parameter is refused, and not repeated")
    func unprintable() {
        for (path, query) in [
            ("/v1/tunnels/a\u{0}", [:]), ("/v1/\u{1b}[31m", [:]), ("/v1/connections/\u{9b}", [:]),
            ("/v1/routes/get", ["destination": "\u{1b}c"]), ("/v1/events", ["\u{7}": "1"]),
        ] {
            let error = #expect(throws: APIError.self) {
                try ControlRequest(method: "GET", path: path, query: query)
            }
            #expect(error?.code == .badRequest)
            #expect(error.map { Printable.isPlain($0.message) } == true)
        }
    }

    @Test(
        "anything else is an error with its own code",
        arguments: [
            ("GET", "/", 404), ("GET", "/v2/status", 404), ("GET", "/v1/connections/", 404),
            ("GET", "/v1/tunnels/a/b", 404),
            ("POST", "/v1/status", 405), ("PUT", "/v1/routes", 405), ("DELETE", "/v1/tunnels/a", 405),
            ("GET", "/v1/tunnels/a/down", 405), ("DELETE", "/v1/tunnels/a/up", 405),
            ("GET", "/v1/connections/a/drill", 405), ("POST", "/v1/events", 405),
            ("POST", "/v1/tunnels//down", 404), ("POST", "/v1/tunnels/a/b/down", 404),
            ("POST", "/v1/tunnels/a/sideways", 404), ("POST", "/v1/routes/get", 405),
        ])
    func errors(_ method: String, _ path: String, _ status: Int) {
        let error = #expect(throws: APIError.self) {
            try ControlRequest(method: method, path: path)
        }
        #expect(error?.code.httpStatus == status)
    }
}
