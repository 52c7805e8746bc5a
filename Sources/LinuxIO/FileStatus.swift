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

/// The users and groups of this host.
package enum Users {
    /// The one that this process runs as.
    package static var current: UInt32 { geteuid() }

    /// Nil if there is none of that name.
    package static func user(named name: String) -> UInt32? {
        unsafe withUnsafeTemporaryAllocation(byteCount: scratchSize, alignment: 16) { scratch in
            var entry = unsafe passwd()
            var found: UnsafeMutablePointer<passwd>?
            let text = unsafe scratch.baseAddress?.assumingMemoryBound(to: CChar.self)
            guard let text = unsafe text, unsafe getpwnam_r(name, &entry, text, scratchSize, &found) == 0,
                unsafe found != nil
            else { return nil }
            return unsafe entry.pw_uid
        }
    }

    package static func group(named name: String) -> UInt32? {
        unsafe withUnsafeTemporaryAllocation(byteCount: scratchSize, alignment: 16) { scratch in
            var entry = unsafe Glibc.group()
            var found: UnsafeMutablePointer<Glibc.group>?
            let text = unsafe scratch.baseAddress?.assumingMemoryBound(to: CChar.self)
            guard let text = unsafe text, unsafe getgrnam_r(name, &entry, text, scratchSize, &found) == 0,
                unsafe found != nil
            else { return nil }
            return unsafe entry.gr_gid
        }
    }

    /// More than any line of /etc/passwd and /etc/group that is ours to find.
    private static let scratchSize = 16384
}
