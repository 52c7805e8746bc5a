internal import FoundationEssentials

/// How many instructions each work may take a packet, as committed.
struct InstructionBudget {
    private var limits: [String: Double]

    init(readingFrom path: String) throws {
        let data = try Data(contentsOf: URL(filePath: path))
        limits = try JSONDecoder().decode([String: Double].self, from: data)
    }

    /// With room for what another processor's copy of memmove takes more.
    init(from counts: [InstructionWork: Double]) {
        limits = [:]
        for (work, count) in counts { limits[work.rawValue] = (count * 1.1).rounded(.up) }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        var data = try encoder.encode(limits)
        data.append(UInt8(ascii: "\n"))
        try data.write(to: URL(filePath: path))
    }

    subscript(work: InstructionWork) -> Double? { limits[work.rawValue] }
}
