internal import FoundationEssentials

/// Where the built programs are: `VGWD_BIN_DIR`, otherwise the debug build of this package.
enum Programs {
    static let directory: String = {
        if let chosen = ProcessInfo.processInfo.environment["VGWD_BIN_DIR"] { return chosen }
        var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        parts.removeLast(4)  // Tests/IntegrationTests/Lab/Programs.swift
        return parts.joined(separator: "/") + "/.build/debug"
    }()

    static func path(_ program: String) -> String { "\(directory)/\(program)" }
}
