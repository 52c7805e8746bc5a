internal import Glibc
internal import LinuxIO
internal import Logging

/// The numbers of the last run, in the state folder, so that a gateway keeps those that it chose:
/// ```
/// mark 51821 table 51821
/// ```
struct RoutingNumbersStore {
    private let path: String
    private let directory: String
    private let log: Logger

    init(directory: String, interface: String, log: Logger) {
        self.directory = directory
        path = StateFile.numbers.path(in: directory, of: interface)
        self.log = log
    }

    /// Nil where there are none. A file that cannot be read is as good as none, and said so.
    func load() -> RoutingNumbers? {
        do throws(SystemError) {
            let found = try AtomicFile.read(path, limit: 4096).bytes
            let text = String(decoding: found, as: UTF8.self)
            let words = text.split { $0 == " " || $0 == "\n" }
            guard words.count == 2 || words.count == 4, words[0] == "mark", let mark = UInt32(words[1]),
                words.count == 2 || words[2] == "table" && UInt32(words[3]) != nil
            else {
                StateFile.keepBeside(found, of: path, reason: "it holds no mark and table", log)
                return nil
            }
            return RoutingNumbers(mark: mark, table: words.count == 4 ? UInt32(words[3]) : nil)
        } catch {
            if error.code != ENOENT {
                log.warning("state file cannot be read", metadata: ["error": "\(error)"])
            }
            return nil
        }
    }

    func keep(_ numbers: RoutingNumbers) {
        let table = numbers.table.map { " table \($0)" } ?? ""
        do throws(SystemError) {
            try AtomicFile.makeDirectory(directory, mode: 0o700)
            try AtomicFile.write(Array("mark \(numbers.mark)\(table)\n".utf8), to: path, mode: 0o600)
        } catch {
            log.warning(
                "the firewall mark and the table may be others after the next start",
                metadata: ["error": "\(error)"])
        }
    }
}
