import Testing
import WireGuard

@Suite struct PrefixLadderTests {
    @Test("the prefixes around an address and around a prefix are found, longest first, of its family alone")
    func around() throws {
        let texts = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "10.2.0.0/16"]
        let ladder = PrefixLadder(texts.compactMap { IPPrefix($0) })
        func around(_ text: String) throws -> [String] {
            let prefix = try #require(IPPrefix(text))
            return
                (text.contains("/")
                ? ladder.prefixes(around: prefix) : ladder.prefixes(around: prefix.address))
                .map(\.description)
        }
        #expect(try around("10.1.2.3") == ["10.1.2.3/32", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"])
        #expect(try around("10.1.0.0/16") == ["10.0.0.0/8", "0.0.0.0/0"])
        #expect(try around("10.1.128.0/17") == ["10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"])
        #expect(try around("::1") == ["::/0"] && around("0.0.0.0/0") == [])
    }
}
