import Testing

@testable import ControlServer

@Suite struct ControlClientsTests {
    @Test func `when it is crowded the longest silent goes, and root's last`() {
        var clients = ControlClients<Int>(limit: 8)
        #expect(clients.share == 7)
        #expect(clients.opened(0, isRoot: true) == nil)
        for id in 1...6 { #expect(clients.opened(id, isRoot: false) == nil) }
        clients.asks(1)
        #expect(clients.opened(7, isRoot: false) == 2)
        clients.closed(2)
        clients.wasAnswered(1)
        // It was silent for less long than those that have never asked.
        #expect((8...12).map { clients.opened($0, isRoot: true) } == [3, 4, 5, 6, 7])
        #expect(clients.opened(13, isRoot: true) == 1)
        #expect(clients.opened(14, isRoot: true) == 0, "only root's are left")
        #expect(clients.count == 7)
    }

    @Test func `who asks is never turned out, and who goes by himself leaves his place`() {
        var clients = ControlClients<Int>(limit: 4)
        for id in 0..<3 {
            #expect(clients.opened(id, isRoot: false) == nil)
            clients.asks(id)
        }
        #expect(clients.opened(3, isRoot: false) == nil, "the server's own limit is what is left")
        clients.closed(3)
        clients.closed(0)
        #expect(clients.count == 2)
        #expect(clients.opened(4, isRoot: false) == nil)
        #expect(clients.opened(5, isRoot: false) == 4)
        clients.closed(4)
        #expect(clients.count == 3)
    }
}
