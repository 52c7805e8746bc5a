internal import GatewayCore
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What routing daemons have routed to the far ends of dynamic connections, taken over no oftener than costs an eighth
/// of the time.
struct LearnedRouteWatch {
    /// A routing daemon may lay thousands of routes, one by one.
    private static let shortestInterval: Duration = .milliseconds(50)
    /// After it has learned, the control thread does something else for so many times as long: a far gateway may make
    /// many routes come and go fast.
    private static let restFactor = 8

    private var routes: LearnedRoutes
    private var interval = Self.shortestInterval
    /// When to take over what others have routed to us; nil while nothing has changed.
    private(set) var deadline: Instant?
    /// Some learned prefixes are past a limit, and the log says so.
    private var isFull = false

    init(tun: UInt32) { routes = LearnedRoutes(interface: tun) }

    mutating func follow(tun: UInt32) { routes = LearnedRoutes(interface: tun) }

    /// Returns true if anything has changed.
    mutating func handle(_ event: NetlinkEvent) -> Bool { routes.handle(event) }

    mutating func schedule(hasChanged: Bool, now: Instant) {
        if hasChanged || routes.needsDump { deadline = deadline ?? now + interval }
    }

    /// Gives dynamic connections the prefixes that others have routed to their far ends.
    mutating func learn(
        _ gateway: inout Gateway, _ keeper: borrowing RouteKeeper, now: Instant, _ log: Logger
    ) {
        deadline = nil
        let begin = SystemClock.now()
        if routes.needsDump {
            do throws(SystemError) {
                _ = routes.replace(try keeper.routesIntoTunnel())
            } catch {
                log.error("kernel routes cannot be read", metadata: ["error": "\(error)"])
            }
        }
        let hasRoom = gateway.learn(now: now) { routes.prefixes(via: $0) }
        let isFull = routes.isTruncated || !hasRoom
        if isFull, !self.isFull {
            log.warning(
                "too many routes lead into the interface: those past the limit are not carried",
                metadata: ["limit": "\(LearnedGuard.limit)"])
        }
        self.isFull = isFull
        interval = max(Self.shortestInterval, (SystemClock.now() - begin) * Self.restFactor)
    }
}
