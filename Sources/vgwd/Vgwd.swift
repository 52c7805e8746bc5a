internal import ArgumentParser
internal import ControlServer
internal import Daemon
internal import FoundationEssentials
internal import Glibc

/// `vgwd [--config FILE]`, `vgwd check`, `vgwd unguard`, and `vgwd [-f] INTERFACE` as `wg-quick` starts other
/// implementations.
@main
struct Vgwd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vgwd",
        abstract: "Site-to-site VPN gateway that speaks WireGuard.",
        usage: """
            vgwd [--config FILE] [--state-dir FOLDER]
            vgwd check [--config FILE]
            vgwd unguard [--config FILE]
            vgwd [-f] [--cipher CIPHER] INTERFACE
            """,
        discussion: """
            Without an INTERFACE, vgwd runs what the configuration file says until it is told to end (SIGTERM). After \
            any other end, and after SIGUSR1 (a restart), its prefixes stay unreachable until it runs again.
            With one it starts empty, to be set up by 'wg' and 'wg-quick'
            (WG_QUICK_USERSPACE_IMPLEMENTATION=vgwd); it goes to the background unless -f is given, and shows what \
            it drops by 'vgwctl status --drops --socket /run/vgwd/INTERFACE.sock'.

            LOG_LEVEL is 'debug', 'info', 'warning', 'error' or 'silent'.
            """,
        version: Daemon.version,
        subcommands: [Run.self, Check.self, Unguard.self],
        defaultSubcommand: Run.self)

    static func main() {
        Daemon.harden()
        // Before any file or socket is made: what is not said otherwise is root's alone.
        umask(0o077)
        Self.main(nil)
    }
}

struct ConfigurationOption: ParsableArguments {
    @Option(name: .long, help: ArgumentHelp("The configuration file.", valueName: "file"))
    var config = GatewayConfiguration.defaultPath

    /// Prints what is wrong and ends the process with status 78 when there is anything. `user` is the one who is going to
    /// run vgwd, nil the one who runs this process.
    func load(for user: String? = nil) throws -> GatewayConfiguration {
        try Self.take { () throws(ConfigurationErrors) in
            try GatewayConfiguration.load(path: config, user: user)
        }
    }

    static func take(
        _ load: () throws(ConfigurationErrors) -> GatewayConfiguration
    ) throws -> GatewayConfiguration {
        do throws(ConfigurationErrors) {
            return try load()
        } catch {
            // Without a name before it: editors jump to `PATH:LINE:`.
            Daemon.complain("\(error)", name: nil)
            throw ExitCode(ConfigurationErrors.exitStatus)
        }
    }
}

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check the configuration file and print what would be applied.",
        discussion:
            "The files conf.d/*.toml beside it are read too. Nothing is changed. The exit status is 78 when a file has "
            + "errors; all of them are printed. A warning, "
            + "on standard error, is of what is true of this host now: the exit status is 0 all the same. Root looks at "
            + "files with the eyes of the user who runs vgwd, as its unit says.")

    @OptionGroup var file: ConfigurationOption

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Who is going to run vgwd, where that is not the user of its unit: for root to say.",
            valueName: "user"))
    var user: String?

    func run() throws {
        let checked: FileCheck
        do throws(DaemonError) {
            checked = try FileCheck.run(path: file.config, user: user)
        } catch {
            Daemon.complain("\(error)")
            throw ExitCode.validationFailure
        }
        if let note = checked.note { Daemon.complain(note) }
        let configuration = try ConfigurationOption.take { () throws(ConfigurationErrors) in
            try checked.outcome.get()
        }
        for warning in configuration.warnings {
            Daemon.complain("\(warning.text(path: file.config)) (warning)", name: nil)
        }
        Daemon.show(configuration)
        if let problem = DaemonSettings(configuration).numbersConflict() {
            Daemon.complain("warning: \(problem)")
        }
    }
}

