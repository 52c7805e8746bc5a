import Daemon
import FoundationEssentials
import Glibc
import LinuxIO
import TestSupport
import Testing

/// What `vgwd check` tells root: what the user of the unit will meet.
@Suite struct FileCheckTests {
    /// A user of every Debian, who is not root.
    private static let user = "nobody"

    /// Runs `commands` in a folder with a configuration, its key and a program for a hook, all of it the user's, and gives
    /// what a check by root says then. `FOLDER` is the folder's path.
    private static func check(
        _ commands: String, gateway: String = "", tunnel: String = "", more: String = "", user: String? = user
    ) throws -> (errors: [ConfigurationError], warnings: [ConfigurationError], folder: String) {
        try withFolder { folder in
            let text = ConfigurationExamples.text(
                gateway:
                    "private-key-file = \"FOLDER/own/private.key\"\nstate-directory = \"FOLDER/state\"\n\(gateway)",
                tunnel: tunnel, more: more
            ).replacing("FOLDER", with: folder)
            try shell("chmod 755 \(folder); mkdir \(folder)/own \(folder)/state")
            for (name, text) in [
                ("own/vgwd.toml", text), ("own/private.key", ConfigurationExamples.privateKey),
                ("own/hook", "#!/bin/sh\n"),
            ] { try Data(text.utf8).write(to: URL(filePath: "\(folder)/\(name)")) }
            try shell(
                "cd \(folder) && chown -R \(Self.user) own state && chmod 700 own state own/hook && chmod 600 own/[pv]*"
                    + " && \(commands.replacing("FOLDER", with: folder))")
            let checked = try FileCheck.run(path: "\(folder)/own/vgwd.toml", user: user)
            switch checked.outcome {
            case .success(let configuration):
                return ([], configuration.warnings.filter { !$0.problem.contains("forward") }, folder)
            case .failure(let errors): return (errors.errors, [], folder)
            }
        }
    }

    @Test func `files that are the user's are right`() throws {
        let (errors, warnings, _) = try Self.check(":")
        #expect(errors == [] && warnings == [])
    }

    /// What root did, what is said, what is to be done; FOLDER is the folder.
    private static let faults: [(String, key: String, says: String, remedy: String)] = [
        (
            "chown root own/private.key", "gateway.private-key-file",
            "user nobody may not read FOLDER/own/private.key (mode 0600, of root)",
            "run: chown nobody: FOLDER/own/private.key; chmod 0600 FOLDER/own/private.key"
        ),
        (
            "chown root own", "",
            "FOLDER/own/vgwd.toml is out of reach: user nobody may not enter FOLDER/own (mode 0700, of root)",
            "run: chown nobody: FOLDER/own"
        ),
        (
            "chown root own/vgwd.toml", "",
            "user nobody may not read FOLDER/own/vgwd.toml (mode 0600, of root)",
            "run: chown nobody: FOLDER/own/vgwd.toml"
        ),
        (
            "mkdir -m 700 own/conf.d", "", "user nobody may not read FOLDER/own/conf.d (mode 0700, of root)",
            "let vgwd's user own it"
        ),
        (
            "mkdir -m 755 own/conf.d; echo '# more' >own/conf.d/a.toml; chmod 600 own/conf.d/a.toml", "",
            "user nobody may not read FOLDER/own/conf.d/a.toml (mode 0600, of root)", "run: chown nobody: "
        ),
        (
            "mkdir -m 700 other; mv own/private.key other; chown root other; ln -s FOLDER/other/private.key own/private.key",
            "gateway.private-key-file", "user nobody may not read FOLDER/own/private.key", "chown nobody"
        ),
    ]

