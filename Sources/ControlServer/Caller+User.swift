internal import GatewayCore
internal import LinuxIO

extension Caller {
    /// Looks into the users of this host, which may take a moment: not for the control thread.
    init(user: UInt32?) { self.init(name: user.map { Users.name(of: $0) ?? "user \($0)" }) }
}
