package import LinuxIO
internal import WireGuard

extension DatagramReceiver {
    /// Datagrams as they were sent, until there are `count` or none comes for a while.
    package mutating func segments(_ count: Int, from socket: UDPSocket) -> [[UInt8]] {
        var poll = PollSet(socket.fd)
        var segments: [[UInt8]] = []
        while segments.count < count, poll.wait(timeout: .milliseconds(500)) > 0 {
            for i in 0..<receive(from: socket) { segments += self.segments(i) }
        }
        return segments
    }

    /// The ports that `count` datagrams were sent from, as they come.
    package mutating func senders(_ count: Int, at socket: UDPSocket) -> [UInt16] {
        var poll = PollSet(socket.fd)
        var ports: [UInt16] = []
        while ports.count < count, poll.wait(timeout: .seconds(5)) > 0 {
            for i in 0..<receive(from: socket) { ports += segments(i).map { _ in underlay(i).endpoint.port } }
        }
        return ports
    }
}
