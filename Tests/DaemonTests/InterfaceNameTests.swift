import LinuxIO
import TestSupport
import Testing

@testable import Daemon

@Suite struct InterfaceNameTests {
    private static func errors(_ name: String, conflict: Bool = false) -> [ConfigurationError] {
        let text = ConfigurationExamples.text(
            gateway: "private-key-file = \"/etc/vgwd/private.key\"\ninterface = \"\(name)\"")
        var surroundings = Surroundings()
        if conflict { surroundings.interfaceConflict = { ("\($0) is a bridge", "take another name") } }
        do throws(ConfigurationErrors) {
            _ = try GatewayConfiguration.parse(
                text, files: ConfigurationExamples.files, surroundings: surroundings)
            return []
        } catch {
            return error.errors
        }
    }

    @Test(arguments: [
        ("lo", "Linux has it for itself"), ("all", "Linux has it for itself"),
        ("default", "Linux has it for itself"),
        ("-x", "begins with '-'"), ("vgw%d", "has a '%'"), ("%%", "has a '%'"),
        (".", "cannot name an interface"),
        ("..", "cannot name an interface"), ("1234567890123456", "cannot name an interface"),
        ("a b", "cannot name an interface"), ("a/b", "cannot name an interface"),
        ("eth0:1", "cannot name an interface"),
    ])
    func
        `a name that Linux or its tools have another use for is refused, in the file and on the command line`(
            name: String, says: String
        )
    {
        let error = Self.errors(name).first
        #expect(error?.key == "gateway.interface" && error?.line == 3)
        #expect(error?.problem.contains(says) == true, "\(String(describing: error))")
        let refusal = #expect(throws: DaemonError.self) { try DaemonSettings(interface: name) }
        #expect(refusal?.description.contains(says) == true)
    }

    @Test(arguments: ["vgw0", "wg-1", "a.b_c", "123456789012345", "lo0"])
    func `any other name is taken`(name: String) throws {
        #expect(Self.errors(name) == [])
        #expect(try DaemonSettings(interface: name).interface == name)
    }

    @Test func `a link that has the name is an error of a check alone`() {
        #expect(Self.errors("br0", conflict: true).first?.problem == "br0 is a bridge")
        #expect(Self.errors("br0") == [])
    }

    @Test func `only a TUN device may be there before`() throws {
        try inNamespace {
            try shell(
                """
                ip link add br0 type bridge; ip link add ve0 type veth peer name ve1
                ip tuntap add dev tap0 mode tap; ip tuntap add dev tun0 mode tun
                ip link property add dev br0 altname other-bridge
                """)
            for (name, says) in [
                ("br0", "br0 is a bridge of this host"), ("tap0", "tap0 is a TAP device"),
                ("ve0", "ve0 is an interface of kind veth"), ("lo", "lo is a network device"),
                ("other-bridge", "other-bridge is another name of br0, a bridge"),
            ] {
                let conflict = InterfaceConflict.find(name)
                #expect(conflict?.problem.hasPrefix(says) == true, "\(String(describing: conflict))")
            }
            #expect(InterfaceConflict.find("tun0") == nil && InterfaceConflict.find("vgw0") == nil)
        }
    }
}
