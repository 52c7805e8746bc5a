internal import ArgumentParser
internal import FoundationEssentials

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Make vgwd's configuration from one of wg-quick.",
        discussion: """
            Each [Peer] becomes a connection with one tunnel; its AllowedIPs are the routes. A short comment above or \
            below [Peer] becomes the connection's name. What vgwd has no counterpart for is listed. The file itself is \
            not touched.

              sudo vgwctl import /etc/wireguard/wg0.conf --output /etc/vgwd

            It says what to do next.
            """)

    @Argument(help: ArgumentHelp("The wg-quick file.", valueName: "wg-quick-file"))
    var file: String

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "The folder to write to. (default: the file's name without .conf)", valueName: "folder"))
    var output: String?

    private static let sizeLimit = 1 << 20

    func run() throws {
        guard let data = try? Data(contentsOf: URL(filePath: file)) else {
            throw Failure(
                .io, "\(file) cannot be read", hint: "Is it there, and may you read it? Try with sudo.")
        }
        guard data.count <= Self.sizeLimit, let text = String(validating: data, as: UTF8.self) else {
            throw Failure(.data, "\(file) is no wg-quick file", hint: "It is too long, or not text.")
        }
        let base = file.split(separator: "/").last.map { String($0) } ?? file
        let name = base.hasSuffix(".conf") ? String(base.dropLast(5)) : base
        let imported: WgQuickFile
        do {
            imported = try WgQuickFile(text, name: name)
        } catch {
            throw Failure(error.status, "\(file): \(error.message)", hint: error.hint)
        }
        let folder = output ?? name
        try OutputFolder.write([OutputFolder(path: folder, files: imported.draft.files)])
        if !imported.notes.isEmpty {
            print("\nNot carried over, or changed:")
            for note in imported.notes { print("  \(note)") }
        }
        print("\nWhat to do next:")
        print(Self.nextSteps(folder: folder, interface: name).joined(separator: "\n"))
    }

    /// What is left to do by hand: the files must be vgwd's, and where its unit looks for them.
    static func nextSteps(folder: String, interface: String) -> [String] {
        let isInPlace = folder == "/etc/vgwd" || folder == "/etc/vgwd/"
        let moving = [
            "install -d -m 700 -o vgwd -g vgwd /etc/vgwd",
            "install -m 600 -o vgwd -g vgwd \(folder)/* /etc/vgwd/",
        ]
        let steps =
            (isInPlace ? ["chown -R vgwd: /etc/vgwd"] : moving) + [
                "vgwd check",
                "wg-quick down \(interface)      # both cannot have the interface and the port",
                "systemctl enable --now vgwd",
            ]
        return steps.map { "  sudo \($0)" }
    }
}
