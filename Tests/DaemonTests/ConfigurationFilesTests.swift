import ControlServer
import FoundationEssentials
import Glibc
import LinuxIO
import Logging
import TestSupport
import Testing
import WireGuard

@testable import Daemon

/// Files of the configuration that others have their hand on, and files that are in the way.
@Suite struct ConfigurationFilesTests {
    /// A folder with a configuration, its key, and a program for hooks; all of it this user's alone.
    private struct Files {
        let folder: String
        var configuration: String { "\(folder)/vgwd.toml" }
        var key: String { "\(folder)/private.key" }
        var program: String { "\(folder)/program" }

        init(_ folder: String, gateway: String = "", more: String = "") throws {
            self.folder = folder
            for (path, text) in [
                (key, ConfigurationExamples.privateKey), (program, "#!/bin/sh\n"),
                (
                    configuration,
                    ConfigurationExamples.text(
                        gateway: "private-key-file = \"private.key\"\n\(gateway)", more: more)
                ),
            ] {
                try Data(text.utf8).write(to: URL(filePath: path))
                try shell("chmod 700 \(path)")
            }
        }

        var hook: String { "[[hook]]\non = [\"*\"]\nrun = [\"\(program)\"]" }

        func errors() -> [ConfigurationError] {
            do throws(ConfigurationErrors) {
                _ = try GatewayConfiguration.load(path: configuration, environment: [:])
                return []
            } catch {
                return error.errors
            }
        }
    }

    @Test(arguments: [
        ("chown 65534 private.key", "belongs to user 65534"),
        ("chown 65534 private.key; chmod 400 private.key", "belongs to user 65534"),
        ("chmod 640 private.key", "has mode 0640"),
    ])
    func `a key that another user owns, or can read, is no key`(command: String, says: String) throws {
        try withFolder { folder in
            let files = try Files(folder)
            #expect(files.errors() == [])
            try shell("cd \(folder); \(command)")
            let error = try #require(files.errors().first)
            #expect(error.key == "gateway.private-key-file" && error.problem.contains(says))
        }
    }

    @Test(arguments: [
        ("chmod 666 vgwd.toml", "hook[#1]", "vgwd.toml has mode 0666: others can change it"),
        ("chmod 620 vgwd.toml", "hook[#1]", "vgwd.toml has mode 0620"),
        ("chown 65534 vgwd.toml; chmod 644 vgwd.toml", "hook[#1]", "vgwd.toml belongs to user 65534"),
        ("chmod 777 .", "hook[#1]", "has mode 0777"),
        ("chown 65534 .", "hook[#1]", "belongs to user 65534"),
        ("chmod 722 program", "hook[#1].run[#1]", "program has mode 0722"),
        ("chown 65534 program", "hook[#1].run[#1]", "program belongs to user 65534"),
    ])
    func `a file that others can write starts no hook`(command: String, key: String, says: String) throws {
        try withFolder { folder in
            let plain = try Files(folder)
            let files = try Files(folder, more: plain.hook)
            #expect(files.errors() == [])
            try shell("cd \(folder); \(command)")
            let error = try #require(files.errors().first)
            #expect(error.key == key && error.problem.contains(says), "\(error)")
            // Without a hook it is read.
            try Data(ConfigurationExamples.text(gateway: "private-key-file = \"private.key\"").utf8)
                .write(to: URL(filePath: files.configuration))
            #expect(files.errors() == [])
        }
    }

    @Test func `in a folder with the sticky bit nobody can replace a file of ours`() throws {
        try withFolder { folder in
            let plain = try Files(folder)
            let files = try Files(folder, more: plain.hook)
            try shell("chmod 1777 \(folder)")
            #expect(files.errors() == [])
        }
    }

