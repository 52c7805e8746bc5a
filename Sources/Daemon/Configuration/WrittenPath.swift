internal import LinuxIO

/// A path that a run writes to, and what may be there before: what is of another kind is somebody else's, and is neither
/// replaced nor written to.
struct WrittenPath {
    let path: String
    let kind: FileStatus.Kind
    /// The key of the configuration that decides about the path.
    let section: String
    let key: String

    static func all(
        interface: String, stateDirectory: String, controlSocket: String?, hasWgSocket: Bool
    ) -> [WrittenPath] {
        var paths = [
            WrittenPath(path: stateDirectory, kind: .directory, section: "gateway", key: "state-directory")
        ]
        for file in StateFile.allCases {
            paths.append(
                WrittenPath(
                    path: file.path(in: stateDirectory, of: interface), kind: .regular, section: "gateway",
                    key: "state-directory"))
        }
        if let controlSocket { paths += socket(controlSocket, section: "control", key: "socket") }
        if hasWgSocket {
            paths += socket(WgServer.socket(of: interface), section: "gateway", key: "interface")
        }
        return paths
    }

    /// Those of a run. Without a configuration a control socket that cannot be made ends nothing.
    static func all(_ settings: DaemonSettings) -> [WrittenPath] {
        all(
            interface: settings.interface, stateDirectory: settings.stateDirectory,
            controlSocket: settings.managesLink ? settings.controlSocket : nil,
            hasWgSocket: settings.wgDescriptor == nil)
    }

    private static func socket(_ path: String, section: String, key: String) -> [WrittenPath] {
        var paths = [WrittenPath(path: path, kind: .socket, section: section, key: key)]
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            let folder = String(path[..<slash])
            paths.append(WrittenPath(path: folder, kind: .directory, section: section, key: key))
        }
        return paths
    }

    func obstacle(_ files: some ConfigurationFiles) -> FileProblem? { files.obstacle(to: kind, at: path) }
}
