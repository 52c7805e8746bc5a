internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireGuard

/// The floor of handshake timestamps on disk: nothing sent in an earlier run was later than it, so a clock
/// that was set back, or a snapshot that was restored, cannot lock this gateway out of its peers.
///
/// It is written ahead of what is sent, so that not each handshake is a write. When it cannot be written, that is said
/// once, and the gateway runs on.
///
/// So nothing is ever sent that is further ahead of the clock than the reserve: that far a run goes that follows on a
/// killed one. Where there is no floor, as at a first start or when the folder was lost, the run begins a reserve ahead of
/// the clock, and is past all that any earlier run has sent: else its peers would refuse it for as long. A stamp ahead
/// of the clock gives nothing away, and opens nothing: what an attacker could play back is older all the same. Its price
/// is that another program that takes over this key within the reserve has its first handshake refused; hence the
/// reserve is no longer than the time between two tries (WireGuard, section 6.1: REKEY_TIMEOUT).
struct TimestampStore {
    private static let reserve: Int64 = 5_000_000_000

    private let path: String
    private let directory: String
    private let log: Logger
    private var written: TAI64N?
    private var isFailing = false

    init(directory: String, interface: String, log: Logger) {
        self.directory = directory
        path = StateFile.timestamp.path(in: directory, of: interface)
        self.log = log
    }

    /// What the device begins with. A file that cannot be read is as good as none, and said so.
    mutating func load(unixNanoseconds: Int64) -> TAI64N {
        read() ?? TAI64N(unixNanoseconds: unixNanoseconds + Self.reserve)
    }

    private mutating func read() -> TAI64N? {
        do throws(SystemError) {
            let found = try AtomicFile.read(path, limit: 4096).bytes
            let text = String(decoding: found.prefix { $0 > 0x20 }, as: UTF8.self)
            guard let bytes = Hex.decode(text, count: TAI64N.count), let stamp = TAI64N(bytes: bytes) else {
                StateFile.keepBeside(found, of: path, reason: "it holds no timestamp", log)
                return nil
            }
            written = stamp
            return stamp
        } catch {
            if error.code != ENOENT {
                log.warning("state file cannot be read", metadata: ["error": "\(error)"])
            }
            return nil
        }
    }

    /// After handshakes were sent, before anything else is waited for: `last` is the greatest timestamp of
    /// them.
    mutating func keep(_ last: TAI64N?, unixNanoseconds: Int64) {
        guard let last, written.map({ $0 <= last }) ?? true else { return }
        // Ahead of the clock; or of the floor, where that is ahead of the clock already.
        write(max(TAI64N(unixNanoseconds: unixNanoseconds + Self.reserve), last.next()))
    }

    /// At an orderly end nothing need be held in reserve.
    mutating func end(_ last: TAI64N?) {
        if let last, last != written { write(last) }
    }

    private mutating func write(_ floor: TAI64N) {
        do throws(SystemError) {
            if isFailing || written == nil { try AtomicFile.makeDirectory(directory, mode: 0o700) }
            try AtomicFile.write(Array((Hex.encode(floor.bytes) + "\n").utf8), to: path, mode: 0o600)
            if isFailing { log.notice("state is kept again", metadata: ["path": "\(path)"]) }
            isFailing = false
        } catch {
            if !isFailing {
                log.error(
                    "state cannot be kept: after a restart with a clock that was set back, peers may refuse this gateway",
                    metadata: ["error": "\(error)"])
            }
            isFailing = true
        }
        // Also after a failure: the next try is a reserve of handshakes away.
        written = floor
    }
}