    @Test(arguments: [
        ("echo precious >DIR/there", "a file"), ("mkfifo DIR/there", "a device or a pipe"),
        ("echo precious >DIR/x; ln -s DIR/x DIR/there", "a symbolic link"),
        ("ln -s DIR/nowhere DIR/there", "a symbolic link"), ("mkdir DIR/there", "a folder"),
        ("cp DIR/private.key DIR/there", "a file"),
    ])
    func `what is in the place of the control socket is an error of the file, and stays`(
        command: String, kind: String
    ) async throws {
        let folder = "/tmp/vgwd-files-\(UInt64.random(in: .min ... .max))"
        try shell("mkdir -m 700 \(folder)")
        defer { try? shell("rm -rf \(folder)") }
        let files = try Files(folder, more: "[control]\nsocket = \"\(folder)/there\"")
        #expect(files.errors() == [])
        try shell(command.replacing("DIR", with: folder))
        let before = try Self.look(folder)
        let error = try #require(files.errors().first)
        #expect(error.key == "control.socket" && error.problem.contains("is \(kind), not a socket"))
        // It may have come after the check.
        #expect(try await Self.failure(ofServerAt: "\(folder)/there")?.contains("no socket") == true)
        #expect(try Self.look(folder) == before)
    }

    @Test(arguments: [
        ("mkdir DIR/state/vgw0.timestamp", "gateway.state-directory", "is a folder, not a file"),
        ("mkfifo DIR/state/vgw0.numbers", "gateway.state-directory", "is a device or a pipe, not a file"),
        (
            "ln -s DIR/private.key DIR/state/vgw0.routes", "gateway.state-directory",
            "is a symbolic link, not a file"
        ),
        ("rmdir DIR/sockets; echo precious >DIR/sockets", "control.socket", "is a file, not a folder"),
    ])
    func `what is in the place of any file that is written is an error of the file, and stays`(
        command: String, key: String, says: String
    ) throws {
        try withFolder { folder in
            try shell("mkdir \(folder)/state \(folder)/sockets")
            let files = try Files(
                folder, gateway: "state-directory = \"\(folder)/state\"\ninterface = \"vgw0\"",
                more: "[control]\nsocket = \"\(folder)/sockets/s\"")
            #expect(files.errors() == [])
            try shell(command.replacing("DIR", with: folder))
            let before = try Self.look(folder)
            let error = try #require(files.errors().first)
            #expect(error.key == key && error.problem.contains(says), "\(error)")
            var settings = try DaemonSettings(interface: "vgw0")
            settings.stateDirectory = "\(folder)/state"
            if key == "gateway.state-directory" {
                let refusal = #expect(throws: DaemonError.self) { try Startup.refuseObstacles(settings) }
                #expect(refusal?.exitStatus == 78 && refusal?.description.contains(says) == true)
            }
            #expect(try Self.look(folder) == before)
        }
    }

