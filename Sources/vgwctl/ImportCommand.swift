internal import ArgumentParser
internal import ControlAPI
internal import FoundationEssentials

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Make vgwd's configuration from one of wg-quick.",
        discussion: """
            Each [Peer] becomes a connection with one tunnel; its AllowedIPs are the routes. A short comment above or \
            below [Peer] becomes the connection's name. It says of every line what became of it. Where vgwd cannot do \
            what a line says, it says so and writes nothing. The file itself is not touched.

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

    private static let sizeLimit = 16 << 20

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
            imported = try WgQuickFile(text, name: name, tables: .system())
        } catch {
            throw Failure(error.status, "\(file): \(error.message)", hint: error.hint)
        }
        let folder = output ?? name
        try OutputFolder.write([OutputFolder(path: folder, files: imported.draft.files)])
        print("\nWhat became of \(base):")
        print(Self.lines(imported.fates).joined(separator: "\n"))
        print("\nWhat to do next; it stops where something fails, and overwrites nothing:")
        print(Self.nextSteps(folder: folder, interface: name).joined(separator: "\n"))
    }

    /// A fate each, with its line's number before it.
    static func lines(_ fates: [WgQuickFile.Fate]) -> [String] {
        let labels = fates.map { $0.line.map { "line \($0)" } ?? "" }
        let width = labels.map(\.count).max() ?? 0
        return zip(labels, fates).flatMap { label, fate in
            let first = "  " + label + String(repeating: " ", count: width - label.count + 2)
            return Prose.wrapped(fate.text, first: first, width: Prose.width)
        }
    }

    /// What is left to do by hand: the files must be vgwd's, and where its unit looks for them.
    static func nextSteps(folder: String, interface: String) -> [String] {
        let target = ConfigurationDraft.folder
        let isInPlace = folder == target || folder == target + "/"
        let unpacking = OutputFolder.unpacking(to: target).map { "sudo \($0)" }
        let placing =
            isInPlace
            ? ["sudo chown -R vgwd: \(target)"]
            : [unpacking[0], "sudo tar -C \(folder) -c . | \(unpacking[1])", unpacking[2]]
        let steps =
            placing + [
                "sudo vgwd check",
                // Both cannot have the interface and the port.
                "sudo wg-quick down \(interface)", "sudo systemctl enable --now vgwd",
            ]
        return steps.dropLast().map { "  \($0) &&" } + steps.suffix(1).map { "  \($0)" }
    }
}
