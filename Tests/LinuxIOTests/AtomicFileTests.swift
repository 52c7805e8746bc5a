import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@Suite struct AtomicFileTests {
    /// Names in `folder`, hidden ones too.
    static func names(_ folder: String) throws -> Set<String> {
        guard let directory = unsafe opendir(folder) else {
            throw TestFailure(description: "opendir \(folder)")
        }
        defer { unsafe closedir(directory) }
        var names: Set<String> = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.insert(name) }
        }
        return names
    }

    @Test func `a file is written whole, with its mode, over what was there`() throws {
        try withFolder { folder in
            let path = "\(folder)/state"
            try AtomicFile.write(Array("one".utf8), to: path, mode: 0o600)
            try AtomicFile.write(Array("three".utf8), to: path, mode: 0o644)
            let read = try AtomicFile.read(path, limit: 100)
            #expect(read.bytes == Array("three".utf8))
            #expect(read.mode == 0o644)
            #expect(read.owner == getuid())
            #expect(try Self.names(folder) == ["state"])
        }
    }

    @Test func `on a full disk the old file stays and nothing else`() throws {
        try withFolder { folder in
            try shell("mount -t tmpfs -o size=64k tmpfs \(folder)")
            defer { try? shell("umount \(folder)") }
            let path = "\(folder)/state"
            try AtomicFile.write([1, 2, 3], to: path, mode: 0o600)
            let big = [UInt8](repeating: 7, count: 200_000)
            let error = systemError { () throws(SystemError) in
                try AtomicFile.write(big, to: path, mode: 0o600)
            }
            #expect(error?.code == ENOSPC)
            #expect(try AtomicFile.read(path, limit: 100).bytes == [1, 2, 3])
            #expect(try Self.names(folder) == ["state"])
        }
    }

    @Test func `on a read-only disk the old file stays, and the error says which`() throws {
        try withFolder { folder in
            try shell(
                "mount -t tmpfs tmpfs \(folder); echo -n old > \(folder)/state; mount -o remount,ro \(folder)"
            )
            defer { try? shell("umount \(folder)") }
            let path = "\(folder)/state"
            let error = systemError { () throws(SystemError) in
                try AtomicFile.write([1], to: path, mode: 0o600)
            }
            #expect(error == SystemError(call: "open \(folder)/.state.new", code: EROFS))
            #expect(try AtomicFile.read(path, limit: 100).bytes == Array("old".utf8))
        }
    }

    @Test func `what a killed writer left is taken over, and a link in its place is not followed`() throws {
        try withFolder { folder in
            let path = "\(folder)/state"
            try shell("head -c 5000 /dev/zero > \(folder)/.state.new; chmod 666 \(folder)/.state.new")
            try AtomicFile.write([9], to: path, mode: 0o600)
            let read = try AtomicFile.read(path, limit: 100)
            #expect(read.bytes == [9])
            #expect(read.mode == 0o600)
            try shell("ln -s \(folder)/elsewhere \(folder)/.state.new")
            let error = systemError { () throws(SystemError) in
                try AtomicFile.write([8], to: path, mode: 0o600)
            }
            #expect(error?.code == ELOOP)
            #expect(try AtomicFile.read(path, limit: 100).bytes == [9])
        }
    }

    @Test(arguments: ["mkfifo state", "echo old >x; ln -s x state", "mkdir state", "ln -s nowhere state"])
    func `what is no regular file is not replaced`(command: String) throws {
        try withFolder { folder in
            let path = "\(folder)/state"
            try shell("cd \(folder); \(command)")
            let (before, names) = (FileStatus(path, followsLinks: false), try Self.names(folder))
            let error = systemError { () throws(SystemError) in
                try AtomicFile.write([1], to: path, mode: 0o600)
            }
            #expect(error?.code == EEXIST)
            #expect(FileStatus(path, followsLinks: false) == before)
            #expect(try Self.names(folder) == names)
        }
    }

    @Test func `a FIFO that somebody reads is not written to in place of the temporary file`() throws {
        try withFolder { folder in
            try shell("mkfifo \(folder)/.state.new")
            let reader = unsafe open("\(folder)/.state.new", O_RDONLY | O_NONBLOCK)
            defer { close(reader) }
            let error = systemError { () throws(SystemError) in
                try AtomicFile.write([1], to: "\(folder)/state", mode: 0o600)
            }
            #expect(error?.code == EEXIST)
            #expect(
                FileStatus("\(folder)/.state.new")?.kind == .other && FileStatus("\(folder)/state") == nil)
        }
    }

    @Test func `writers at once each write a whole file`() throws {
        try withFolder { folder in
            let path = "\(folder)/state"
            let threads = try (UInt8(0)..<4).map { value in
                try Thread.spawn(name: "writer") {
                    for _ in 0..<25 {
                        try? AtomicFile.write([UInt8](repeating: value, count: 50_000), to: path, mode: 0o600)
                    }
                }
            }
            for thread in threads { thread.join() }
            let bytes = try AtomicFile.read(path, limit: 100_000).bytes
            #expect(bytes.count == 50_000)
            #expect(Set(bytes).count == 1)
            #expect(try Self.names(folder) == ["state"])
        }
    }

    @Test func `reading has a limit and takes only regular files`() throws {
        try withFolder { folder in
            try AtomicFile.write([UInt8](repeating: 0, count: 101), to: "\(folder)/long", mode: 0o600)
            #expect(
                systemError { () throws(SystemError) in _ = try AtomicFile.read("\(folder)/long", limit: 100)
                }?.code == EFBIG)
            #expect(
                systemError { () throws(SystemError) in _ = try AtomicFile.read("\(folder)/none", limit: 100)
                }?.code == ENOENT)
            try shell("mkfifo \(folder)/pipe")
            #expect(
                systemError { () throws(SystemError) in _ = try AtomicFile.read("\(folder)/pipe", limit: 100)
                }?.code == EINVAL)
        }
    }

    @Test func `a secret is read whole into locked memory, with the same limit`() throws {
        try withFolder { folder in
            let path = "\(folder)/key"
            try AtomicFile.write([1, 2, 3], to: path, mode: 0o640)
            let read = try AtomicFile.readSecret(path, limit: 4)
            #expect(read.bytes.isEqual(to: SecretBytes([1, 2, 3, 0, 0])))
            #expect(read.mode == 0o640)
            #expect(try AtomicFile.readSecret(path, limit: 3).bytes.count == 4)
            #expect(
                systemError { () throws(SystemError) in _ = try AtomicFile.readSecret(path, limit: 2) }?.code
                    == EFBIG)
            #expect(
                systemError { () throws(SystemError) in _ = try AtomicFile.readSecret(folder, limit: 2) }?
                    .code == EINVAL)
        }
    }

    @Test func `a directory is made once, and a file is not taken for one`() throws {
        try withFolder { folder in
            try AtomicFile.makeDirectory("\(folder)/d", mode: 0o755)
            try AtomicFile.makeDirectory("\(folder)/d", mode: 0o755)
            try shell("test $(stat -c %a \(folder)/d) = 755; touch \(folder)/f")
            #expect(
                systemError { () throws(SystemError) in
                    try AtomicFile.makeDirectory("\(folder)/f", mode: 0o755)
                }?.code == EEXIST)
            try AtomicFile.remove("\(folder)/f")
            try AtomicFile.remove("\(folder)/f")
            try shell("mkfifo \(folder)/f; ln -s \(folder)/d \(folder)/l")
            #expect(
                systemError { () throws(SystemError) in
                    try AtomicFile.makeDirectory("\(folder)/f", mode: 0o755)
                }?.code == EEXIST)
            try AtomicFile.makeDirectory("\(folder)/l", mode: 0o755)
        }
    }

    @Test func `a directory is shared with a group, of whom each can take away only his own`() throws {
        try withFolder { folder in
            try AtomicFile.makeDirectory("\(folder)/shared", mode: 0o755, sharedWith: "daemon")
            try shell("test \"$(stat -c '%a %u %G' \(folder)/shared)\" = '1775 0 daemon'")
            try AtomicFile.makeDirectory("\(folder)/own", mode: 0o755, sharedWith: "there-is-no-such-group")
            try shell("test \"$(stat -c '%a %u %g' \(folder)/own)\" = '755 0 0'")
            #expect(FileStatus("\(folder)/shared")?.isWritableByOthers == false)
            #expect(Users.user(named: "nobody") == 65534 && Users.user(named: "there-is-no-such-user") == nil)
        }
    }
}