    @Test(arguments: faults)
    func `what root can read and the user cannot is an error, with the command that mends it`(
        command: String, key: String, says: String, remedy: String
    ) throws {
        let (errors, _, folder) = try Self.check(command)
        let error = try #require(errors.first)
        #expect(errors.count == 1 && error.key == key)
        #expect(error.problem.hasPrefix(says.replacing("FOLDER", with: folder)), "\(error.problem)")
        #expect(error.remedy.contains(remedy.replacing("FOLDER", with: folder)), "\(error.remedy)")
        // With its own eyes root sees nothing of it.
        guard key.isEmpty || command.hasPrefix("chown root own/p") else { return }
        #expect(
            try Self.check(command, user: "root").errors.allSatisfy { $0.problem.contains("belongs to user") }
        )
    }

    /// A hook or a folder, what is said at which key.
    private static let warnings: [(String, gateway: String, more: String, key: String, says: String)] = [
        (
            "chown root own/hook", "", hook("FOLDER/own/hook"), "hook[#1].run[#1]",
            "the hook cannot start: user nobody may not start FOLDER/own/hook (mode 0700, of root)"
        ),
        (
            "chmod 600 own/hook", "", hook("FOLDER/own/hook"), "hook[#1].run[#1]",
            "the hook cannot start: user nobody may not start FOLDER/own/hook (mode 0600, of nobody)"
        ),
        (
            ":", "", hook("FOLDER/own/none"), "hook[#1].run[#1]",
            "the hook cannot start: there is no FOLDER/own/none"
        ),
        (":", "", hook("FOLDER/own"), "hook[#1].run[#1]", "the hook cannot start: FOLDER/own is a folder"),
        (
            ":", "", hook("/bin/sh\", \"FOLDER/own/none"), "hook[#1].run[#2]",
            "the hook cannot run: there is no FOLDER/own/none"
        ),
        (
            "chown root state", "", "", "gateway.state-directory",
            "user nobody may not write in FOLDER/state (mode 0700, of root)"
        ),
    ]

    private static func hook(_ run: String) -> String { "[[hook]]\non = [\"*\"]\nrun = [\"\(run)\"]" }

    @Test(arguments: warnings)
    func `programs and folders that the user cannot use are warned of`(
        command: String, gateway: String, more: String, key: String, says: String
    ) throws {
        let (errors, warnings, folder) = try Self.check(command, gateway: gateway, more: more)
        #expect(errors == [])
        #expect(warnings.map(\.key) == [key])
        #expect(warnings.first?.problem == says.replacing("FOLDER", with: folder))
    }

    @Test func `programs that can be started are not warned of`() throws {
        for run in ["FOLDER/own/hook", "/bin/true", "/bin/sh\", \"-c\", \"/none", "/bin/echo\", \"/none"] {
            #expect(try Self.check(":", more: Self.hook(run)).warnings == [])
        }
    }

    @Test func `another user is one that there is, and only root may look as one`() throws {
        let error = #expect(throws: DaemonError.self) {
            try FileCheck.run(path: "/none", user: "nobody-here")
        }
        #expect(error?.description == "there is no user nobody-here on this host")
        let inner = try Users.asFileUser(Self.user) { FileAccess.read.refusal(at: "/etc/shadow")?.code }
        #expect(inner == .some(EACCES))
        #expect(FileAccess.read.refusal(at: "/etc/shadow") == nil, "this thread is still root's")
    }

    @Test func `where the unit's user is not there, the check says that it looked as root`() throws {
        guard Users.user(named: SystemFiles.serviceUser) == nil else { return }
        try withFolder { folder in
            let checked = try FileCheck.run(path: "\(folder)/none.toml", user: nil)
            #expect(
                checked.note?.hasPrefix("the files were looked at as root: there is no user vgwd here")
                    == true)
        }
    }

    // MARK: What tunnels are bound to

    private static func warnings(of tunnel: String) throws -> [ConfigurationError] {
        var surroundings = Surroundings()
        surroundings.hasInterface = { $0 == "eth0" }
        surroundings.addresses = []
        return try GatewayConfiguration.parse(
            ConfigurationExamples.text(tunnel: tunnel), path: "/etc/vgwd/vgwd.toml",
            files: ConfigurationExamples.files,
            surroundings: surroundings
        ).warnings
    }

    /// The tunnel's line, the warning.
    private static let underlays: [(String, String?)] = [
        ("bind = { device = \"eth0\" }", nil),
        ("bind = { device = \"eth7\" }", "there is no interface eth7 now"),
        ("bind = { source = \"192.0.2.1\" }", "192.0.2.1 is no address of this host now"),
        ("endpoint = \"[fe80::1%eth7]:51820\"", "there is no interface eth7 now, which fe80::1%eth7 is on"),
        ("endpoint = \"[fe80::1%eth0]:51820\"", nil),
    ]

    @Test(arguments: underlays)
    func `a device or a source that is not there is warned of`(line: String, says: String?) throws {
        #expect(try Self.warnings(of: line).map(\.problem) == [says].compactMap(\.self))
    }

    // MARK: One fault, one error

    /// Lines of two tunnels to one far key, and the keys of the errors.
    private static let twins: [(first: String, second: String, keys: [String])] = [
        ("", "private-key-file = \"/none\"", ["private-key-file"]),
        ("private-key-file = \"/none\"", "", ["private-key-file"]),
        (
            "private-key-file = \"/none\"", "private-key-file = \"/none2\"",
            ["private-key-file", "private-key-file"]
        ),
        (
            "private-key-file = \"/etc/vgwd/junk.key\"", "private-key-file = \"/none\"",
            ["private-key-file", "private-key-file"]
        ),
        ("", "private-key-file = \"/etc/vgwd/second.key\"", []),
        ("", "", ["public-key"]),
        (
            "private-key-file = \"/etc/vgwd/second.key\"", "private-key-file = \"/etc/vgwd/second.key\"",
            ["public-key"]
        ),
    ]

    @Test(arguments: twins)
    func `a tunnel's key that cannot be read is one error, and no second tunnel of the same keys`(
        first: String, second: String, keys: [String]
    ) {
        let text = ConfigurationExamples.text(
            tunnel: "name = \"a\"\n\(first)",
            more:
                "[[connection.tunnel]]\nname = \"b\"\npublic-key = \"\(ConfigurationExamples.peer)\"\n\(second)"
        )
        let errors = ConfigurationExamples.errors(in: text)
        #expect(errors.map { String($0.key.split(separator: ".").last ?? "") } == keys, "\(errors)")
    }
}
