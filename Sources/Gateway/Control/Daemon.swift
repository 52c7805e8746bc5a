internal import LinuxIO
internal import Logging
internal import WireGuard

/// A whole run of the daemon, from settings to exit status.
package enum Daemon {
    package static let version = "0.1.0"

    /// Before any key is read.
    package static func harden() { ProcessHardening.apply() }

    /// Returns the exit status: 0 when asked to end, 1 when something ended it.
    package static func run(_ settings: DaemonSettings, environment: [String: String]) -> Int32 {
        let log: DaemonLog
        do throws(SystemError) {
            log = try DaemonLog(environment: environment)
        } catch {
            complain("cannot start its log: \(error)")
            return 1
        }
        // What it has to say of its end is written before the process is gone.
        defer { log.end() }
        return run(settings, log: log.logger)
    }

    private static func run(_ given: DaemonSettings, log: Logger) -> Int32 {
        var settings = given
        settings.limitClients(descriptors: DescriptorLimit.raise())
        let loop: ControlLoop
        do throws(DaemonError) {
            loop = try ControlLoop(settings: settings, log: log)
        } catch {
            log.critical("cannot start", metadata: ["error": "\(error)"])
            return 1
        }
        let server = settings.controlSocket.map {
            ControlServer(
                path: $0, mailbox: loop.mailbox, connectionLimit: settings.controlClientLimit,
                drops: loop.requestDrops, log: log)
        }
        loop.controlServer = server
        server?.start()
        let ending = loop.run()
        server?.stop()
        switch ending {
        case .stopped(let reason), .handedOver(let reason):
            log.notice("ended", metadata: ["reason": "\(reason)"])
            return 0
        case .failed(let reason):
            log.critical("ended", metadata: ["error": "\(reason)"])
            return 1
        }
    }

    /// Takes away the guard that a gateway left which does not run any more. Returns how many rules and routes that were.
    package static func removeGuard(_ settings: DaemonSettings) throws(DaemonError) -> Int {
        try ControlLoop.refuseSecond(settings)
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
            let hint = error.code == 1 ? ": run it as root" : ""  // EPERM
            throw DaemonError("\(error)\(hint)")
        }
    }

    /// To standard error, as a command does that ends.
    package static func complain(_ text: String, name: String? = "vgwd") {
        StandardError.print(name.map { "\($0): \(text)" } ?? text)
    }

    /// Executes this program again in the background; true once that one is ready (`Detachment`).
    package static func startInBackground(
        arguments: [String], environment: [String: String], variable: String, keepsOutput: Bool
    ) throws -> Bool {
        try Detachment.start(
            arguments: arguments, environment: environment, variable: variable, keepsOutput: keepsOutput)
    }
}

extension ControlLoop {
    /// Once: memory for keys is taken as they come.
    func tellOfUnlockedKeys() {
        guard !SecretPool.isLocked, !hasToldOfUnlockedKeys else { return }
        hasToldOfUnlockedKeys = true
        log.warning(
            "keys may get into swap, as this process may lock no more memory: raise LimitMEMLOCK in the unit (ulimit -l)"
        )
    }

    /// Another daemon answers on one of our sockets: it is named, and this one does not start.
    static func refuseSecond(_ settings: DaemonSettings) throws(DaemonError) {
        var paths = [settings.managesLink ? settings.controlSocket : nil].compactMap { $0 }
        if settings.wgDescriptor == nil { paths.append("\(WgServer.directory)/\(settings.interface).sock") }
        for path in paths {
            guard UnixListener.isAnswered(path: path) else { continue }
            let other = try? UnixStream.connect(path: path)
            let process = other?.credentials.map { "process \($0.process)" } ?? "another process"
            throw DaemonError(
                "\(settings.interface) is run by \(process), which answers at \(path): end that one first")
        }
    }
}
