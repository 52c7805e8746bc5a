import Daemon
import LinuxIO
import WireGuard

/// Keys by path, and nothing else on any path.
struct FixedFiles: ConfigurationFiles {
    var texts: [String: String]

    init(_ texts: [String: String]) { self.texts = texts }

    func key(at path: String) throws(FileProblem) -> SecretBytes? {
        guard let text = texts[path] else {
            throw FileProblem(problem: "there is no \(path)", remedy: "add it to the dictionary")
        }
        return SecretBytes(base64: text.utf8)
    }

    func obstacle(to access: FileAccess, at path: String) -> FileProblem? { nil }
    func tampering(with path: String) -> FileProblem? { nil }
    func obstacle(to kind: FileStatus.Kind, at path: String) -> FileProblem? { nil }
}
