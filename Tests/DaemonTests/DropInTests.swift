import ArgumentParser
import Daemon
import FoundationEssentials
internal import GatewayCore
import LinuxIO
import Testing
import WireGuard

@testable import vgwctl

/// Files of `conf.d`, and `vgwctl pair --add`, which writes one.
@Suite struct DropInTests {
    /// A folder with a gateway in it: line 4 is its connection aws.
    private final class Folder {
        let path = "/tmp/vgwd-drop-in-tests-\(UInt64.random(in: .min ... .max))"

        init(_ gateway: String = "") throws {
            try FileManager.default.createDirectory(
                atPath: "\(path)/conf.d", withIntermediateDirectories: true)
            try write("private.key", ConfigurationExamples.privateKey)
            try write(
                "vgwd.toml",
                "[gateway]\nprivate-key-file = \"private.key\"\n\(gateway)\n"
                    + Self.connection("aws", ConfigurationExamples.peer, "10.20.0.0/16"))
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ name: String, _ text: String) throws {
            try Data(text.utf8).write(to: URL(filePath: "\(path)/\(name)"))
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(path)/\(name)")
        }

        static func connection(_ name: String, _ key: String, _ route: String, _ line: String = "") -> String
        {
            """
            [[connection]]
            name = "\(name)"
            routes = ["\(route)"]
            [[connection.tunnel]]
            public-key = "\(key)"
            \(line)
            """
        }

        func load() throws(ConfigurationErrors) -> GatewayConfiguration {
            try GatewayConfiguration.load(path: "\(path)/vgwd.toml", environment: [:])
        }

        /// What is wrong, without the folder.
        func errors() -> String {
            do {
                _ = try load()
                return ""
            } catch {
                return error.description.replacing(path, with: "@")
            }
        }
    }

    @Test func filesOfTheFolderAreReadInTheOrderOfTheirNames() throws {
        let folder = try Folder()
        try folder.write(
            "conf.d/b.toml", Folder.connection("b", ConfigurationExamples.otherPeer, "10.30.0.0/16"))
        // Paths start at the folder of the file that names them.
        try folder.write("conf.d/c.psk", ConfigurationExamples.presharedKey)
        try folder.write(
            "conf.d/a.toml",
            Folder.connection(
                "a", PrivateKey(base64: ConfigurationExamples.secondKey)!.publicKey.base64, "10.40.0.0/16",
                "preshared-key-file = \"c.psk\"")
                + "\n[[hook]]\non = [\"started\"]\nrun = [\"/bin/true\"]\n[control]\nsocket = \"/run/vgwd/x.sock\""
        )
        for name in ["conf.d/.hidden.toml", "conf.d/d.toml~", "conf.d/README"] {
            try folder.write(name, "= =")
        }
        let configuration = try folder.load()
        #expect(configuration.connections.map(\.name) == ["aws", "a", "b"])
        #expect(configuration.connections[1].tunnels[0].presharedKey.isNone == false)
        #expect(configuration.hooks.count == 1 && configuration.control.socket == "/run/vgwd/x.sock")
        #expect(configuration.dropIns == ["a", "b"].map { "\(folder.path)/conf.d/\($0).toml" })
        #expect(configuration.summary().contains("/conf.d/a.toml, "))
    }

