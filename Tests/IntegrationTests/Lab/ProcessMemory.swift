internal import FoundationEssentials
internal import Glibc

/// What a process has in its memory: all that it may write to, also where it is locked. Root's to look at.
struct ProcessMemory {
    let process: Int32

    /// A secret in the forms that programs write: its bytes, base64 and hexadecimal.
    static func forms(ofBase64 text: String) throws -> [[UInt8]] {
        guard let data = Data(base64Encoded: text) else { throw LabError("no base64") }
        let hex = data.map { byte in
            String(repeating: "0", count: byte < 16 ? 1 : 0) + String(byte, radix: 16)
        }.joined()
        return [Array(data), Array(text.utf8), Array(hex.utf8)]
    }

    /// How often each of the patterns is there.
    func count(_ patterns: [[UInt8]]) throws -> [Int] {
        let memory = unsafe open("/proc/\(process)/mem", O_RDONLY)
        guard memory >= 0 else { throw LabError("the memory of \(process) cannot be read: errno \(errno)") }
        defer { close(memory) }
        let maps = try Self.read("/proc/\(process)/maps")
        var counts = [Int](repeating: 0, count: patterns.count)
        for line in maps.split(separator: "\n") where line.contains(" rw") {
            let ends = line.prefix { $0 != " " }.split(separator: "-").compactMap {
                UInt(String($0), radix: 16)
            }
            guard ends.count == 2 else { continue }
            var bytes = [UInt8](repeating: 0, count: Int(ends[1] - ends[0]))
            let count = unsafe pread(memory, &bytes, bytes.count, off_t(ends[0]))
            guard count > 0 else { continue }
            for (place, pattern) in patterns.enumerated() {
                counts[place] += unsafe bytes.withUnsafeBytes {
                    unsafe Self.count(pattern, in: $0.prefix(count))
                }
            }
        }
        return counts
    }

    /// Files of the kernel have no size that could be asked for.
    private static func read(_ path: String) throws -> String {
        let file = unsafe open(path, O_RDONLY)
        guard file >= 0 else { throw LabError("\(path) cannot be read: errno \(errno)") }
        defer { close(file) }
        var (all, chunk) = ([UInt8](), [UInt8](repeating: 0, count: 65536))
        while true {
            let count = unsafe Glibc.read(file, &chunk, chunk.count)
            guard count > 0 else { return String(decoding: all, as: UTF8.self) }
            all += chunk[..<count]
        }
    }

    private static func count(_ pattern: [UInt8], in bytes: Slice<UnsafeRawBufferPointer>) -> Int {
        let memory = unsafe UnsafeRawBufferPointer(rebasing: bytes)
        guard let base = memory.baseAddress, let first = pattern.first else { return 0 }
        var found = 0
        var offset = 0
        while offset + pattern.count <= memory.count {
            guard
                let next = unsafe memchr(
                    base + offset, Int32(first), memory.count - offset - pattern.count + 1)
            else { break }
            if unsafe memcmp(next, pattern, pattern.count) == 0 { found += 1 }
            offset = unsafe UnsafeRawPointer(next) - base + 1
        }
        return found
    }
}
