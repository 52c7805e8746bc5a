internal import FoundationEssentials

/// Writes what holds keys: folders with mode 0700 and files with 0600 (the program's umask is 077), and
/// nothing over what is there.
struct OutputFolder {
    let path: String
    let files: [DraftFile]

    /// All of them, or none where a file is in the way.
    static func write(_ folders: [OutputFolder]) throws(Failure) {
        for folder in folders { try folder.refuseToOverwrite() }
        for folder in folders { try folder.write() }
    }

    /// Commands of a shell that take all files of `folder` to the folder that vgwd's unit reads, joined by `&&`: where a
    /// file of such a name is there already, tar keeps that one and fails, and the rest is not done.
    static func unpacking(to folder: String) -> [String] {
        [
            "install -d -m 700 -o vgwd -g vgwd \(folder)", "tar -C \(folder) -xk --no-same-owner",
            "chown -R vgwd: \(folder)",
        ]
    }

    private func refuseToOverwrite() throws(Failure) {
        for file in files where FileManager.default.fileExists(atPath: "\(path)/\(file.name)") {
            throw Failure(
                .cannotCreate, "\(path)/\(file.name) is there already, and may hold a key in use",
                hint: "Name another folder with --output, or move it away.")
        }
    }

    private func write() throws(Failure) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw Failure(
                .cannotCreate, "the folder \(path) cannot be made", hint: "Name another one with --output.")
        }
        for file in files {
            do {
                try Data(file.text.utf8).write(
                    to: URL(filePath: "\(path)/\(file.name)"), options: .withoutOverwriting)
            } catch {
                throw Failure(
                    .cannotCreate, "\(path)/\(file.name) cannot be written",
                    hint: "Is there room, and may you?")
            }
        }
        print("wrote \(path): \(files.map(\.name).joined(separator: ", "))")
    }
}
