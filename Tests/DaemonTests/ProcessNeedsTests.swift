import FoundationEssentials
import LinuxIO
import Testing

@testable import Daemon

@Suite struct ProcessNeedsTests {
    @Test func `clients never get the descriptors that the daemon needs itself`() throws {
        var settings = try DaemonSettings(interface: "vgw0")
        for descriptors in settings.neededDescriptors...2000 {
            settings.limitClients(descriptors: descriptors)
            #expect(
                settings.ownDescriptors + settings.wgClientLimit + settings.controlClientLimit <= descriptors)
        }
        #expect(settings.wgClientLimit == 64 && settings.controlClientLimit == 512)
    }

    @Test func `more workers, underlays and hooks need more`() throws {
        let plain = try DaemonSettings(interface: "vgw0")
        var more = plain
        more.workers = 4
        #expect(more.neededDescriptors > plain.neededDescriptors)
        let bound = ConfigurationExamples.text(tunnel: "bind = { device = \"eth1\" }")
        let unbound = ConfigurationExamples.text()
        let needs = try [bound, unbound].map {
            DaemonSettings(try ConfigurationExamples.load($0)).neededDescriptors
        }
        #expect(needs[0] > needs[1])
    }

    @Test func `each limit that is too low is one error that says how many are needed`() throws {
        let settings = try DaemonSettings(interface: "vgw0")
        // This process has more of them open than a daemon at its start.
        for limit in 6...settings.neededDescriptors - 1 {
            let error = #expect(throws: DaemonError.self) {
                try settings.refuseTooFewDescriptors(limit: limit)
            }
            #expect(
                error?.description.hasPrefix("this process may have \(limit) open files, and needs ") == true)
        }
        try settings.refuseTooFewDescriptors(limit: 65_536)
        try settings.refuseTooFewThreads()
    }

    @Test func `what cannot be had is found out, and what can be leaves nothing`() throws {
        try ThreadRehearsal.run(threads: 8, heap: 1 << 20)
        let error = #expect(throws: SystemError.self) { try ThreadRehearsal.run(threads: 1, heap: 1 << 50) }
        #expect(error?.code == 12, "ENOMEM")
    }

    @Test
    func `the unit does not start again what has no permission, and its drop-in gives the one for low ports`()
        throws
    {
        func read(_ name: String) throws -> String {
            let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
                .deletingLastPathComponent()
            return String(
                decoding: try Data(contentsOf: root.appending(path: "systemd/\(name)")), as: UTF8.self)
        }
        let unit = try read("vgwd.service")
        #expect(
            unit.contains(
                "RestartPreventExitStatus=\(DaemonError.notPermitted) \(ConfigurationErrors.exitStatus)\n"))
        let dropIn = try read("low-port.conf")
        #expect(dropIn.contains("[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"))
        #expect(
            dropIn.contains("CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n") && dropIn.contains(LowPort.dropIn)
        )
    }
}
