internal import FoundationEssentials

/// Where the figures are from: they say little without it.
struct Machine: Codable {
    var kernel: String
    var processor: String
    var cores: Int
    var libsodium: String

    static func this() -> Machine {
        let info = read("/proc/cpuinfo")
        let model = info.split(separator: "\n").first { $0.hasPrefix("model name") }
        let name = model?.split(separator: ":").last.map { String($0).trimmed } ?? "unknown processor"
        return Machine(
            kernel: read("/proc/sys/kernel/osrelease").trimmed, processor: name,
            cores: ProcessInfo.processInfo.activeProcessorCount, libsodium: Sodium.version)
    }

    var line: String { "Linux \(kernel), \(processor), \(cores) cores, libsodium \(libsodium)" }

    private static func read(_ path: String) -> String {
        (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    }
}

extension String {
    fileprivate var trimmed: String {
        var text = Substring(self)
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}
