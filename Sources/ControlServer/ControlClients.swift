/// Who is connected to the control socket, and who of them is turned out when it gets crowded.
///
/// A client is silent until its request is whole, and again after its answer. When there are more clients than `share`,
/// the one that has been silent longest goes: those of other users first, then root's. So whoever asks at once is
/// answered, whatever number of others says nothing.
struct ControlClients<ID: Hashable> {
    /// A few places below the server's own limit, past which it lets new clients wait: turning one out takes a moment.
    let share: Int
    /// Those that are not being turned out.
    private(set) var count = 0
    /// The longest silence first.
    private var silent: [(id: ID, isRoot: Bool)] = []
    private var asking: [ID: Bool] = [:]

    init(limit: Int) { share = max(limit - max(limit / 8, 1), 1) }

    /// Returns who has to go for it, if anybody has.
    mutating func opened(_ id: ID, isRoot: Bool) -> ID? {
        let goes = count < share ? nil : silent.firstIndex { !$0.isRoot } ?? silent.indices.first
        let victim = goes.map { silent.remove(at: $0).id }
        if victim == nil { count += 1 }
        silent.append((id, isRoot))
        return victim
    }

    /// Its request is whole, and is being answered.
    mutating func asks(_ id: ID) {
        guard let index = silent.firstIndex(where: { $0.id == id }) else { return }
        asking[id] = silent.remove(at: index).isRoot
    }

    mutating func wasAnswered(_ id: ID) {
        guard let isRoot = asking.removeValue(forKey: id) else { return }
        silent.append((id, isRoot))
    }

    /// Without effect on one that was turned out.
    mutating func closed(_ id: ID) {
        let before = silent.count
        silent.removeAll { $0.id == id }
        if asking.removeValue(forKey: id) != nil || silent.count < before { count -= 1 }
    }
}
