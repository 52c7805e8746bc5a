internal import Glibc

/// Where a command says why it fails, and the daemon logs.
package enum StandardError {
    package static let descriptor: Int32 = 2

    /// The text and a line end. Nobody is told when it cannot be written.
    package static func print(_ text: String) { _ = write(Array((text + "\n").utf8)) }

    /// Waits for whoever reads. Returns false if it cannot be written, or not all of it.
    package static func write(_ bytes: [UInt8], to descriptor: Int32 = descriptor) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let written = unsafe bytes.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return -Int(EINVAL) }
                return unsafe System.write(descriptor, base + offset, bytes.count - offset)
            }
            if written > 0 {
                offset += written
            } else if written == -Int(EAGAIN) {
                // Another program that has the same file open has made it nonblocking.
                var writable = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = unsafe System.poll(&writable, 1, milliseconds: -1)
            } else {
                return false
            }
        }
        return true
    }

    /// Whether standard error is the stream that systemd has named in JOURNAL_STREAM as DEVICE:INODE
    /// (systemd.exec(5)).
    package static func isJournal(stream: String?) -> Bool {
        guard let stream, let status = try? System.status(descriptor, "fstat") else { return false }
        return stream == "\(status.st_dev):\(status.st_ino)"
    }
}
