internal import GatewayCore
internal import LinuxIO

/// Descriptors, threads and address space that a run needs, made sure before the first of them is made.
///
/// Libraries that we stand on end the process where they get no descriptor or no thread, so a limit that is too low must
/// be found before they meet it, and clients must not be able to take the last descriptor.
extension DaemonSettings {
    /// The daemon's own: the control loop, its files, the server, a question to the kernel, names being resolved.
    private static let fixedDescriptors = 56
    /// Descriptors of a hook that runs: its pipes, and what tells of its end.
    private static let descriptorsOfHook = 5
    /// The fewest clients of both sockets.
    private static let fewestClients = (wg: 3, control: 4)
    /// The server, the threads of the Swift runtime that are not for a processor each, the log, names, hooks.
    private static let fixedThreads = 6
    private static let heap = 32 << 20

    /// Descriptors without any client. Each underlay has a pair of sockets for each worker and one for handshakes; one
    /// may be opened again before its old sockets are closed.
    var ownDescriptors: Int {
        let bindings = Set(spec.connections.flatMap(\.tunnels).map(\.binding)).union([UnderlayBinding()])
            .count
        let sockets = (min(bindings, UDPSocketGroups.limit) + 1) * 2 * (workers + 1)
        return Self.fixedDescriptors + sockets + workers + hooks.count * Self.descriptorsOfHook
    }

    /// The least limit on open files that a run can do with.
    var neededDescriptors: Int { ownDescriptors + Self.fewestClients.wg + Self.fewestClients.control }

    /// What is left of `descriptors` is shared out among the clients of the two sockets.
    mutating func limitClients(descriptors: Int) {
        let left = descriptors - ownDescriptors
        wgClientLimit = min(max(left / 4, Self.fewestClients.wg), 64)
        controlClientLimit = min(max(left / 2, Self.fewestClients.control), 512)
    }

    /// Throws where this process may have fewer descriptors, threads or less memory than the run needs.
    func refuseTooFewDescriptors(limit: Int) throws(DaemonError) {
        let others = max(DescriptorLimit.used(below: limit) - Self.usedAtStart, 0)
        let needed = neededDescriptors + others
        guard limit < needed else { return }
        throw DaemonError(
            "this process may have \(limit) open files, and needs \(needed): raise LimitNOFILE in the unit (ulimit -n)"
        )
    }

    /// Standard input, output and error, and the log's two.
    private static let usedAtStart = 5

    func refuseTooFewThreads() throws(DaemonError) {
        let count = Self.fixedThreads + Processors.count + 2 * workers
        do throws(SystemError) {
            try ThreadRehearsal.run(threads: count, heap: Self.heap)
        } catch {
            // Each with a stack of 8 MB, and what is in memory already.
            let megabytes = 128 + Self.heap >> 20 + count * 8
            throw DaemonError(
                "\(error): this process needs \(count) threads and about \(megabytes) MB of address space: raise "
                    + "TasksMax, LimitNPROC and LimitAS in the unit (ulimit -u, ulimit -v)")
        }
    }
}
