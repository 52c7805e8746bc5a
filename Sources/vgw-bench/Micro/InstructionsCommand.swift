internal import ArgumentParser
internal import FoundationEssentials

/// Counts instructions under callgrind, which do not depend on the neighbours of a shared machine.
struct InstructionsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "instructions",
        abstract: "Counts the instructions a packet takes, against a committed budget.",
        discussion: """
            Runs each work twice under 'valgrind --tool=callgrind', with the null cipher, the second time with \
            more packets: the difference is what a packet costs our own code, to the instruction. With --budget \
            the exit status is 1 when a work takes more than the file allows.

              vgw-bench instructions
              vgw-bench instructions --budget Tests/instructions.json
              vgw-bench instructions --write Tests/instructions.json     # after a change that is worth it
            """)

    @Option(help: ArgumentHelp("What each work may take, as JSON.", valueName: "file"))
    var budget: String?

    @Option(help: ArgumentHelp("Writes a budget of a tenth more than was counted.", valueName: "file"))
    var write: String?

    private static let batches = 40

    func run() async throws {
        let preload = BuildFolder().nullCipher
        guard FileManager.default.fileExists(atPath: preload) else {
            throw Failure("no \(preload): swift build -c release --product NullCipher")
        }
        for (program, package) in [("valgrind", "valgrind"), ("strip", "binutils")]
        where await Shell.find(program) == nil {
            throw Failure("needs \(program): apt-get install \(package)")
        }
        let limits = try budget.map { try InstructionBudget(readingFrom: $0) }
        let folder = try await Shell.run("mktemp -d")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        // Valgrind 3.19 gives up on the debug information that Swift writes.
        let program = folder + "/vgw-bench"
        try await Shell.run("strip -o \(Shell.quote(program)) \(Shell.quote(Lab.ownPath))")
        let callgrind =
            "LD_PRELOAD=\(Shell.quote(preload)) valgrind --tool=callgrind --callgrind-out-file=/dev/null"
            + " \(Shell.quote(program))"

        var counts: [InstructionWork: Double] = [:]
        var exceeded: [String] = []
        for work in InstructionWork.allCases {
            let few = try await count(work, Self.batches, callgrind)
            let many = try await count(work, 2 * Self.batches, callgrind)
            let each = Double(many - few) / Double(Self.batches * work.packetsInBatch)
            counts[work] = each
            var line = "\(Report.number(each)) instructions a packet: \(work.rawValue)"
            if let limits {
                guard let limit = limits[work] else { throw Failure("\(work.rawValue) is not in the budget") }
                line += " (budget \(Report.number(limit)))"
                if each > limit { exceeded.append(work.rawValue) }
            }
            print(line)
        }
        if let write { try InstructionBudget(from: counts).write(to: write) }
        if !exceeded.isEmpty {
            throw Failure("over the budget: \(exceeded.joined(separator: "; "))")
        }
    }

    private func count(_ work: InstructionWork, _ batches: Int, _ callgrind: String) async throws -> Int {
        let output = try await Shell.run(
            "\(callgrind) pass --work \(Shell.quote(work.rawValue)) --batches \(batches) 2>&1", limit: 300)
        // "==PID== Collected : 123456"
        let line = output.split(separator: "\n").first { $0.contains("Collected") }
        guard let number = line?.split(separator: " ").last.flatMap({ Int($0) }) else {
            throw Failure("callgrind gave no count: \(output.suffix(200))")
        }
        return number
    }
}

/// One work, for callgrind to look at.
struct PassCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pass", abstract: "Runs one work.", shouldDisplay: false)

    @Option var work: String
    @Option var batches: Int

    func run() throws {
        guard let known = InstructionWork(rawValue: work) else {
            throw ValidationError("there is no work '\(work)'")
        }
        try known.run(batches: batches)
    }
}
