/// The last few elements of a sequence, in order.
struct Ring<Element: Sendable>: Sendable {
    private var elements: [Element] = []
    /// Index of the oldest element, once all places are taken.
    private var start = 0
    private let capacity: Int

    init(capacity: Int) {
        precondition(capacity > 0)
        self.capacity = capacity
    }

    var count: Int { elements.count }
    var isEmpty: Bool { elements.isEmpty }

    /// True when the oldest had to go for it.
    @discardableResult
    mutating func append(_ element: Element) -> Bool {
        guard elements.count == capacity else {
            elements.append(element)
            return false
        }
        elements[start] = element
        start = (start + 1) % capacity
        return true
    }

    /// Oldest first.
    var all: [Element] { Array(elements[start...] + elements[..<start]) }

    mutating func takeAll() -> [Element] {
        let taken = all
        elements.removeAll(keepingCapacity: true)
        start = 0
        return taken
    }
}
