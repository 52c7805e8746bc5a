import GatewayCore
import LinuxIO
import Testing
import WireGuard

/// What the kernel does not let out, in words.
@Suite struct SendProblemTests {
    private static let bound = UnderlayBinding(device: "eth1", source: IPAddress("192.0.2.1"))

    /// errno, the binding, what is said, what is to be done.
    private static let cases: [(Int32, UnderlayBinding, String, String)] = [
        (
            1, UnderlayBinding(), "sending to 198.51.100.10:51820 fails: Operation not permitted (EPERM)",
            "a firewall of this host drops it on its way out: 'nft list ruleset' shows the rule"
        ),
        (
            101, UnderlayBinding(),
            "sending to 198.51.100.10:51820 fails: Network is unreachable (ENETUNREACH)",
            "this host has no route there: see 'ip route get 198.51.100.10 mark 51820'"
        ),
        (
            22, bound,
            "sending from 192.0.2.1 by eth1 to 198.51.100.10:51820 fails: Invalid argument (EINVAL)",
            "is 192.0.2.1 an address of this host? See 'ip address' and 'ip route get 198.51.100.10 from 192.0.2.1 oif eth1"
        ),
        (22, UnderlayBinding(), "fails: Invalid argument", "a route of type blackhole is in the way"),
        (13, UnderlayBinding(), "fails: Permission denied", "a route of type prohibit"),
        (
            113, UnderlayBinding(), "fails: No route to host",
            "a route of type unreachable is in the way, or nobody"
        ),
        (100, UnderlayBinding(), "fails: Network is down", "see 'ip link'"),
        (105, UnderlayBinding(), "fails: No buffer space available", "queue"),
    ]

    @Test(arguments: cases)
    func `an errno of sending is said with the address and what to do`(
        code: Int32, binding: UnderlayBinding, says: String, remedy: String
    ) throws {
        let problem = SendProblem(
            code, "\(SystemError.text(code)) (\(SystemError.name(code)))",
            to: try #require(Endpoint("198.51.100.10:51820")), by: binding, mark: 51820)
        #expect(problem.description.contains(says))
        #expect(problem.remedy.contains(remedy))
    }
}
