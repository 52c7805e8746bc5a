internal import ControlAPI
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireGuard

/// A whole run of the daemon, from settings to exit status.
package enum Daemon {
    package static let version = Release.version

    /// Before any key is read.
    package static func harden() { ProcessHardening.apply() }

    /// Takes the settings over, with the keys in them: a key that `wg` removes is then in no memory of the process.
    /// `makeListener` is for the control socket, where there is to be one. Returns the exit status: 0 when asked to end, and
    /// that of a `DaemonError` when something ended it.
    package static func run(
        _ given: consuming DaemonSettings, environment: [String: String],
        makeListener: (ControlSocket) -> any ControlListener
    ) -> Int32 {
        SignalFD.ignoreStrays()
        ThreadRehearsal.prepare()
        var settings = given
        let descriptors = DescriptorLimit.raise()
        settings.limitClients(descriptors: descriptors)
        let log: DaemonLog
        do throws(SystemError) {
            log = try DaemonLog(environment: environment)
        } catch {
            let needed = settings.neededDescriptors
            let reason = "\(error): it needs \(needed) open files (ulimit -n), and may have \(descriptors)"
            complain("cannot start its log: \(reason)")
            settings.reportFailure(reason)
            return DaemonError.failure
        }
        // What it has to say of its end is written before the process is gone.
        defer { log.end() }
        return run(
            consume settings, descriptors: descriptors, log: log.logger, makeListener: makeListener)
    }

    private static func run(
        _ given: consuming DaemonSettings, descriptors: Int, log: Logger,
        makeListener: (ControlSocket) -> any ControlListener
    ) -> Int32 {
        let settings = given.withoutSpec
        let loop: ControlLoop
        do throws(DaemonError) {
            loop = try ControlLoop(settings: consume given, descriptors: descriptors, log: log)
        } catch {
            log.critical("cannot start", metadata: ["error": "\(error)"])
            settings.reportFailure("\(error)")
            return error.exitStatus
        }
        let server = settings.controlSocket.map {
            makeListener(
                ControlSocket(
                    path: $0, mailbox: loop.mailbox, clientLimit: settings.controlClientLimit,
                    drops: loop.requestDrops, log: log))
        }
        loop.clients.controlServer = server
        server?.start()
        let ending = loop.run()
        server?.stop()
        switch ending {
        case .stopped(let reason), .handedOver(let reason):
            log.notice("ended", metadata: ["reason": "\(reason)"])
            return 0
        case .failed(let reason, let exitStatus):
            log.critical("ended", metadata: ["error": "\(reason)"])
            if !loop.isAnnounced { settings.reportFailure(reason) }
            return exitStatus
        }
    }

    /// Takes away the guard that a gateway left which does not run any more. Returns how many rules and routes that were.
    package static func removeGuard(_ settings: DaemonSettings) throws(DaemonError) -> Int {
        try Startup.refuseSecond(settings)
        do throws(SystemError) {
            let log = try DaemonLog(environment: ["LOG_LEVEL": "error"])
            defer { log.end() }
            var plan = settings.plan
            plan.table = nil
            plan.mark = 0
            let keeper = try RouteKeeper(plan: plan, interface: 0, log: log.logger)
            let (count, refusal) = keeper.removeLeftovers(marks: try settings.findEarlierMarks(log.logger))
            if let refusal { throw refusal }
            return count
        } catch {
            let hint = error.code == EPERM ? ": run it as root" : ""
            throw DaemonError("\(error)\(hint)")
        }
    }

    /// For `vgwd check`, to standard output, on a terminal in lines that it shows whole.
    package static func show(_ configuration: GatewayConfiguration) {
        print(configuration.summary(width: TerminalSize.columns))
    }

    /// To standard error, as a command does that ends; on a terminal in lines that it shows whole.
    package static func complain(_ text: String, name: String? = "vgwd") {
        let text = Printable.escaping(name.map { "\($0): \(text)" } ?? text, keepsLines: true)
        guard let width = TerminalSize.errorColumns else { return StandardError.print(text) }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).flatMap {
            Prose.wrapped(String($0), first: "", indent: 2, width: width)
        }
        StandardError.print(lines.joined(separator: "\n"))
    }

    /// Executes this program again in the background (`Detachment`). Returns once that one is ready; throws why it will
    /// not be.
    package static func startInBackground(
        _ interface: String, arguments: [String], environment: [String: String], variable: String,
        keepsOutput: Bool
    ) throws(DaemonError) {
        let outcome: Detachment.Outcome
        do throws(SystemError) {
            outcome = try Detachment.start(
                arguments: arguments, environment: environment, variable: variable, keepsOutput: keepsOutput)
        } catch {
            throw DaemonError("\(interface) did not start: \(error)")
        }
        switch outcome {
        case .ready: return
        case .failed(let reason?): throw DaemonError("\(interface) did not start: \(reason)")
        case .failed(nil): throw DaemonError("\(interface) did not start, and said nothing: try with -f")
        }
    }
}

extension DaemonSettings {
    /// To the process that waits in the foreground, if there is one.
    fileprivate func reportFailure(_ reason: String) {
        if let readyDescriptor { Detachment.reportFailure(reason, on: readyDescriptor) }
    }
}