    @Test(
        "what is wrong is named by its file and line",
        arguments: [
            ("= 1", "@/conf.d/b.toml:1: not TOML: "),
            ("\n[gateway]", "@/conf.d/b.toml:2: gateway: is there already (line 1); say it in one file"),
            (
                "[[connection]]\nname = \"x y\"",
                "@/conf.d/b.toml:2: connection[#1].name: \"x y\" cannot be a name"
            ),
            ("bogus = 1", "@/conf.d/b.toml:1: bogus: unknown key"),
            ("[[connection]]\nname = \"b\"", "@/conf.d/b.toml:1: connection[b].routes: is missing"),
            (
                Folder.connection("aws", ConfigurationExamples.otherPeer, "10.30.0.0/16"),
                "@/conf.d/b.toml:2: connection[aws].name: a connection is named \"aws\" already (line 5)"
            ),
            (
                Folder.connection("b", ConfigurationExamples.otherPeer, "10.20.0.0/16"),
                "@/conf.d/b.toml:3: connection[b].routes[#1]: connection \"aws\" has 10.20.0.0/16 already (line 6)"
            ),
            (
                Folder.connection(
                    "b", ConfigurationExamples.otherPeer, "10.30.0.0/16", "preshared-key-file = \"no\""),
                "@/conf.d/b.toml:6: connection[b].tunnel[#1].preshared-key-file: there is no @/conf.d/no"
            ),
        ])
    func errorsNameTheirFile(_ text: String, _ says: String) throws {
        let folder = try Folder()
        try folder.write("conf.d/b.toml", text)
        #expect(folder.errors().contains(says), "\(folder.errors())")
    }

