internal import CLinux
internal import Glibc

/// Another program that runs beside this one: in a session, and so in a process group, of its own; with
/// bytes on its standard input, its standard output thrown away and its standard error to be read here.
///
/// It gets nothing of ours but what is named: no descriptor past those three, no variable, no signal mask or
/// disposition, the folder `/`. What is in our memory it never sees: it is executed, not forked.
///
/// Concurrency: of one thread. It kills and waits for the whole group when its owner lets go of it.
package final class ChildProcess {
    package enum Ending: Hashable, Sendable {
        case exited(status: Int32)
        case signalled(Int32)
    }

    package enum Signal: Sendable {
        case terminate
        case kill
    }

    private let process: pid_t
    private let ended: FileDescriptor
    private var input: FileDescriptor?
    private var errors: FileDescriptor?
    private var ending: Ending?

    /// Readable once the program itself has ended.
    package var endFD: Int32 { ended.rawValue }
    /// Nil once it is closed.
    package private(set) var inputFD: Int32?
    package private(set) var errorsFD: Int32?

    /// The first of `arguments` is the path of the program. When this returns it runs; when it throws it never
    /// did.
    package init(_ arguments: [String], environment: [String]) throws(SystemError) {
        let path = arguments.first ?? ""
        let input = try System.pipe()
        let errors = try System.pipe()
        // Our ends alone: each end of a pipe has flags of its own.
        try System.setNonblocking(input.writing.rawValue)
        try System.setNonblocking(errors.reading.rawValue)

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_adddup2(&actions, input.reading.rawValue, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors.writing.rawValue, 2)
        // Ours are all closed on exec; a library's, or one that was passed to us, may not be.
        unsafe cl_spawn_close_from(&actions, 3)
        unsafe cl_spawn_change_folder(&actions, "/")

        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        unsafe sigfillset(&signals)
        unsafe posix_spawnattr_setsigdefault(&attributes, &signals)
        unsafe sigemptyset(&signals)
        unsafe posix_spawnattr_setsigmask(&attributes, &signals)
        let newSession: Int16 = 0x80  // POSIX_SPAWN_SETSID, which Glibc hides from Swift
        unsafe posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK) | newSession)

        process = try unsafe System.spawn(
            path, "start \(path)", &actions, &attributes, arguments: arguments, environment: environment)
        do throws(SystemError) {
            let process = process
            ended = FileDescriptor(
                owning: Int32(try System.check("pidfd_open") { Int(cl_pidfd_open(process)) }))
        } catch {
            _ = kill(-process, SIGKILL)
            _ = Self.wait(for: process)
            throw error
        }
        inputFD = input.writing.rawValue
        errorsFD = errors.reading.rawValue
        self.input = consume input.writing
        self.errors = consume errors.reading
    }

    /// Once, before the first: whoever started us may have told the kernel to forget about children.
    package static func expectChildren() { _ = Glibc.signal(SIGCHLD, SIG_DFL) }

    deinit {
        guard ending == nil else { return }
        _ = kill(-process, SIGKILL)
        _ = Self.wait(for: process)
    }

    /// How many bytes it took, 0 when it must read first; nil when it closed its standard input, or we did.
    package func write(_ bytes: ArraySlice<UInt8>) -> Int? {
        guard let inputFD, !bytes.isEmpty else { return inputFD == nil ? nil : 0 }
        let count = unsafe bytes.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return 0 }
            return unsafe System.write(inputFD, base, bytes.count)
        }
        if count == -Int(EAGAIN) { return 0 }
        return count < 0 ? nil : count
    }

    package func closeInput() {
        inputFD = nil
        input = nil
    }

    /// Appends what it has written to its standard error, up to 64 KB. False at the end of it.
    package func readErrors(into bytes: inout [UInt8]) -> Bool {
        guard let errorsFD else { return false }
        var chunk = [UInt8](repeating: 0, count: 4096)
        for _ in 0..<16 {
            let count = unsafe chunk.withUnsafeMutableBytes { chunk in
                guard let base = chunk.baseAddress else { return 0 }
                return unsafe System.read(errorsFD, base, chunk.count)
            }
            if count == -Int(EAGAIN) { return true }
            guard count > 0 else { return false }
            bytes += chunk[..<count]
        }
        return true
    }

    package func closeErrors() {
        errorsFD = nil
        errors = nil
    }

    /// To all of its group. The group's number cannot be another's before `wait`, also when all of it has ended.
    package func signal(_ signal: Signal) {
        guard ending == nil else { return }
        _ = kill(-process, signal == .terminate ? SIGTERM : SIGKILL)
    }

    /// Blocks until it has ended: not before `endFD` is readable.
    package func wait() -> Ending {
        if let ending { return ending }
        let ending = Self.wait(for: process)
        self.ending = ending
        return ending
    }

    private static func wait(for process: pid_t) -> Ending {
        var status: Int32 = 0
        guard System.attempt({ unsafe Int(waitpid(process, &status, 0)) }) > 0 else {
            // ECHILD: somebody else has waited for it.
            return .exited(status: -1)
        }
        // WIFEXITED and the like are macros.
        let signal = status & 0x7f
        return signal == 0 ? .exited(status: status >> 8 & 0xff) : .signalled(signal)
    }
}
