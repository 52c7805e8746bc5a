internal import CLinux
internal import Glibc

/// Signals as a descriptor to poll. Make it on the first thread before any other starts: threads inherit the
/// mask.
package struct SignalFD: ~Copyable, Sendable {
    private let descriptor: FileDescriptor

    package var fd: Int32 { descriptor.rawValue }

    /// Blocks `signals` in the calling thread, so that they arrive here and interrupt nothing.
    package init(_ signals: [Int32]) throws(SystemError) {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in signals { unsafe sigaddset(&set, signal) }
        let code = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        if code != 0 { throw SystemError(call: "pthread_sigmask", code: code) }
        descriptor = FileDescriptor(
            owning: Int32(try System.check("signalfd") { unsafe Int(cl_signalfd(&set)) }))
    }

    /// The next signal waiting, or nil.
    package func next() -> Int32? {
        let number = System.attempt { Int(cl_signalfd_read(descriptor.rawValue)) }
        return number > 0 ? Int32(number) : nil
    }

    /// Ignores what would end or stop a process that does not expect it: timers and limits that whoever started it set
    /// (SIGALRM, SIGXCPU, SIGXFSZ), a terminal that is not its own (SIGTTOU), a peer that went away (SIGPIPE), and what
    /// somebody sends by mistake. A write that fails for it is then an error of the write. Faults of the program itself
    /// (SIGSEGV, SIGABRT), SIGTSTP, and what the default ignores stay as they are.
    package static func ignoreStrays() {
        let realTime = __libc_current_sigrtmin()...__libc_current_sigrtmax()
        for number in strays + realTime { _ = signal(number, SIG_IGN) }
    }

    private static let strays = [
        SIGPIPE, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGXFSZ, SIGPOLL, SIGPWR, SIGSTKFLT, SIGTTIN,
        SIGTTOU,
    ]
}
