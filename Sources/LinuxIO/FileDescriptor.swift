/// A descriptor that is closed when its owner goes.
package struct FileDescriptor: ~Copyable, Sendable {
    /// For calls while the owner lives; never closed by others.
    package let rawValue: Int32

    package init(owning rawValue: Int32) { self.rawValue = rawValue }

    /// Gives the descriptor up unclosed.
    package consuming func release() -> Int32 {
        let raw = rawValue
        discard self
        return raw
    }

    deinit { System.close(rawValue) }
}
