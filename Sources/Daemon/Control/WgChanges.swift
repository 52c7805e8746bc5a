internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// What `wg` has made different from the configuration file. The file says what this gateway is: what `wg` makes of it holds
/// until the next start, and is shown until then.
struct WgChanges {
    /// A secret of this run, for fingerprints of pre-shared keys.
    private let salt: SecretBytes
    /// What the file says of what `wg` can change; nil where there is no file.
    private let file: WgView?
    private var differences: [String] = []

    init(_ settings: DaemonSettings) {
        var random = SystemEntropy()
        salt = .random(PublicKey.count, from: &random)
        file = settings.managesLink ? WgView(settings.spec, salt: salt) : nil
    }

    /// What a change of the spec is, in words, one thing each, and whether all is as in the file after it. Nil where nothing
    /// has changed, or there is no file.
    mutating func note(
        from before: GatewaySpec, to after: GatewaySpec
    ) -> (changes: [String], isAsInFile: Bool)? {
        guard let file else { return nil }
        let view = WgView(after, salt: salt)
        let changes = view.differences(from: WgView(before, salt: salt))
        guard !changes.isEmpty else { return nil }
        differences = view.differences(from: file)
        return (changes, differences.isEmpty)
    }

    /// Nil while it is as the file says.
    var notice: String? {
        differences.isEmpty
            ? nil
            : "differs from the file by wg: \(differences.joined(separator: "; ")) (a restart goes back to the file)"
    }
}
