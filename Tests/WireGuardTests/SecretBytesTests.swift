import Glibc
import Testing
import WireGuard

@Suite struct SecretBytesTests {
    @Test("a secret of any size holds what it was given, and nothing of one before it")
    func contents() {
        for count in [0, 1, 16, 31, 32, 33, 64, 96, 127, 128, 129, 4096, 8192] {
            for value in UInt8(1)...3 {
                let fresh = unsafe SecretBytes(count: count) { _ in }
                #expect(fresh.isZero, "\(count)")
                let bytes = [UInt8](repeating: value, count: count)
                #expect(SecretBytes(bytes).revealed == bytes, "\(count)")
            }
        }
    }

    @Test("memory that could not be locked against swapping is known of")
    func unlocked() async {
        #expect(SecretPool.isLocked)
        await #expect(processExitsWith: .success) {
            var limit = rlimit(rlim_cur: 0, rlim_max: 0)
            // RLIMIT_MEMLOCK, which Glibc hides from Swift.
            unsafe setrlimit(__rlimit_resource_t(8), &limit)
            // Root may lock whatever it likes.
            if geteuid() == 0 { setuid(65534) }
            let secrets = (0..<1000).map { SecretBytes([UInt8(truncatingIfNeeded: $0)]) }
            guard !SecretPool.isLocked, secrets.count == 1000 else { exit(1) }
        }
    }

    @Test("a thousand secrets at once are a thousand places")
    func distinct() {
        let contents = (0..<1000).map { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
        let secrets = contents.map { SecretBytes($0) }
        #expect(secrets.map(\.revealed) == contents)
    }

    @Test("tasks on all cores make and drop secrets without seeing each other's")
    func concurrency() async {
        let wrong = await withTaskGroup(of: Int.self) { group in
            for task in UInt8(1)...8 {
                group.addTask {
                    (0..<2000).count { _ in
                        let secret = SecretBytes(repeatElement(task, count: 32))
                        return secret.revealed != [UInt8](repeating: task, count: 32)
                    }
                }
            }
            return await group.reduce(0, +)
        }
        #expect(wrong == 0)
    }

    @Test("equality is of all bytes and of the length")
    func equality() {
        let secret = SecretBytes(0..<32)
        #expect(secret.isEqual(to: SecretBytes(0..<32)))
        #expect(!secret.isEqual(to: SecretBytes(0..<31)))
        for bit in 0..<256 { #expect(!secret.isEqual(to: SecretBytes([UInt8](0..<32).flipping(bit: bit)))) }
        #expect(!secret.isZero && SecretBytes([]).isZero)
    }
}
