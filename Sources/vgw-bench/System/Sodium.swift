internal import CSodium

/// The libsodium that this program runs with, which is the one vgwd beside it runs with.
enum Sodium {
    static var version: String {
        guard let text = unsafe sodium_version_string() else { return "unknown" }
        return unsafe String(cString: text)
    }
}
