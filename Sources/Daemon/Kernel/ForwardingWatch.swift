internal import ControlAPI
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// Whether this host forwards what goes between its networks and the tunnels (``ForwardingSurvey``): looked at again and
/// again, as sysctl and firewalls tell nobody.
///
/// Each look is on a thread of its own, which comes and goes: a host's packet filter may have a hundred thousand rules, and
/// to list them would keep control from its timers.
struct ForwardingWatch {
    private static let interval: Duration = .seconds(30)
    /// After a change of links or routes, which firewalls follow.
    private static let delay: Duration = .seconds(2)

    private var problems: [ForwardingProblem] = []
    /// When to look; nil where nobody is to.
    private(set) var deadline: Instant?
    private var isLooking = false

    mutating func start(now: Instant) { deadline = now }

    mutating func lookSoon(now: Instant) { deadline = deadline.map { min($0, now + Self.delay) } }

    /// `report` gets what was found, on another thread: hand it to `found`.
    mutating func look(
        _ gateway: borrowing Gateway, interface: String, now: Instant,
        report: @escaping @Sendable ([ForwardingProblem]) -> Void
    ) {
        deadline = now + Self.interval
        guard gateway.interface.isHere, !isLooking else { return }
        let endpoints = gateway.endpoints
        let devices = gateway.underlays.compactMap(\.binding.device)
        let families = Set(gateway.spec.connections.flatMap(\.prefixes).map(\.family))
        let (mark, networks) = (gateway.spec.firewallMark, gateway.localNetworks)
        isLooking = true
        do throws(SystemError) {
            _ = try Thread.spawn(name: "survey") {
                let question = ForwardingSurvey.Question(
                    interface: interface,
                    outerInterfaces: PreferredSource.outerInterfaces(
                        to: endpoints, boundTo: devices, mark: mark),
                    families: families, networks: networks)
                report(ForwardingSurvey(question).problems)
            }
        } catch {
            // No thread is to be had now. The next look is in half a minute.
            isLooking = false
        }
    }

    mutating func found(_ found: [ForwardingProblem], _ gateway: inout Gateway, now: Instant) {
        isLooking = false
        for problem in found where !problems.contains(problem) {
            gateway.raise(
                .forwardingBlocked, reason: "not-forwarded", "\(problem): \(problem.remedy)",
                details: ["problem": "\(problem)", "hint": problem.remedy], level: .warning, now: now)
        }
        for problem in problems where !found.contains(problem) {
            gateway.raise(
                .forwardingRestored, reason: "forwarded", "no longer so: \(problem)",
                details: ["problem": "\(problem)"], level: .notice, now: now)
        }
        problems = found
    }

    var notices: [String] { problems.map { "\($0): \($0.remedy)" } }
}
