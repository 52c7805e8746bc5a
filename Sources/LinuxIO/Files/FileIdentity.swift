internal import Glibc

/// Tells a file from another one that has its name now.
package struct FileIdentity: Hashable, Sendable {
    private let device: UInt64
    private let inode: UInt64

    /// Nil when there is no file at the path.
    package init?(path: String) {
        guard let status = System.status(path: path) else { return nil }
        self.init(status)
    }

    init(_ status: stat) {
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }
}
