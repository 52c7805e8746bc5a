internal import FoundationEssentials

/// Where this program lies with vgwd and the null cipher beside it.
struct BuildFolder {
    let path: String

    init() { path = String(Lab.ownPath[..<(Lab.ownPath.lastIndex(of: "/") ?? Lab.ownPath.startIndex)]) }

    var vgwd: String { path + "/vgwd" }
    var vgwctl: String { path + "/vgwctl" }
    var nullCipher: String { path + "/libNullCipher.so" }

    /// `swift run vgw-bench` builds this program alone. In the build folder of a package, what is measured is
    /// brought up to date too: a judge who measures last week's daemon is worse than none.
    func update(_ products: [String] = ["vgwd", "NullCipher"]) async throws {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        // PACKAGE/.build/TRIPLE/CONFIGURATION
        guard parts.count > 3, parts[parts.count - 3] == ".build", let configuration = parts.last else {
            return
        }
        let package = parts.dropLast(3).joined(separator: "/")
        guard FileManager.default.fileExists(atPath: package + "/Package.swift"),
            let swift = await Shell.find("swift")
        else { return }
        for product in products {
            Progress.say("building \(product)")
            try await Shell.run(
                "\(Shell.quote(swift)) build -c \(configuration) --product \(product)"
                    + " --package-path \(Shell.quote(package))",
                limit: 1800)
        }
    }
}
