internal import CLinux
internal import Glibc

/// Signals as a descriptor to poll. Make it on the first thread before any other starts: threads inherit the
/// mask.
package struct SignalDescriptor: ~Copyable, Sendable {
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

    /// A peer that went away must be an error of a write, not the end of the process.
    package static func ignoreBrokenPipes() { _ = signal(SIGPIPE, SIG_IGN) }
}
