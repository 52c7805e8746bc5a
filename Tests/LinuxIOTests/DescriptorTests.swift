import Glibc
import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireGuard

@Suite struct DescriptorTests {
    @Test func `epoll gives the token of each descriptor that is ready`() throws {
        let epoll = try Epoll()
        let (first, second) = (try EventFD(), try EventFD())
        try epoll.add(fd: first.fd, token: 11)
        try epoll.add(fd: second.fd, token: .max)
        #expect(try epoll.wait(timeout: .zero) == [])
        second.signal()
        #expect(try epoll.wait(timeout: .seconds(5)) == [.init(token: .max, events: .readable)])
        first.signal()
        #expect(Set(try epoll.wait(timeout: nil).map(\.token)) == [11, .max])
        #expect(second.drain() == 1)
        #expect(second.drain() == 0)
        #expect(try epoll.wait(timeout: nil).map(\.token) == [11])
        try epoll.modify(fd: first.fd, token: 12, events: .writable)
        #expect(try epoll.wait(timeout: nil) == [.init(token: 12, events: .writable)])
        epoll.remove(fd: first.fd)
        epoll.remove(fd: first.fd)
        #expect(try epoll.wait(timeout: .zero) == [])
        let error = systemError { () throws(SystemError) in try epoll.add(fd: 9999, token: 0) }
        #expect(error?.description == "epoll add: Bad file descriptor (EBADF)")
    }

    @Test func `a lock of the namespace is one process's, and keeps nobody waiting for good`() throws {
        try inNamespace {
            let first = NamespaceLock()
            let start = SystemClock.now()
            // Each opens the file anew, as another process does.
            NamespaceLock().release()
            #expect(SystemClock.now() - start > .seconds(1))
            first.release()
            let later = SystemClock.now()
            NamespaceLock().release()
            #expect(SystemClock.now() - later < .seconds(1))
        }
    }

    @Test func `waits end no earlier than asked for`() throws {
        let epoll = try Epoll()
        let start = SystemClock.now()
        _ = try epoll.wait(timeout: .microseconds(2500))
        #expect(SystemClock.now() - start >= .microseconds(2500))
        let counter = try EventFD()
        var poll = PollSet(counter.fd, -1)
        let second = SystemClock.now()
        #expect(poll.wait(timeout: .microseconds(2500)) == 0)
        #expect(SystemClock.now() - second >= .microseconds(2500))
    }

    @Test func `a poll set tells which is ready, and a replaced descriptor counts`() throws {
        let (first, second) = (try EventFD(), try EventFD())
        var poll = PollSet(first.fd, -1)
        second.signal()
        #expect(poll.wait(timeout: .zero) == 0)
        poll.replaceAll(with: [-1, second.fd])
        #expect(poll.wait(timeout: nil) == 1)
        let readable = [poll.isReadable(0), poll.isReadable(1)]
        #expect(readable == [false, true])
    }

    @Test func `a signal in the set arrives on the descriptor`() throws {
        var before = sigset_t()
        unsafe pthread_sigmask(SIG_BLOCK, nil, &before)
        defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
        let signals = try SignalFD([SIGUSR2, SIGHUP])
        #expect(signals.next() == nil)
        pthread_kill(pthread_self(), SIGUSR2)
        var poll = PollSet(signals.fd)
        #expect(poll.wait(timeout: .seconds(5)) == 1)
        #expect(signals.next() == SIGUSR2)
        #expect(signals.next() == nil)
    }

    @Test func `a timer fires at its instant, and not once disarmed`() throws {
        let timer = try TimerFD()
        var poll = PollSet(timer.fd)
        let start = SystemClock.now()
        timer.arm(at: start + .milliseconds(20))
        #expect(poll.wait(timeout: .seconds(5)) == 1)
        #expect(SystemClock.now() >= start + .milliseconds(20))
        timer.drain()
        timer.arm(at: start)
        #expect(poll.wait(timeout: .seconds(5)) == 1, "an instant in the past is due at once")
        timer.arm(at: SystemClock.now() + .milliseconds(20))
        timer.arm(at: nil)
        #expect(poll.wait(timeout: .milliseconds(60)) == 0)
        timer.arm(at: Instant(nanoseconds: .max))
        #expect(poll.wait(timeout: .milliseconds(20)) == 0)
    }

    @Test func `a thread runs its body with signals blocked and is joined`() throws {
        let before = Self.blockedSignals()
        let result = ThreadResult()
        let thread = try Thread.spawn(name: "a-name-longer-than-15-bytes") {
            result.hasSignalsBlocked.store(Self.blockedSignals().contains(SIGTERM), ordering: .relaxed)
            result.isDone.store(true, ordering: .releasing)
        }
        thread.join()
        thread.join()
        let isDone = result.isDone.load(ordering: .acquiring)
        #expect(isDone)
        let hasSignalsBlocked = result.hasSignalsBlocked.load(ordering: .relaxed)
        #expect(hasSignalsBlocked)
        #expect(Self.blockedSignals() == before, "the spawning thread's mask is as it was")
    }

    static func blockedSignals() -> [Int32] {
        var set = sigset_t()
        unsafe pthread_sigmask(SIG_BLOCK, nil, &set)
        return (1...64).filter { unsafe sigismember(&set, $0) == 1 }
    }

    private final class ThreadResult: Sendable {
        let isDone = Atomic<Bool>(false)
        let hasSignalsBlocked = Atomic<Bool>(false)
    }

    @Test func `clocks move on, and random bytes differ`() {
        let start = SystemClock.now()
        #expect(SystemClock.now() >= start)
        #expect(SystemClock.unixNanoseconds() > 1_700_000_000_000_000_000)
        var entropy = SystemEntropy()
        #expect(entropy.bytes(32) != entropy.bytes(32))
        #expect(entropy.bytes(0) == [])
        #expect(entropy.bytes(1000).filter { $0 == 0 }.count < 50)
    }

    @Test func `an error names its number`() {
        #expect(
            SystemError(call: "bind", code: EADDRINUSE).description
                == "bind: Address already in use (EADDRINUSE)")
        #expect(SystemError(call: "x", code: 4095).description == "x: Unknown error (errno 4095)")
    }
}
