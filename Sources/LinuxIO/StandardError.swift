/// What a command has to say when it fails.
package enum StandardError {
    /// The text and a line end. Nobody is told when it cannot be written.
    package static func print(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        var offset = 0
        while offset < bytes.count {
            let written = unsafe bytes.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return -1 }
                return unsafe System.write(2, base + offset, bytes.count - offset)
            }
            if written <= 0 { return }
            offset += written
        }
    }
}
