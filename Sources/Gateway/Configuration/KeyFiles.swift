internal import LinuxIO
package import WireGuard

/// Where keys come from: files in the daemon, a dictionary in tests.
package protocol KeyFiles: Sendable {
    /// The 32 bytes that the file holds in base64; nil when it holds something else.
    func key(at path: String) throws(KeyFileProblem) -> SecretBytes?
}

/// What is wrong with a key file. The words name the file, never what is in it.
package struct KeyFileProblem: Error, Hashable, Sendable {
    package let problem: String
    package let remedy: String

    package init(problem: String, remedy: String) {
        self.problem = problem
        self.remedy = remedy
    }
}

/// Files that nobody but their owner may read. Their text is never in memory that is not wiped.
package struct SystemKeyFiles: KeyFiles {
    private static let sizeLimit = 4096

    /// Of systemd, which guards what is in it: since version 254 by an access list, that a file's mode shows as
    /// bits of a group.
    private let credentialsDirectory: String?

    package init(credentialsDirectory: String? = nil) { self.credentialsDirectory = credentialsDirectory }

    package func key(at path: String) throws(KeyFileProblem) -> SecretBytes? {
        let text: SecretBytes
        let mode: UInt32
        do throws(SystemError) {
            (text, mode, _) = try AtomicFile.readSecret(path, limit: Self.sizeLimit)
        } catch {
            switch error.code {
            case Self.isMissing:
                throw KeyFileProblem(
                    problem: "there is no \(path)",
                    remedy: "make it, mode 0600, by 'vgwctl genkey' ('vgwctl genpsk' for a pre-shared key)")
            case Self.isNoFile:
                throw KeyFileProblem(
                    problem: "\(path) is not a file", remedy: "name a file that holds one key in base64")
            case Self.isTooLong:
                throw KeyFileProblem(
                    problem: "\(path) is too long for a key",
                    remedy: "it holds one key in base64: 44 characters")
            default:
                throw KeyFileProblem(
                    problem: "\(path) cannot be read: \(SystemError.text(error.code))",
                    remedy: "let vgwd's user own it, with mode 0600, and the folder that it is in")
            }
        }
        guard mode & (isCredential(path) ? 0o007 : 0o077) == 0 else {
            throw KeyFileProblem(
                problem: "\(path) has mode 0\(String(mode, radix: 8)): others can get at the key",
                remedy: "run: chmod 0600 \(path) (and make new keys if others may have read it)")
        }
        return text.decodedBase64
    }

    private func isCredential(_ path: String) -> Bool {
        guard let credentialsDirectory, !credentialsDirectory.isEmpty else { return false }
        return path.hasPrefix(credentialsDirectory + "/")
            && !path.dropFirst(credentialsDirectory.count + 1).contains("/")
    }

    // errno of Linux, as `AtomicFile.readSecret` throws it.
    private static let isMissing: Int32 = 2  // ENOENT
    private static let isNoFile: Int32 = 22  // EINVAL
    private static let isTooLong: Int32 = 27  // EFBIG
}
