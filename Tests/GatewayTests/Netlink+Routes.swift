import LinuxIO

extension Netlink {
    /// One route, for a test; throws what the kernel says.
    func addRoute(_ route: NetlinkRoute, replacing: Bool = true) throws(SystemError) {
        try applyOne(.add(route, replacing: replacing))
    }

    func removeRoute(_ route: NetlinkRoute) throws(SystemError) { try applyOne(.remove(route)) }

    private func applyOne(_ change: NetlinkRouteChange) throws(SystemError) {
        var refusal: SystemError?
        try apply([change]) { _, error in refusal = error }
        if let refusal { throw refusal }
    }
}
