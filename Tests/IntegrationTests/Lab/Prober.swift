internal import FoundationEssentials
internal import Glibc

/// Echoes at a steady pace with the times at which they were sent: for how long did nothing pass?
struct Prober: Sendable {
    private let process: BackgroundProcess
    private let lab: Lab
    private let interval: Double

    /// - Parameters:
    ///   - milliseconds: from one echo to the next.
    ///   - destination: nil is the other end's inside address.
    ///   - source: nil is this end's inside address.
    static func start(
        in lab: Lab, from site: Site, every milliseconds: Int, to destination: String? = nil,
        source: String? = nil, arguments: String = "", name: String = "prober"
    ) async throws -> Prober {
        let interval = Double(milliseconds) / 1000
        let process = try await lab.start(
            ["ping", "-n", "-D", "-i", "\(interval)", "-I", source ?? site.inside(.v4)]
                + arguments.split(separator: " ").map(String.init)
                + [destination ?? site.other.inside(.v4)],
            name: name, in: lab.namespace(site))
        return Prober(process: process, lab: lab, interval: interval)
    }

    /// Echoes over a wire itself, where nothing is ever cut: what is missing of them this machine has held up, by
    /// having no time for anybody.
    static func startWitness(in lab: Lab) async throws -> Prober {
        try await start(
            in: lab, from: .onprem, every: 4, to: Wire.internet.underlay(.vpc),
            source: Wire.internet.underlay(.onprem), name: "witness")
    }

    func stop() async throws -> Answers {
        process.signal(SIGINT)
        try await process.waitForExit()
        return try Answers(lab.log(of: process))
    }

    struct Answer: Sendable {
        var sequence: Int
        /// Seconds since 1970.
        var sent: Double
    }

    struct Answers: Sendable {
        let all: [Answer]
        /// Echoes without a reply, up to the last that got one.
        let lost: Int
        let duplicates: Int
        let text: String

        /// Lines as `[1764072000.123456] 64 bytes from 10.20.0.1: icmp_seq=7 ttl=64 time=0.345 ms`.
        init(_ log: String) throws {
            var answers: [Int: Double] = [:]
            var again = 0
            for line in log.split(separator: "\n") where line.contains(" bytes from ") {
                guard line.first == "[", let close = line.firstIndex(of: "]"),
                    let arrived = Double(line[line.index(after: line.startIndex)..<close]),
                    let sequence = Self.number(after: "icmp_seq=", in: line),
                    let took = Self.number(after: "time=", in: line)
                else { continue }
                if answers.updateValue(arrived - took / 1000, forKey: Int(sequence)) != nil { again += 1 }
            }
            guard let last = answers.keys.max() else {
                throw LabError("no echo came back:\n\(log.prefix(600))")
            }
            all = answers.sorted { $0.key < $1.key }.map { Answer(sequence: $0.key, sent: $0.value) }
            lost = last - answers.count
            duplicates = again
            text = log
        }

        private static func number(after key: String, in line: Substring) -> Double? {
            guard let range = line.firstRange(of: key) else { return nil }
            return Double(line[range.upperBound...].prefix { $0.isNumber || $0 == "." })
        }

        /// From one echo that was answered to the next, longer than `limit` seconds.
        func gaps(over limit: Double) -> [ClosedRange<Double>] {
            zip(all, all.dropFirst()).filter { $1.sent - $0.sent > limit }.map { $0.sent...$1.sent }
        }

        /// Whether the machine stood still for somebody in this time, by a witness.
        func isDisturbed(in window: ClosedRange<Double>) -> Bool { longestGap(in: window) > 0.025 }

        /// How long the machine stood still for somebody in this time, by a witness, in seconds.
        func pause(in window: ClosedRange<Double>) -> Double {
            isDisturbed(in: window) ? longestGap(in: window) : 0
        }

        /// The longest time, in seconds, from one echo that was answered to the next, among those that began
        /// within `window`.
        func longestGap(in window: ClosedRange<Double>? = nil) -> Double {
            zip(all, all.dropFirst()).lazy
                .filter { window?.contains($0.0.sent) ?? true }
                .map { $1.sent - $0.sent }.max() ?? 0
        }
    }
}

/// Seconds since 1970, on the clock that `ping -D` shows.
func wallClock() -> Double { Date().timeIntervalSince1970 }

extension Double {
    /// For people: whole milliseconds.
    var inMilliseconds: String { "\(Int((self * 1000).rounded())) ms" }
}
