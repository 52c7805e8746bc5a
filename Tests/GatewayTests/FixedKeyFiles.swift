import Gateway
import WireGuard

/// Keys by path, and no files.
struct FixedKeyFiles: KeyFiles {
    var texts: [String: String]

    init(_ texts: [String: String]) { self.texts = texts }

    func key(at path: String) throws(KeyFileProblem) -> SecretBytes? {
        guard let text = texts[path] else {
            throw KeyFileProblem(problem: "there is no \(path)", remedy: "add it to the dictionary")
        }
        return SecretBytes(base64: text.utf8)
    }
}
