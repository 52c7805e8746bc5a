internal import LinuxIO
internal import Logging

/// What a gateway keeps in its state folder from one run to the next, a file each.
enum StateFile: String, CaseIterable {
    /// The floor of handshake timestamps (`TimestampStore`).
    case timestamp
    /// The firewall mark and the table (`RoutingNumbersStore`).
    case numbers
    /// Routes that an operator saved (`KeptRoutes`).
    case routes

    func path(in directory: String, of interface: String) -> String {
        "\(directory)/\(interface).\(rawValue)"
    }

    /// Copies what was in the file at `path` beside it, before it is written anew: it was not ours, or was damaged.
    static func keepBeside(_ bytes: [UInt8], of path: String, reason: String, _ log: Logger) {
        let copy = "\(path).corrupt"
        do throws(SystemError) {
            try AtomicFile.write(bytes, to: copy, mode: 0o600)
            log.warning(
                "state file is not used, and kept beside",
                metadata: ["path": "\(copy)", "reason": "\(reason)"])
        } catch {
            log.warning("state file is not used", metadata: ["path": "\(path)", "reason": "\(reason)"])
        }
    }
}
