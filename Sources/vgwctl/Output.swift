internal import Glibc
internal import NIOCore
internal import NIOPosix

/// Standard output for what goes on for long: each write is out before the next, and a reader that has gone
/// (`vgwctl events | head`) ends the program.
struct Output {
    private let files = NonBlockingFileIO(threadPool: .singleton)

    func write(_ bytes: [UInt8]) async throws {
        let handle = NIOFileHandle(_deprecatedTakingOwnershipOfDescriptor: STDOUT_FILENO)
        // It is not ours to close.
        defer { _ = try? handle.takeDescriptorOwnership() }
        do {
            try await files.write(fileHandle: handle, buffer: ByteBuffer(bytes: bytes))
        } catch let error as IOError {
            guard error.errnoCode == EPIPE else {
                throw Failure(.io, "standard output cannot be written (errno \(error.errnoCode))")
            }
            Glibc.exit(0)
        }
    }
}
