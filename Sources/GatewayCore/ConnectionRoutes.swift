package import WireGuard

/// The prefixes behind a connection, each once, in the order in which they came. Finding, adding and removing one take
/// the same time whether there are ten or 100,000.
package struct ConnectionRoutes: Sequence, Sendable {
    /// With gaps where one was removed.
    private var slots: [ConnectionSpec.Route?] = []
    private var places: [IPPrefix: Int] = [:]

    package init(_ routes: some Sequence<ConnectionSpec.Route> = []) {
        slots.reserveCapacity(routes.underestimatedCount)
        places.reserveCapacity(routes.underestimatedCount)
        for route in routes { append(route) }
    }

    package var count: Int { places.count }
    package var isEmpty: Bool { places.isEmpty }

    package subscript(prefix: IPPrefix) -> ConnectionSpec.Route? { places[prefix].flatMap { slots[$0] } }

    /// The first of equal prefixes stays.
    package mutating func append(_ route: ConnectionSpec.Route) {
        if let first = places.updateValue(slots.count, forKey: route.prefix) {
            places[route.prefix] = first
        } else {
            slots.append(route)
        }
    }

    package mutating func remove(_ prefix: IPPrefix) {
        guard let place = places.removeValue(forKey: prefix) else { return }
        slots[place] = nil
        if slots.count > 2 * places.count + 16 { self = ConnectionRoutes(self) }
    }

    package func makeIterator() -> some IteratorProtocol<ConnectionSpec.Route> {
        slots.lazy.compactMap { $0 }.makeIterator()
    }
}

extension ConnectionRoutes: Equatable {
    package static func == (a: ConnectionRoutes, b: ConnectionRoutes) -> Bool { a.elementsEqual(b) }
}