struct Unguard: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take away the rules and unreachable routes that a vgwd left which does not run any more.",
        discussion: """
            A stop (SIGTERM) takes them away by itself. A vgwd that failed, was killed or was stopped for a restart \
            leaves them, so that nothing that belongs in a tunnel leaves in clear until it runs again.
            """)

    @OptionGroup var file: ConfigurationOption

    func run() throws {
        let configuration = try file.load(for: SystemFiles.serviceUser)
        do throws(DaemonError) {
            let count = try Daemon.removeGuard(DaemonSettings(configuration))
            print(
                count == 0
                    ? "there was nothing left of \(configuration.interface)"
                    : "removed \(count) rules and routes of \(configuration.interface)")
        } catch {
            Daemon.complain("\(error)")
            throw ExitCode.failure
        }
    }
}

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Run the gateway (the default).")

    /// Names the descriptor that the foreground process of a background start reports on.
    private static let readyVariable = "VGWD_READY_FD"

    @OptionGroup var file: ConfigurationOption

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Where what must outlive a run is kept, in place of the configured folder.", valueName: "folder"))
    var stateDir: String?

    @Flag(name: [.customShort("f"), .long], help: "Stay in the foreground.")
    var foreground = false

    @Option(
        name: .long,
        help: ArgumentHelp(
            "With INTERFACE: chacha20-poly1305, or aes-256-gcm where every peer is a vgwd that is told the same.",
            valueName: "cipher"))
    var cipher: String?

    @Argument(help: "Make this interface and let 'wg' set it up, without a configuration file.")
    var interface: String?

    func validate() throws {
        if let advice = interface.flatMap({ CommandWords.advice(on: $0) }) { throw ValidationError(advice) }
        guard let interface else {
            guard cipher == nil else {
                throw ValidationError("--cipher goes with INTERFACE; a configuration has a key for it")
            }
            return
        }
        do throws(DaemonError) {
            _ = try DaemonSettings(interface: interface, cipher: cipher)
        } catch {
            throw ValidationError("\(error)")
        }
    }

    func run() throws {
        let environment = ProcessInfo.processInfo.environment
        // Nobody but the run has them, and the keys in them, from here on.
        throw ExitCode(
            Daemon.run(try settings(environment), environment: environment) { ControlServer($0) })
    }

    /// Does not return where the run goes to the background.
    private func settings(_ environment: [String: String]) throws -> DaemonSettings {
        var settings: DaemonSettings
        if let interface {
            let tunDescriptor = try Self.descriptor("WG_TUN_FD", in: environment)
            let wgDescriptor = try Self.descriptor("WG_UAPI_FD", in: environment)
            if !foreground, environment["WG_PROCESS_FOREGROUND"] != "1",
                environment[Self.readyVariable] == nil
            {
                try runInBackground(interface, environment)
            }
            settings = try DaemonSettings(interface: interface, cipher: cipher)
            settings.tunDescriptor = tunDescriptor
            settings.wgDescriptor = wgDescriptor
        } else {
            settings = DaemonSettings(try file.load())
        }
        settings.readyDescriptor = environment[Self.readyVariable].flatMap { Int32($0) }
        if let stateDir { settings.stateDirectory = stateDir }
        return settings
    }

    /// The descriptor that whoever started us gave; nil where the variable is not there, or empty.
    private static func descriptor(_ name: String, in environment: [String: String]) throws -> Int32? {
        guard let text = environment[name], !text.isEmpty else { return nil }
        guard let number = Int32(text), fcntl(number, F_GETFD) >= 0 else {
            Daemon.complain(
                "\(name) is '\(text)', which is no open descriptor: "
                    + "pass one on and give its number, or leave \(name) out")
            throw ExitCode.validationFailure
        }
        return number
    }

    /// Ends this process: when the second one answers on its sockets, or has ended.
    private func runInBackground(_ interface: String, _ environment: [String: String]) throws -> Never {
        var arguments = ["vgwd", "--foreground", interface]
        if let stateDir { arguments += ["--state-dir", stateDir] }
        if let cipher { arguments += ["--cipher", cipher] }
        let level = environment["LOG_LEVEL"]?.lowercased()
        do throws(DaemonError) {
            try Daemon.startInBackground(
                interface, arguments: arguments, environment: environment, variable: Self.readyVariable,
                keepsOutput: level != nil && level != "silent")
        } catch {
            Daemon.complain("\(error)")
            throw ExitCode.failure
        }
        throw ExitCode.success
    }
}