    @Test func aFileThatOthersMayWriteHasNoHooks() throws {
        struct Tampered: ConfigurationFiles {
            func key(at path: String) -> SecretBytes? {
                SecretBytes(base64: ConfigurationExamples.privateKey.utf8)
            }
            func tampering(with path: String) -> FileProblem? {
                path.contains("conf.d") ? FileProblem(problem: "others can change it", remedy: "chmod") : nil
            }
            func obstacle(to access: FileAccess, at path: String) -> FileProblem? { nil }
            func obstacle(to kind: FileStatus.Kind, at path: String) -> FileProblem? { nil }
        }
        let hook = "[[hook]]\non = [\"started\"]\nrun = [\"/bin/true\"]"
        let errors = #expect(throws: ConfigurationErrors.self) {
            try GatewayConfiguration.parse(
                ConfigurationExamples.text(more: hook),
                dropIns: [GatewayConfiguration.DropIn(path: "/etc/vgwd/conf.d/a.toml", text: "\n" + hook)],
                files: Tampered())
        }
        #expect(errors?.errors.map(\.line) == [SourceLine(2, of: "/etc/vgwd/conf.d/a.toml")])
    }

    // MARK: pair --add

    private func pair(in folder: Folder, _ arguments: String...) throws {
        try PairCommand.parse(arguments).run()
        // The program itself has a umask for that, the tests have not.
        for name in try FileManager.default.subpathsOfDirectory(atPath: folder.path)
        where name.hasSuffix(".psk") || name.hasSuffix(".key") {
            try FileManager.default.setAttributes(
                [.posixPermissions: 0o600], ofItemAtPath: "\(folder.path)/\(name)")
        }
    }

    @Test func aGatewayGetsOneSiteAfterTheOther() throws {
        let folder = try Folder("name = \"onprem\"\nlisten-port = 51000\naddress = [\"169.254.100.1/29\"]")
        let before = try String(contentsOfFile: "\(folder.path)/vgwd.toml", encoding: .utf8)
        for (name, prefix) in [("one", "10.31.0.0/16"), ("two", "10.32.0.0/16")] {
            try pair(
                in: folder, "--add", folder.path + "/", "--left-prefix", "192.168.10.0/24", "--left-endpoint",
                "192.0.2.1",
                "--right", name, "--right-prefix", prefix, "--output", "\(folder.path)/out")
        }
        let here = try folder.load()
        #expect(try String(contentsOfFile: "\(folder.path)/vgwd.toml", encoding: .utf8) == before)
        #expect(here.connections.map(\.name) == ["aws", "one", "two"])
        let links = here.connections.compactMap(\.tunnels[0].inside)
        #expect(links.map(\.local.description) == ["169.254.100.9", "169.254.100.13"])
        for (index, name) in ["one", "two"].enumerated() {
            let there = try GatewayConfiguration.load(
                path: "\(folder.path)/out/\(name)/vgwd.toml", environment: [:])
            let (near, far) = (here.connections[index + 1].tunnels[0], there.connections[0].tunnels[0])
            #expect(
                far.publicKey == here.privateKey.publicKey && near.publicKey == there.privateKey.publicKey)
            #expect(near.presharedKey.isEqual(to: far.presharedKey) && !near.presharedKey.isNone)
            #expect(far.inside == links.map { InsideLink(local: $0.remote, remote: $0.local) }[index])
            // The gateway's own port, as it has one.
            #expect(far.endpoints.map(\.description) == ["192.0.2.1:51000"])
            #expect(near.binding.isDefault && near.endpoints.isEmpty)
            #expect(there.connections[0].name == "onprem")
        }
    }

    @Test func anEndpointAtAnotherPortGetsThatPort() throws {
        let folder = try Folder("name = \"onprem\"")
        try pair(
            in: folder, "--add", folder.path, "--left-prefix", "192.168.10.0/24", "--left-endpoint",
            "192.0.2.1:4500",
            "--right", "one", "--right-prefix", "10.31.0.0/16", "--output", "\(folder.path)/out")
        #expect(try folder.load().connections[1].tunnels[0].binding.listenPort == 4500)
    }

    @Test func aGatewayWithoutAPortOfItsOwnGetsAFreeOneForEachSite() throws {
        let folder = try Folder("name = \"onprem\"\nlisten-port = 0")
        for (name, prefix) in [("one", "10.31.0.0/16"), ("two", "10.32.0.0/16")] {
            try pair(
                in: folder, "--add", folder.path, "--left-prefix", "192.168.10.0/24", "--left-endpoint",
                "192.0.2.1", "--right", name, "--right-prefix", prefix, "--output", "\(folder.path)/out")
        }
        let tunnels = try folder.load().connections.flatMap(\.tunnels)
        #expect(tunnels.map(\.binding.listenPort) == [nil, 51820, 51821])
        let there = try GatewayConfiguration.load(path: "\(folder.path)/out/two/vgwd.toml", environment: [:])
        #expect(there.connections[0].tunnels[0].endpoints.map(\.description) == ["192.0.2.1:51821"])
    }

    @Test(
        "what vgwd would not take is not written",
        arguments: [
            (["--right", "aws", "--right-prefix", "10.31.0.0/16"], "a connection is named \"aws\" already"),
            (
                ["--right", "one", "--right-prefix", "10.20.0.0/16"],
                "connection \"aws\" has 10.20.0.0/16 already"
            ),
        ])
    func additionThatCannotBe(_ right: [String], _ says: String) throws {
        let folder = try Folder("name = \"onprem\"")
        let failure = #expect(throws: Failure.self) {
            try PairCommand.parse(
                ["--add", folder.path, "--left-prefix", "192.168.10.0/24", "--left-endpoint", "192.0.2.1"]
                    + right
                    + ["--output", "\(folder.path)/out"]
            ).run()
        }
        #expect(failure?.message.contains(says) == true, "\(failure?.text ?? "")")
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(folder.path)/conf.d").isEmpty)
        #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/out"))
    }

    @Test func stepsAfterAnAdditionOverwriteNothingAndFitATerminal() throws {
        let (left, right) = (
            try #require(IPPrefix("169.254.100.1/30")), try #require(IPPrefix("169.254.100.2/30"))
        )
        let pair = try Pair(
            left: Pair.Side(
                name: "onprem", prefixes: [], endpoint: nil, address: left, listenPort: 51820),
            right: Pair.Side(
                name: "branch", prefixes: [], endpoint: "192.0.2.9:51820", address: right, listenPort: 51820))
        let there = pair.nextSteps(addedTo: "/home/me/onprem", folder: "onprem-branch")
        let here = pair.nextSteps(addedTo: "/etc/vgwd", folder: "onprem-branch")
        #expect(there[1] == "     tar -C /home/me/onprem -c conf.d/branch.toml conf.d/branch.psk |")
        #expect(there.contains("       systemctl restart vgwd'"))
        #expect(here[1] == "     sudo chown -R vgwd: /etc/vgwd/conf.d && sudo vgwd check &&")
        for line in there + here {
            #expect(line.count <= 80)
            #expect(!line.contains(" scp ") && !line.contains(" cp ") && !line.contains("install -m"))
            #expect(!line.contains("tar -C /etc/vgwd") || line.contains("-xk"))
        }
    }
}
