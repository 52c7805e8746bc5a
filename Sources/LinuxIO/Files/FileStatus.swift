internal import Glibc

/// What is at a path, and whose it is.
package struct FileStatus: Hashable, Sendable {
    package enum Kind: String, Hashable, Sendable {
        case regular = "a file"
        case directory = "a folder"
        case socket = "a socket"
        case link = "a symbolic link"
        case other = "a device or a pipe"
    }

    package let kind: Kind
    /// Permission bits, with those for set-user-id, set-group-id and sticky.
    package let mode: UInt32
    /// User number.
    package let owner: UInt32

    /// Nil if there is nothing, or this user may not look. A symbolic link is followed, or is itself what is at the
    /// path.
    package init?(_ path: String, followsLinks: Bool = true) {
        guard let status = System.status(path: path, followsLinks: followsLinks) else { return nil }
        kind =
            switch status.st_mode & S_IFMT {
            case S_IFREG: .regular
            case S_IFDIR: .directory
            case S_IFSOCK: .socket
            case S_IFLNK: .link
            default: .other
            }
        mode = status.st_mode & 0o7777
        owner = status.st_uid
    }

    /// Whether others than the owner may change it, be it by its mode or by an access list, which shows as the bits
    /// of the group. In a folder with the sticky bit they cannot take or replace what is not theirs.
    package var isWritableByOthers: Bool {
        mode & 0o022 != 0 && !(kind == .directory && mode & 0o1000 != 0)
    }
}
