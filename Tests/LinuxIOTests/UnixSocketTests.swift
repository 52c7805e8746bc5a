import Glibc
import LinuxIO
import Synchronization
import TestSupport
import Testing

@Suite struct UnixSocketTests {
    static func accept(_ listener: inout UnixListener) throws -> UnixStream {
        var poll = PollSet(listener.fd)
        _ = poll.wait(timeout: .seconds(5))
        guard let stream = try listener.accept() else { throw TestFailure(description: "no client") }
        return stream
    }

    static func hasClient(_ listener: inout UnixListener) throws -> Bool {
        if try listener.accept() != nil { return true }
        return false
    }

    @Test func `bytes go both ways, and the end of the stream is told`() throws {
        try withFolder { folder in
            var listener = try UnixListener(path: "\(folder)/s")
            #expect(try Self.hasClient(&listener) == false)
            var client: UnixStream? = try UnixStream.connect(path: "\(folder)/s")
            let server = try Self.accept(&listener)
            #expect(server.credentials?.user == getuid())
            #expect(server.credentials?.process == UInt32(getpid()))
            var bytes: [UInt8] = []
            #expect(server.read(into: &bytes) == .wouldBlock)
            #expect(client?.write([1, 2, 3][...]) == 3)
            #expect(server.read(into: &bytes, limit: 2) == .bytes(2))
            #expect(server.read(into: &bytes) == .bytes(1))
            #expect(bytes == [1, 2, 3])
            let big = [UInt8](repeating: 5, count: 10_000_000)
            let taken = server.write(big[...]) ?? 0
            #expect(taken > 0 && taken < big.count)
            #expect(server.write(big[...]) == 0)
            client = nil
            let isClosed = eventually { server.read(into: &bytes) == .closed }
            #expect(isClosed)
            #expect(server.write([1][...]) == nil, "a broken pipe is no signal")
        }
    }

    @Test(arguments: [UInt32(0o600), 0o660]) func `the file has the mode asked for`(mode: UInt32) throws {
        try withFolder { folder in
            let listener = try UnixListener(path: "\(folder)/s", mode: mode)
            try shell("test $(stat -c %a \(folder)/s) = \(String(mode, radix: 8))")
            #expect(listener.isPresent == true)
        }
    }

    @Test func `there is no moment in which the file is there and refuses`() throws {
        try withFolder { folder in
            let rounds = 200
            let answered = Atomic<Int>(0)
            let refused = Atomic<Int>(0)
            // Connects to each socket as soon as it has a name; the listener waits for that.
            let client = try Thread.spawn(name: "client") {
                while answered.load(ordering: .acquiring) < rounds {
                    do throws(SystemError) {
                        _ = try UnixStream.connect(path: "\(folder)/\(answered.load(ordering: .relaxed))")
                        answered.add(1, ordering: .releasing)
                    } catch {
                        guard error.code != ENOENT else { continue }
                        refused.add(1, ordering: .relaxed)
                        usleep(100)
                    }
                }
            }
            for round in 0..<rounds {
                let listener = try UnixListener(path: "\(folder)/\(round)")
                while answered.load(ordering: .acquiring) == round { sched_yield() }
                #expect(listener.isPresent == true)
            }
            client.join()
            #expect(refused.load(ordering: .relaxed) == 0)
            #expect(try AtomicFileTests.names(folder) == [], "no hidden name is left")
        }
    }

    @Test func `what a killed one left under the hidden name is not in the way`() throws {
        try withFolder { folder in
            // A hard link outlives the listener, as the file of a killed daemon does.
            let killed = try UnixListener(path: "\(folder)/x")
            try shell("ln \(folder)/x \(folder)/.s.new")
            try Self.drop(killed)
            #expect(try AtomicFileTests.names(folder) == [".s.new"])
            let isMade = eventually {
                systemError { () throws(SystemError) in _ = try UnixListener(path: "\(folder)/s") } == nil
            }
            #expect(isMade)
            #expect(try AtomicFileTests.names(folder) == [])
        }
    }

