internal import Glibc
package import LinuxIO

@_silgen_name("unshare") private func systemUnshare(_ flags: Int32) -> Int32
@_silgen_name("setns") private func systemSetns(_ fd: Int32, _ type: Int32) -> Int32

package struct TestFailure: Error, CustomStringConvertible {
    package let description: String

    package init(description: String) { self.description = description }
}

/// Runs `body` in a new network namespace with its loopback up. The calling thread is back in its own
/// afterwards: `body` must not suspend, and does not, as it is not async.
package func inNamespace<Result>(_ body: () throws -> Result) throws -> Result {
    let newNetwork: Int32 = 0x4000_0000
    let before = unsafe open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    guard before >= 0, systemUnshare(newNetwork) == 0 else {
        throw TestFailure(description: "these tests need root and network namespaces: errno \(errno)")
    }
    defer {
        let code = systemSetns(before, newNetwork)
        precondition(code == 0, "cannot return to the first network namespace")
        close(before)
    }
    guard unsafe access("/dev/net/tun", R_OK | W_OK) == 0 else {
        throw TestFailure(description: "these tests need /dev/net/tun")
    }
    try shell("ip link set lo up")
    return try body()
}

/// A network namespace to come back to.
package struct NamespaceHandle: ~Copyable {
    private let fd: Int32

    /// The calling thread's.
    package static func current() throws -> NamespaceHandle {
        let fd = unsafe open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw TestFailure(description: "no namespace: errno \(errno)") }
        return NamespaceHandle(fd: fd)
    }

    private init(fd: Int32) { self.fd = fd }

    deinit { close(fd) }

    /// For `ip link ... netns`.
    package var path: String { "/proc/\(getpid())/fd/\(fd)" }

    /// Like `inNamespace`, in this one.
    package func enter<Result>(_ body: () throws -> Result) throws -> Result {
        let here = try NamespaceHandle.current()
        guard systemSetns(fd, 0x4000_0000) == 0 else {
            throw TestFailure(description: "cannot enter a network namespace: errno \(errno)")
        }
        defer {
            let code = systemSetns(here.fd, 0x4000_0000)
            precondition(code == 0, "cannot return to the other network namespace")
        }
        return try body()
    }
}

/// In the calling thread's namespace.
package func shell(_ command: String) throws {
    var arguments: [UnsafeMutablePointer<CChar>?] = unsafe []
    for word in ["sh", "-c", command] { unsafe arguments.append(strdup(word)) }
    unsafe arguments.append(nil)
    defer { for index in unsafe arguments.indices { unsafe free(arguments[index]) } }
    var process = pid_t()
    let code = unsafe posix_spawn(&process, "/bin/sh", nil, nil, &arguments, environ)
    guard code == 0 else { throw TestFailure(description: "posix_spawn: \(SystemError.name(code))") }
    var status: Int32 = 0
    while unsafe waitpid(process, &status, 0) < 0, errno == EINTR {}
    guard status == 0 else { throw TestFailure(description: "failed: \(command)") }
}

/// A folder of the test's own, gone afterwards.
package func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
    var template = Array("/tmp/linuxio-\(String(repeating: "X", count: 6))".utf8CString)
    guard unsafe mkdtemp(&template) != nil else { throw TestFailure(description: "mkdtemp: errno \(errno)") }
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { try? shell("rm -rf \(path)") }
    return try body(path)
}

/// The error that `body` throws, or nil.
package func systemError(_ body: () throws(SystemError) -> Void) -> SystemError? {
    do throws(SystemError) {
        try body()
        return nil
    } catch {
        return error
    }
}

/// Asks again for a while. What is closed here stays open in a child that another test has just forked, until
/// it becomes the program it was made for.
package func eventually(_ condition: () -> Bool) -> Bool {
    for _ in 0..<3000 {
        if condition() { return true }
        usleep(10_000)
    }
    return false
}
