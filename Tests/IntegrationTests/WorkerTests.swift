internal import ControlAPI
internal import Testing

extension Integration {
    /// Several pairs of data threads, and one thread where there is one processor.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own threads")) struct Workers {
        @Test("with several workers everything passes, nothing reorders, and all of it is one tunnel")
        func several() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                tunnel.onprem.change { $0.workers = 2 }
                tunnel.vpc.change { $0.workers = 3 }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                try #require(try await tunnel.vpc.status()?.workers == 3)
                for family in Family.allCases {
                    for site in Site.allCases { try await tunnel.ping(from: site, family) }
                }
                try await tunnel.transfer(from: .onprem, megabytes: 50, .v4)
                try await tunnel.transfer(from: .vpc, megabytes: 50, .v6)
                try await tunnel.startServer()
                for reversed in [false, true] {
                    try await tunnel.measure(.tcp, reversed: reversed)
                    let measured = try await tunnel.measure(.udp, reversed: reversed)
                    try #require(measured.outOfOrder == 0, "\(measured.outOfOrder) datagrams overtook others")
                }
                try #require(try await tunnel.vpc.drops("wrong-worker") == 0)
                // Another port: every socket of the group moves.
                try await tunnel.vpc.wg("set \(tunnel.vpc.interface) listen-port 40404")
                try await tunnel.onprem.wg(
                    "set \(tunnel.onprem.interface) peer \(tunnel.onprem.settings.peerPublicKey) "
                        + "endpoint \(Site.vpc.underlay(.v4)):40404")
                try await tunnel.reach(from: .onprem)
                for site in Site.allCases { try await tunnel.ping(from: site, .v4) }
                // Back and forth: a port that was just left is there for who comes back to it.
                try await Shell.run(
                    "for port in {,,,,,}{51820,40404}; do wg set \(tunnel.vpc.interface) listen-port $port || exit; done",
                    in: tunnel.vpc.namespace)
                for site in Site.allCases { try await tunnel.ping(from: site, .v4) }
            }
        }

        @Test("on one processor one thread carries both directions", arguments: Family.allCases)
        func oneProcessor(_ underlay: Family) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours, underlay: underlay)
                tunnel.onprem.change { $0.launcher = ["taskset", "-c", "0"] }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                try #require(try await tunnel.onprem.status()?.isSingleThreaded == true)
                let threads = try await Shell.run("cat /proc/\(tunnel.onprem.process.pid)/task/*/comm")
                try #require(threads.contains("vgwd-data") && !threads.contains("vgwd-out"), "\(threads)")
                for family in Family.allCases {
                    for site in Site.allCases { try await tunnel.ping(from: site, family) }
                }
                for site in Site.allCases { try await tunnel.transfer(from: site, megabytes: 20) }
                try await tunnel.onprem.wg("set \(tunnel.onprem.interface) listen-port 40404")
                try await tunnel.reach(from: .onprem)
            }
        }
    }
}
