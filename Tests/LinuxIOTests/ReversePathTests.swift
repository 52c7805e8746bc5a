import Glibc
import LinuxIO
import TestSupport
import Testing

/// What lets outer packets in where a carried prefix covers their source.
@Suite struct ReversePathTests {
    private static func table() throws -> String { try output("nft list table inet vgwd-test") }

    @Test func `what comes for a port of ours, and what answers a marked question, gets the mark`() throws {
        try inNamespace {
            var mark = try InboundMark(table: "vgwd-test", except: 1)
            try mark.set(0xca6c, on: [51820, 51821])
            let first = try Self.table()
            #expect(first.contains("type filter hook prerouting priority raw - 10; policy accept;"))
            for port in [51820, 51821] {
                #expect(
                    first.contains(
                        "udp dport \(port) iif != \"lo\" fib daddr type local meta mark set 0x0000ca6c"),
                    "\(first)")
            }
            try mark.set(0xca6c, on: [51820], answeringFrom: [53])
            let answers = try Self.table()
            #expect(answers.contains("dport 51820"))
            for transport in ["udp", "tcp"] {
                #expect(
                    answers.contains(
                        "\(transport) sport 53 iif != \"lo\" fib daddr type local socket mark 0x0000ca6c "
                            + "meta mark set 0x0000ca6c"), "\(answers)")
            }
            try mark.set(7, on: [51821])
            let second = try Self.table()
            #expect(!second.contains("51820") && !second.contains("sport") && second.contains("dport 51821"))
            #expect(second.contains("meta mark set 0x00000007"))
            try mark.set(0, on: [51821])
            #expect(try !Self.table().contains("dport"))
        }
    }

    @Test func `the table outlives somebody's flush of all rules, and goes with its owner`() throws {
        try inNamespace {
            do {
                var mark = try InboundMark(table: "vgwd-test", except: 1)
                try mark.set(7, on: [51820])
                try shell("nft flush ruleset")
                #expect(try Self.table().contains("dport 51820"))
                // Another gateway's of the same name does not take it over.
                var rival = try InboundMark(table: "vgwd-test", except: 1)
                let refusal = systemError { () throws(SystemError) in try rival.set(8, on: [51821]) }
                #expect(refusal?.code == EPERM)
                #expect(try Self.table().contains("meta mark set 0x00000007"))
            }
            #expect(eventually { (try? shell("nft list table inet vgwd-test 2>/dev/null")) == nil })
        }
    }

    @Test func `the greater rp_filter of an interface and of all counts`() throws {
        try inNamespace {
            try shell("ip link add v0 type veth peer name v1; ip link set v0 up")
            let netlink = try Netlink()
            let index = try #require(try netlink.link("v0")).index
            for (all, own, mode) in [
                (0, 0, ReversePathFilter.Mode.off), (0, 1, .strict), (1, 0, .strict), (1, 2, .loose),
                (2, 1, .loose),
            ] {
                try shell("sysctl -qw net.ipv4.conf.all.rp_filter=\(all) net.ipv4.conf.v0.rp_filter=\(own)")
                #expect(try netlink.reversePathFilter(of: index)?.mode == mode, "all \(all), own \(own)")
            }
        }
    }

    @Test func `an interface is told to look at marks without sysctl`() throws {
        try inNamespace {
            try shell("ip link add v0 type veth peer name v1; ip link set v0 up")
            let netlink = try Netlink()
            let index = try #require(try netlink.link("v0")).index
            #expect(try netlink.reversePathFilter(of: index)?.honoursMark == false)
            try netlink.honourMark(on: index)
            #expect(try netlink.reversePathFilter(of: index)?.honoursMark == true)
            #expect(try output("sysctl -n net.ipv4.conf.v0.src_valid_mark") == "1\n")
            #expect(try netlink.link("v0")?.isUp == true)
        }
    }
}

/// What a command in the calling thread's namespace prints.
private func output(_ command: String) throws -> String {
    try withFolder { folder in
        try shell("\(command) > \(folder)/output")
        let bytes = try AtomicFile.read("\(folder)/output", limit: 1 << 16).bytes
        return String(decoding: bytes, as: UTF8.self)
    }
}
