internal import LinuxIO

/// A configuration as `vgwd check` sees it. The unit runs vgwd as a user of its own, who cannot read all that root can: a
/// check that says "right" and a start that fails then help nobody. So where root checks, the files are opened as that
/// user, by the kernel's own judgement of modes, groups and access lists (`Users.asFileUser`).
package struct FileCheck: Sendable {
    package let outcome: Result<GatewayConfiguration, ConfigurationErrors>
    /// Who looked, where that is not who one would think.
    package let note: String?

    /// `user` is the one who is going to run vgwd; nil is the unit's.
    package static func run(path: String, user: String?) throws(DaemonError) -> FileCheck {
        // What the kernel tells is no file of that user's.
        let surroundings = Surroundings.current()
        let name = user ?? SystemFiles.serviceUser
        guard Users.current == 0 else {
            guard user == nil else {
                throw DaemonError("only root can look at files as user \(name): run it by sudo")
            }
            return FileCheck(outcome: load(path, nil, surroundings), note: nil)
        }
        do throws(SystemError) {
            if let outcome = try Users.asFileUser(name, { load(path, name, surroundings) }) {
                return FileCheck(outcome: outcome, note: nil)
            }
        } catch {
            guard user == nil else { throw DaemonError("\(error)") }
            return FileCheck(
                outcome: load(path, name, surroundings), note: "the files were looked at as root: \(error)")
        }
        guard user == nil else { throw DaemonError("there is no user \(name) on this host") }
        return FileCheck(
            outcome: load(path, nil, surroundings),
            note:
                "the files were looked at as root: there is no user \(name) here, as whom the unit runs vgwd "
                + "('systemd-sysusers' makes it)")
    }

    private static func load(
        _ path: String, _ user: String?, _ surroundings: Surroundings
    ) -> Result<GatewayConfiguration, ConfigurationErrors> {
        Result { () throws(ConfigurationErrors) in
            try GatewayConfiguration.load(path: path, user: user, surroundings: surroundings)
        }
    }
}
