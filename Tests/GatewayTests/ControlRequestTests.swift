import ControlAPI
import Testing

@testable import Gateway

@Suite struct ControlRequestTests {
    @Test(
        "paths lead to what they name",
        arguments: [
            ("GET", "/v1/status", ControlRequest.status), ("GET", "/v1/connections", .connections),
            ("GET", "/v1/connections/aws-vpc", .connection("aws-vpc")), ("GET", "/v1/tunnels", .tunnels),
            ("GET", "/v1/tunnels/zone-a", .tunnel("zone-a")), ("GET", "/v1/routes", .routes),
            ("POST", "/v1/routes", .addRoute),
        ])
    func paths(_ method: String, _ path: String, _ wanted: ControlRequest) throws {
        #expect(try ControlRequest(method: method, path: path, prefix: nil) == wanted)
    }

    @Test func removal() throws {
        #expect(
            try ControlRequest(method: "DELETE", path: "/v1/routes", prefix: "10.0.0.0/8")
                == .removeRoute(prefix: "10.0.0.0/8"))
        #expect(throws: APIError.self) {
            try ControlRequest(method: "DELETE", path: "/v1/routes", prefix: nil)
        }
    }

    @Test(
        "anything else is an error with its own code",
        arguments: [
            ("GET", "/", 404), ("GET", "/v2/status", 404), ("GET", "/v1/connections/", 404),
            ("GET", "/v1/tunnels/a/b", 404),
            ("POST", "/v1/status", 405), ("PUT", "/v1/routes", 405), ("DELETE", "/v1/tunnels/a", 405),
        ])
    func errors(_ method: String, _ path: String, _ status: Int) {
        let error = #expect(throws: APIError.self) {
            try ControlRequest(method: method, path: path, prefix: nil)
        }
        #expect(error?.code.httpStatus == status)
    }
}
