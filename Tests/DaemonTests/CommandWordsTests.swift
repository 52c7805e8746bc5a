import Daemon
import Testing

@Suite struct CommandWordsTests {
    @Test(
        "a command that is not vgwd's is no interface's name",
        arguments: [
            ("status", "'vgwctl status' does that"), ("show", "'vgwctl status' does that"),
            ("start", "'systemctl start vgwd' does that"), ("stop", "'systemctl stop vgwd' does that"),
            ("Reload", "'systemctl restart vgwd'"), ("routes", "'vgwctl route list' does that"),
            ("up", "'wg-quick up'"), ("genkey", "'vgwctl genkey' does that"),
        ])
    func commands(_ word: String, _ says: String) {
        #expect(CommandWords.advice(on: word)?.contains(says) == true)
    }

    @Test(arguments: ["vgw0", "wg0", "status0", "tunnel-a", "upstream"])
    func interfaces(_ name: String) { #expect(CommandWords.advice(on: name) == nil) }
}