    @Test func `what is in the place of the wg socket stops a start, and stays`() throws {
        let name = "vgwt\(UInt16.random(in: .min ... .max))"
        let path = WgServer.socket(of: name)
        try shell("mkdir -p \(WgServer.directory); echo precious >\(path)")
        defer { try? shell("rm -f \(path)") }
        let error = #expect(throws: DaemonError.self) {
            try Startup.refuseObstacles(try DaemonSettings(interface: name))
        }
        #expect(error?.description.hasPrefix("\(path) is a file, not a socket") == true)
        let text = ConfigurationExamples.text(
            gateway: "private-key-file = \"private.key\"\ninterface = \"\(name)\"")
        try withFolder { folder in
            let files = try Files(folder)
            try Data(text.utf8).write(to: URL(filePath: files.configuration))
            #expect(files.errors().map(\.key) == ["gateway.interface"])
        }
        #expect(try AtomicFile.read(path, limit: 100).bytes == Array("precious\n".utf8))
    }

    @Test func `a state file that was not ours is kept beside before it is written anew`() throws {
        try withFolder { folder in
            let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            for file in [StateFile.timestamp, .numbers] {
                let path = file.path(in: folder, of: "t0")
                try Data("precious\n".utf8).write(to: URL(filePath: path))
            }
            var timestamps = TimestampStore(directory: folder, interface: "t0", log: quiet)
            #expect(timestamps.load(unixNanoseconds: 0) == TAI64N(unixNanoseconds: 5_000_000_000))
            #expect(RoutingNumbersStore(directory: folder, interface: "t0", log: quiet).load() == nil)
            for name in ["timestamp", "numbers"] {
                let copy = try AtomicFile.read("\(folder)/t0.\(name).corrupt", limit: 100).bytes
                #expect(copy == Array("precious\n".utf8))
            }
        }
    }

    @Test func `a long relative name of a key file is one, whatever it looks like`() throws {
        try withFolder { folder in
            let name = String(repeating: "keys", count: 12)
            let files = try Files(folder)
            try shell("cp \(files.key) \(folder)/\(name)")
            let text = ConfigurationExamples.text(gateway: "private-key-file = \"\(name)\"")
            try Data(text.utf8).write(to: URL(filePath: files.configuration))
            #expect(files.errors() == [])
        }
    }

    @Test
    func `a socket that nobody answers at is replaced, and goes at the end; another's in its place stays`()
        async throws
    {
        let folder = "/tmp/vgwd-files-\(UInt64.random(in: .min ... .max))"
        try shell("mkdir -m 700 \(folder)")
        defer { try? shell("rm -rf \(folder)") }
        let path = "\(folder)/s"
        // A second name keeps the file of a listener that is gone, as one that was killed leaves it.
        try Self.withListener(path) { try shell("ln \(path) \(folder)/stale") }
        try shell("mv \(folder)/stale \(path)")
        // A child that another test has just made may hold the listener open for a moment.
        var failure: String? = "not tried"
        let end = ContinuousClock.now + Self.patience
        while failure != nil, ContinuousClock.now < end {
            failure = try await Self.failure(ofServerAt: path)
            if failure != nil { try await Task.sleep(for: .milliseconds(20)) }
        }
        #expect(failure == nil)
        #expect(FileStatus(path) == nil, "it is gone with its server")
        #expect(
            try await Self.failure(ofServerAt: path, meanwhile: "rm \(path); echo precious >\(path)") == nil)
        #expect(FileStatus(path)?.kind == .regular)
    }

    private static func withListener(_ path: String, _ body: () throws -> Void) throws {
        let listener = try UnixListener(path: path)
        try body()
        _ = listener.isPresent
    }

    @Test func `a state folder that is none is an error of the file`() throws {
        try withFolder { folder in
            let line = "state-directory = \"\(folder)/there\""
            let files = try Files(folder)
            let text = ConfigurationExamples.text(gateway: "private-key-file = \"private.key\"\n\(line)")
            try Data(text.utf8).write(to: URL(filePath: files.configuration))
            #expect(files.errors() == [])
            try shell("mkdir \(folder)/real; ln -s \(folder)/real \(folder)/there")
            #expect(files.errors() == [], "a link to a folder")
            try shell("rm \(folder)/there; echo precious >\(folder)/there")
            let error = try #require(files.errors().first)
            #expect(
                error.key == "gateway.state-directory" && error.problem.contains("is a file, not a folder"))
        }
    }

    /// Names, kinds, modes and contents.
    private static func look(_ folder: String) throws -> [UInt8] {
        let list = "/tmp/vgwd-list-\(UInt64.random(in: .min ... .max))"
        defer { try? shell("rm -f \(list)") }
        try shell(
            "cd \(folder); { ls -la --time-style=+ | grep -v ' [.]*$'; cat $(find . -type f | sort); } >\(list)"
        )
        return try AtomicFile.read(list, limit: 1 << 20).bytes
    }

    /// The server runs on threads that other tests hold for as long as they wait for something.
    private static let patience: Duration = .seconds(300)

    /// What the server says when it cannot start; nil if it could. It is stopped again either way.
    private static func failure(
        ofServerAt path: String, meanwhile command: String = "true"
    ) async throws -> String? {
        let wake = try EventFD()
        let mailbox = Mailbox<ControlCommand>(wake: wake)
        let server = ControlServer(
            ControlSocket(
                path: path, mailbox: mailbox, clientLimit: 4, drops: DropCounters(),
                log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }))
        server.start()
        defer { server.stop() }
        let end = ContinuousClock.now + Self.patience
        while ContinuousClock.now < end {
            for message in mailbox.take() {
                if case .serverHasFailed(let reason, _) = message { return reason }
                if case .serverIsReady = message {
                    try shell(command)
                    return nil
                }
            }
            try await Task.sleep(for: .milliseconds(10))
        }
        return "nothing"
    }
}
