internal import DequeModule

/// The last few elements of a sequence, in order.
struct Ring<Element: Sendable>: Sendable {
    private var elements: Deque<Element> = []
    private let capacity: Int

    init(capacity: Int) {
        precondition(capacity > 0)
        self.capacity = capacity
    }

    var count: Int { elements.count }
    var isEmpty: Bool { elements.isEmpty }

    /// Returns true if the oldest was dropped for it.
    @discardableResult
    mutating func append(_ element: Element) -> Bool {
        let isFull = elements.count == capacity
        if isFull { elements.removeFirst() }
        elements.append(element)
        return isFull
    }

    /// Oldest first.
    var all: [Element] { Array(elements) }

    mutating func takeAll() -> [Element] {
        defer { elements.removeAll(keepingCapacity: true) }
        return all
    }
}
