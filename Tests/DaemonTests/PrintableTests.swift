import ControlAPI
import Logging
import Testing

@testable import Daemon
@testable import vgwctl

@Suite struct PrintableTests {
    /// An escape, DEL, a C1 control (the CSI of some terminals), a mark that turns the text, a line separator.
    private static let orders = [
        "\u{1b}[31m", "\u{0}", "\u{7f}", "\u{9b}31m", "\u{202e}", "\u{2066}", "\u{2028}", "\u{7}",
    ]

    @Test(arguments: orders)
    func `an order to a terminal is seen and shown as what it is`(order: String) throws {
        let text = "a\(order)b"
        #expect(!Printable.isPlain(text))
        let shown = Printable.escaping(text)
        #expect(Printable.isPlain(shown) && shown.hasPrefix("a\\u{"))
        #expect(Printable.isPlain(Printable.blanking(text)))
        #expect(Printable.isPlain(APIError(code: .failed, message: text).message))
    }

    @Test func `plain text of any script is left alone`() {
        for text in ["zone-a", "größe", "網關", "a b", ""] {
            #expect(
                Printable.isPlain(text) && Printable.escaping(text) == text
                    && Printable.blanking(text) == text)
        }
        #expect(Printable.escaping("a\nb\r", keepsLines: true) == "a\nb\\u{d}")
        #expect(Printable.escaping("a\r\nb", keepsLines: true) == "a\\u{d}\nb")
    }

    @Test(arguments: orders)
    func `no line of the log has an order in it`(order: String) {
        let line = LogLine(level: .info, message: "m\(order)", metadata: ["key": "v\(order)"])
        let text = String(decoding: line.bytes(.journal, unixNanoseconds: 0).dropLast(), as: UTF8.self)
        #expect(Printable.isPlain(text))
    }

    @Test(arguments: orders)
    func `vgwctl shows its own colours and lines, and no order of others`(order: String) {
        let palette = Palette(isOn: true)
        let own = palette.red("down") + "\n" + palette.bold("x")
        #expect(StandardOutput.shown(own) == own)
        let shown = StandardOutput.shown(palette.green("zone\(order)a"))
        #expect(order == "\u{1b}[31m" || shown == "\u{1b}[32mzone\(Printable.escaping(order))a\u{1b}[0m")
        #expect(StandardOutput.shown("\u{1b}]0;title\u{7}") == "\\u{1b}]0;title\\u{7}")
    }

    @Test func `a control character in a name or a path of the file is an error`() {
        for (gateway, key) in [
            (#"name = "a\u001bb""#, "gateway.name"),
            (#"dns = ["192.0.2.1\u0007"]"#, "gateway.dns[#1]"),
            (#"interface = "vgw\u009b0""#, "gateway.interface"),
        ] {
            let text = ConfigurationExamples.text(
                gateway: "private-key-file = \"/etc/vgwd/private.key\"\n\(gateway)")
            let error = ConfigurationExamples.errors(in: text).first
            #expect(
                error?.key == key && error?.problem == "has a control character in it",
                "\(String(describing: error))")
        }
    }

    @Test func `a hook's script may have several lines, and its program's path none`() {
        func problems(_ run: String) -> [String] {
            ConfigurationExamples.errors(
                in: ConfigurationExamples.text() + "\n[[hook]]\non = [\"started\"]\nrun = \(run)\n"
            ).map(\.problem)
        }
        #expect(problems(#"["/bin/sh", "-c", "one\n\ttwo"]"#) == [])
        #expect(problems(#"["/bin/sh", "-c", "one\u001btwo"]"#) == ["has a control character in it"])
        #expect(problems(#"["/bin/sh\n", "-c"]"#) == ["names no program"])
    }

    @Test(arguments: [#"state-directory = "/var/lib/x\u0000y""#, #"interface = """vgw0\U00000000""""#])
    func `the escape of a zero byte does not cut a text off`(line: String) {
        let text = ConfigurationExamples.text(
            gateway: "private-key-file = \"/etc/vgwd/private.key\"\n\(line)")
        let errors = ConfigurationExamples.errors(in: text)
        #expect(errors.map(\.problem) == ["not TOML: a zero byte in a text"] && errors.first?.line == 3)
        #expect(
            ConfigurationExamples.errors(in: text.replacing("\\", with: "\\\\")).first?.problem
                != errors.first?.problem)
    }

    @Test func `what is percent-encoded is decoded whole or not at all`() {
        for (text, decoded) in [
            ("/v1/tunnels/zone-a", "/v1/tunnels/zone-a"), ("a%2Fb%3d", "a/b="), ("%c3%a4", "ä"), ("", ""),
        ] {
            #expect(APIPath.percentDecoded(text) == decoded)
        }
        for wrong in ["%", "%4", "%zz", "%+1", "%ff"] { #expect(APIPath.percentDecoded(wrong) == nil) }
    }
}
