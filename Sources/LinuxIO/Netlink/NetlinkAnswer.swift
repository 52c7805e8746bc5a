internal import CNetlink
internal import Glibc

/// NLMSG_ERROR of the kernel: its errno for one message of a batch, 0 for an acknowledgement.
struct NetlinkAnswer {
    let sequence: UInt32
    let error: Int32

    /// Those of the next datagram. Throws EAGAIN where none comes within the socket's time limit.
    static func receive(_ call: String, from socket: borrowing NetlinkSocket) throws(SystemError)
        -> [NetlinkAnswer]
    {
        var buffer = [UInt8](repeating: 0, count: 8192)
        let count = System.attempt { unsafe Glibc.recv(socket.fd, &buffer, buffer.count, 0) }
        guard count >= 0 else { throw SystemError(call: call, code: Int32(-count)) }
        return parse(buffer[..<count])
    }

    static func parse(_ datagram: ArraySlice<UInt8>) -> [NetlinkAnswer] {
        func number(_ offset: Int) -> UInt32 {
            (0..<4).reversed().reduce(0) { $0 << 8 | UInt32(datagram[offset + $1]) }
        }
        var answers: [NetlinkAnswer] = []
        var offset = datagram.startIndex
        // struct nlmsghdr, then the errno, negated.
        while offset + 20 <= datagram.endIndex {
            let length = Int(number(offset))
            guard length >= 20, offset + length <= datagram.endIndex else { break }
            if UInt16(truncatingIfNeeded: number(offset + 4)) == UInt16(NLMSG_ERROR) {
                answers.append(
                    NetlinkAnswer(
                        sequence: number(offset + 8), error: 0 &- Int32(bitPattern: number(offset + 16))))
            }
            offset += (length + 3) & ~3
        }
        return answers
    }
}