    @Test func `a socket that is answered is not taken over, one that is stale is`() throws {
        try withFolder { folder in
            let path = "\(folder)/s"
            let living = try UnixListener(path: path)
            let error = systemError { () throws(SystemError) in _ = try UnixListener(path: path) }
            #expect(error == SystemError(call: "bind \(path)", code: EADDRINUSE))
            #expect(living.isPresent == true)
            // A hard link outlives the listener, as the file of a killed daemon does.
            try shell("ln \(path) \(folder)/stale")
            try Self.drop(living)
            try shell("test ! -e \(path); mv \(folder)/stale \(path)")
            let isReplaced = eventually {
                systemError { () throws(SystemError) in _ = try UnixListener(path: path) } == nil
            }
            #expect(isReplaced)
        }
    }

    private static func drop(_ listener: consuming UnixListener) throws {}

    @Test(
        arguments: [
            "echo precious >NAME", "mkfifo NAME", "echo precious >x; ln -s x NAME", "ln -s nowhere NAME",
            "mkdir NAME",
        ], ["s", ".s.new"])
    func `what is no socket is left alone`(command: String, name: String) throws {
        try withFolder { folder in
            try shell("cd \(folder); \(command.replacing("NAME", with: name))")
            let before = FileStatus("\(folder)/\(name)", followsLinks: false)
            #expect(
                systemError { () throws(SystemError) in _ = try UnixListener(path: "\(folder)/s") }?.code
                    == EEXIST)
            #expect(FileStatus("\(folder)/\(name)", followsLinks: false) == before)
            #expect(name == "s" || FileStatus("\(folder)/s") == nil)
        }
    }

    @Test func `removal of the file is seen, and another's file in its place stays`() throws {
        try withFolder { folder in
            let path = "\(folder)/s"
            let first = try UnixListener(path: path)
            try shell("rm \(path)")
            #expect(first.isPresent == false)
            let second = try UnixListener(path: path)
            #expect(first.isPresent == false)
            try Self.drop(first)
            #expect(second.isPresent == true)
        }
    }

    @Test func `a path too long is refused`() {
        let path = "/tmp/" + String(repeating: "x", count: 110)
        #expect(
            systemError { () throws(SystemError) in _ = try UnixListener(path: path) }?.code == ENAMETOOLONG)
    }

    @Test func `a listening socket from another program is adopted, and nothing else is`() throws {
        try withFolder { folder in
            let theirs = try Self.plainListener("\(folder)/s")
            defer { close(theirs) }
            var ours = try UnixListener(adopting: dup(theirs))
            #expect(ours.path == "\(folder)/s")
            let client = try UnixStream.connect(path: "\(folder)/s")
            #expect(try Self.accept(&ours).credentials?.process == UInt32(getpid()))
            let error = systemError { () throws(SystemError) in _ = try UnixListener(adopting: dup(client.fd))
            }
            #expect(error?.code == EINVAL)
            #expect(ours.isPresent == true)
        }
    }

    /// As another program makes one: it is bound under the name that it has.
    private static func plainListener(_ path: String) throws -> Int32 {
        let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: Array(path.utf8)) }
        let code = unsafe withUnsafePointer(to: address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                unsafe bind(fd, name, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard fd >= 0, code == 0, listen(fd, 16) == 0 else {
            throw TestFailure(description: "no listener at \(path): errno \(errno)")
        }
        return fd
    }

    @Test func `out of descriptors, a client is turned away and the listener works on`() async {
        await #expect(processExitsWith: .success) { try UnixSocketTests.runOutOfDescriptors() }
    }

    /// In a process of its own: the limit is the process's.
    private static func runOutOfDescriptors() throws {
        try withFolder { folder in
            var listener = try UnixListener(path: "\(folder)/s")
            let client = try UnixStream.connect(path: "\(folder)/s")
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            var taken: [Int32] = []
            var next = dup(client.fd)
            while next >= 0 {
                taken.append(next)
                next = dup(client.fd)
            }
            var code: Int32 = 0
            do throws(SystemError) { _ = try listener.accept() } catch { code = error.code }
            var bytes: [UInt8] = []
            let isTurnedAway = client.read(into: &bytes) == .closed
            let isWaiting = try hasClient(&listener)
            for fd in taken { close(fd) }
            let second = try UnixStream.connect(path: "\(folder)/s")
            let worksOn = try hasClient(&listener)
            _ = second.fd
            guard code == EMFILE, isTurnedAway, !isWaiting, worksOn else {
                throw TestFailure(description: "\(code) \(isTurnedAway) \(isWaiting) \(worksOn)")
            }
        }
    }
}
