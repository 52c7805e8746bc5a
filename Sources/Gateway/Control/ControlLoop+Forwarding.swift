internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Whether this host forwards what goes between its networks and the tunnels (``ForwardingSurvey``): looked at again and
/// again, as sysctl and firewalls tell nobody.
///
/// Each look is on a thread of its own, which comes and goes: a host's packet filter may have a hundred thousand rules, and
/// to list them would keep control from its timers.
extension ControlLoop {
    static let surveyInterval: Duration = .seconds(30)
    /// After a change of links or routes, which firewalls follow.
    private static let surveyDelay: Duration = .seconds(2)

    func surveyForwardingSoon() {
        guard surveyAt != nil else { return }
        surveyAt = min(surveyAt ?? now, now + Self.surveyDelay)
    }

    func surveyForwarding() {
        surveyAt = now + Self.surveyInterval
        guard isTunHere, !isSurveying else { return }
        let tunnels = state.connections.flatMap(\.tunnels)
        let endpoints = Set(self.tunnels.peers.compactMap { device.path(of: $0)?.underlay?.endpoint.address })
        let devices = tunnels.compactMap(\.binding.device)
        let families = Set(state.connections.flatMap(\.prefixes).map(\.family))
        let (mark, name, networks, mailbox) = (state.firewallMark, tun.name, localNetworks, mailbox)
        isSurveying = true
        do throws(SystemError) {
            _ = try Thread.spawn(name: "survey") {
                let question = ForwardingSurvey.Question(
                    interface: name,
                    outerInterfaces: PreferredSource.outerInterfaces(
                        to: endpoints, boundTo: devices, mark: mark),
                    families: families, networks: networks)
                mailbox.post(.forwardingWasSurveyed(ForwardingSurvey(question).problems))
            }
        } catch {
            // No thread is to be had now. The next look is in half a minute.
            isSurveying = false
        }
    }

    func forwardingWasSurveyed(_ found: [ForwardingProblem]) {
        isSurveying = false
        for problem in found where !forwardingProblems.contains(problem) {
            raise(
                .forwardingBlocked, reason: "not-forwarded", "\(problem): \(problem.remedy)",
                details: ["problem": "\(problem)", "hint": problem.remedy], level: .warning)
        }
        for problem in forwardingProblems where !found.contains(problem) {
            raise(
                .forwardingRestored, reason: "forwarded", "no longer so: \(problem)",
                details: ["problem": "\(problem)"], level: .notice)
        }
        forwardingProblems = found
    }

    var forwardingNotices: [String] { forwardingProblems.map { "\($0): \($0.remedy)" } }
}
