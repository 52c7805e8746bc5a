package import LinuxIO
package import WireGuard

/// What a configuration asks of the file system: the real one in the daemon, a dictionary in tests.
package protocol ConfigurationFiles: Sendable {
    /// The 32 bytes that the file holds in base64; nil when it holds something else.
    func key(at path: String) throws(FileProblem) -> SecretBytes?

    /// Why others than root and vgwd's user may have written what is at the path; nil if they cannot have, or if there
    /// is nothing.
    func tampering(with path: String) -> FileProblem?

    /// Why vgwd's user could not read, write or start what is at the path, or because there is nothing; nil if he could.
    func obstacle(to access: FileAccess, at path: String) -> FileProblem?

    /// Why vgwd cannot have a file, a folder or a socket at the path: something else is there, which stays. Nil if
    /// nothing is in the way.
    func obstacle(to kind: FileStatus.Kind, at path: String) -> FileProblem?
}

/// What is wrong with a file. The words name the file, never what is in it.
package struct FileProblem: Error, Hashable, Sendable {
    package let problem: String
    package let remedy: String

    package init(problem: String, remedy: String) {
        self.problem = problem
        self.remedy = remedy
    }
}

/// The files of this host. The text of a key is never in memory that is not wiped.
package struct SystemFiles: ConfigurationFiles {
    /// As the unit names it (systemd/vgwd.service).
    package static let serviceUser = "vgwd"
    private static let sizeLimit = 4096

    /// systemd's folder of credentials. systemd guards what is in it: since version 254 by an access list, which a
    /// file's mode shows as bits of a group.
    private let credentialsDirectory: String?
    /// Whose files are believed, by number: root's, those of the user that this process runs as, and of the one who is
    /// going to run vgwd.
    private let owners: Set<UInt32>
    private let user: String?

    /// `user` is the one who is going to run vgwd; nil is the one who runs this process.
    package init(credentialsDirectory: String? = nil, user: String? = nil) {
        self.credentialsDirectory = credentialsDirectory
        self.user = user
        self.owners = [0, Users.current, user.flatMap { Users.user(named: $0) } ?? 0]
    }

    package func key(at path: String) throws(FileProblem) -> SecretBytes? {
        let text: SecretBytes
        let mode: UInt32
        let owner: UInt32
        do throws(SystemError) {
            (text, mode, owner) = try AtomicFile.readSecret(path, limit: Self.sizeLimit)
        } catch {
            switch error.code {
            case Self.isMissing:
                throw FileProblem(
                    problem: "there is no \(path)",
                    remedy: "make it, mode 0600, by 'vgwctl genkey' ('vgwctl genpsk' for a pre-shared key)")
            case Self.isNoFile:
                throw FileProblem(
                    problem: "\(path) is not a file", remedy: "name a file that holds one key in base64")
            case Self.isTooLong:
                throw FileProblem(
                    problem: "\(path) is too long for a key",
                    remedy: "it holds one key in base64: 44 characters")
            case Self.isForbidden: throw refusal(of: .read, at: path)
            default:
                throw FileProblem(
                    problem: "\(path) cannot be read: \(SystemError.text(error.code))",
                    remedy: "let vgwd's user own it, with mode 0600, and the folder that it is in")
            }
        }
        if let problem = foreignOwner(owner, of: path) { throw problem }
        guard mode & (isCredential(path) ? 0o007 : 0o077) == 0 else {
            throw FileProblem(
                problem: "\(path) has mode 0\(String(mode, radix: 8)): others can get at the key",
                remedy: "run: chmod 0600 \(path) (and make new keys if others may have read it)")
        }
        return text.decodedBase64
    }

    /// Looks at the file itself and at its folder, in which it could be replaced.
    package func tampering(with path: String) -> FileProblem? {
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        for place in [path, folder] {
            guard let status = FileStatus(place) else { continue }
            if let problem = foreignOwner(status.owner, of: place) { return problem }
            if status.isWritableByOthers {
                return FileProblem(
                    problem: "\(place) has mode 0\(String(status.mode, radix: 8)): others can change it",
                    remedy: "look at what is in it, then run: chmod go-w \(place)")
            }
        }
        return nil
    }

    package func obstacle(to access: FileAccess, at path: String) -> FileProblem? {
        guard let error = access.refusal(at: path) else {
            guard access == .execute, FileStatus(path)?.kind == .directory else { return nil }
            return FileProblem(problem: "\(path) is a folder", remedy: "write the path of a program")
        }
        switch error.code {
        case Self.isMissing:
            return FileProblem(
                problem: "there is no \(path)", remedy: "make it, or write the path where it is")
        case Self.isForbidden: return refusal(of: access, at: path)
        default:
            return FileProblem(
                problem: "\(path): \(SystemError.text(error.code))", remedy: "is this the right path?")
        }
    }

    /// What is in the way of the user (EACCES): a folder that he may not enter, or the file itself.
    package func refusal(of access: FileAccess, at path: String) -> FileProblem {
        let who = user.map { "user \($0)" } ?? "this user"
        let owner = user ?? "USER"
        if let folder = FileAccess.closedFolder(before: path) {
            // What is in a folder of somebody else's is better put elsewhere than opened to vgwd.
            let isOurs =
                path.hasPrefix("\(folder)/") && !path.dropFirst(folder.count + 1).contains("/")
                && FileStatus(folder)?.owner == 0 && folder != "/root"
            return FileProblem(
                problem: "\(path) is out of reach: \(who) may not enter \(folder)\(Self.rights(folder))",
                remedy: isOurs
                    ? "run: chown \(owner): \(folder)"
                    : "put it where \(who) gets: install -o \(owner) -g \(owner) -m "
                        + "\(access == .execute ? "0700" : "0600") \(path) /etc/vgwd/, and name that")
        }
        switch access {
        case .read:
            return FileProblem(
                problem: "\(who) may not read \(path)\(Self.rights(path))",
                remedy: "run: chown \(owner): \(path); chmod 0600 \(path)")
        case .write:
            return FileProblem(
                problem: "\(who) may not write in \(path)\(Self.rights(path))",
                remedy: "run: chown \(owner): \(path)")
        case .execute:
            return FileProblem(
                problem: "\(who) may not start \(path)\(Self.rights(path))", remedy: "run: chmod 0755 \(path)"
            )
        }
    }

    private static func rights(_ path: String) -> String {
        guard let status = FileStatus(path) else { return "" }
        return
            " (mode 0\(String(status.mode, radix: 8)), of \(Users.name(of: status.owner) ?? "user \(status.owner)"))"
    }

    private func foreignOwner(_ owner: UInt32, of path: String) -> FileProblem? {
        guard !owners.contains(owner) else { return nil }
        return FileProblem(
            problem: "\(path) belongs to user \(owner), who is neither root nor the user that vgwd runs as",
            remedy: "look at what is in it, then give it to one of them: chown root \(path)")
    }

    package func obstacle(to kind: FileStatus.Kind, at path: String) -> FileProblem? {
        // A folder may be reached by a link. A socket has no name but its own.
        guard let found = FileStatus(path, followsLinks: kind == .directory)?.kind, found != kind else {
            return nil
        }
        return FileProblem(
            problem: "\(path) is \(found.rawValue), not \(kind.rawValue), and is not replaced",
            remedy: "name another path, or move what is there away")
    }

    private func isCredential(_ path: String) -> Bool {
        guard let credentialsDirectory, !credentialsDirectory.isEmpty else { return false }
        return path.hasPrefix(credentialsDirectory + "/")
            && !path.dropFirst(credentialsDirectory.count + 1).contains("/")
    }

    // errno of Linux, as `AtomicFile.readSecret` throws it.
    private static let isMissing: Int32 = 2  // ENOENT
    private static let isForbidden: Int32 = 13  // EACCES
    private static let isNoFile: Int32 = 22  // EINVAL
    private static let isTooLong: Int32 = 27  // EFBIG
}
