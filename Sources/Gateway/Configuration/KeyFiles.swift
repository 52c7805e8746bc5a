internal import LinuxIO

/// Where the texts of keys come from: files in the daemon, a dictionary in tests.
package protocol KeyFiles: Sendable {
    /// The text of the file, without the white space around it.
    func text(at path: String) throws(KeyFileProblem) -> String
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

/// Files that nobody but their owner may read.
package struct SystemKeyFiles: KeyFiles {
    private static let sizeLimit = 4096

    package init() {}

    package func text(at path: String) throws(KeyFileProblem) -> String {
        var bytes: [UInt8]
        let mode: UInt32
        do throws(SystemError) {
            (bytes, mode, _) = try AtomicFile.read(path, limit: Self.sizeLimit)
        } catch {
            switch error.code {
            case Self.isMissing:
                throw KeyFileProblem(
                    problem: "there is no \(path), or vgwd may not look at it",
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
                    problem: "\(path) cannot be read", remedy: "let vgwd's user own it, with mode 0600")
            }
        }
        defer { for place in bytes.indices { bytes[place] = 0 } }
        guard mode & 0o077 == 0 else {
            throw KeyFileProblem(
                problem: "\(path) has mode 0\(String(mode, radix: 8)): others can get at the key",
                remedy: "run: chmod 0600 \(path) (and make new keys if others may have read it)")
        }
        let isBlank = { (byte: UInt8) in byte <= 0x20 }
        return String(
            decoding: bytes.drop(while: isBlank).reversed().drop(while: isBlank).reversed(), as: UTF8.self)
    }

    // errno of Linux, as `AtomicFile.read` throws it.
    private static let isMissing: Int32 = 2  // ENOENT
    private static let isNoFile: Int32 = 22  // EINVAL
    private static let isTooLong: Int32 = 27  // EFBIG
}

/// Keys by path, for tests.
package struct FixedKeyFiles: KeyFiles {
    package var texts: [String: String]

    package init(_ texts: [String: String]) { self.texts = texts }

    package func text(at path: String) throws(KeyFileProblem) -> String {
        guard let text = texts[path] else {
            throw KeyFileProblem(problem: "there is no \(path)", remedy: "add it to the dictionary")
        }
        return text
    }
}
