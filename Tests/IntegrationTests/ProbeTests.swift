internal import ControlAPI
internal import Testing

extension Integration {
    /// Probes, of which somebody else would like to say how they went.
    @Suite(.enabled(if: !Lab.reference, "about probes of vgwd")) struct Probes {
        /// What a forger makes of the newest probe to each address.
        private enum Forgery: CaseIterable {
            // By the peer of the other connection.
            case stolenHealth, stolenTarget, guessed
            // By the target, which sees what it is asked itself, and the gateway before it.
            case targetAsGateway, targetAsPathMTU

            private var pathMTUPurpose: UInt16 { 1 }

            typealias Probes = (
                link: ProbeForger.Packet, internet: ProbeForger.Packet, target: ProbeForger.Packet
            )

            var isForeign: Bool { [.stolenHealth, .stolenTarget, .guessed].contains(self) }

            func packet(_ probes: Probes) -> ProbeForger.Packet {
                let (there, here) = (probes.internet.destination, probes.internet.source)
                return switch self {
                case .stolenHealth: probes.link.reply(from: there, to: here)
                case .stolenTarget: probes.target.reply(from: there, to: here)
                case .guessed: probes.link.reply(from: there, to: here, tokenOf: probes.internet)
                case .targetAsGateway: probes.link.reply(tokenOf: probes.target)
                case .targetAsPathMTU: probes.link.reply(tokenOf: probes.target, purpose: pathMTUPurpose)
                }
            }
        }

        /// The kernel at vpc answers nothing, so that each tunnel lives by forged replies or not at all.
        @Test("replies by others than who was asked, or to other probes, change nothing and are counted")
        func forged() async throws {
            let options = Bundle.Options(
                farEnd: .wireguardGo,
                separateLines: [
                    .link: ["health = { target = [\"10.20.0.1\"] }"], .internet: ["metric = 200"],
                ])
            try await Bundle.run(options) { bundle in
                let (onprem, link, internet) = (bundle.onprem, bundle.vpc[0], bundle.vpc[1])
                let forger = try await ProbeForger(at: .vpc, in: bundle.lab)
                var newest: [String: ProbeForger.Packet] = [:]
                for forgery in Forgery.allCases {
                    let before = try await onprem.drops("probe-reply-unexpected")
                    var sent: UInt64 = 0
                    for _ in 0..<60 {
                        for probe in forger.receive() {
                            newest[probe.destination] = probe
                            guard let ofTarget = newest["10.20.0.1"],
                                let ofLink = newest[Wire.link.inside(.vpc)],
                                let ofInternet = newest[Wire.internet.inside(.vpc)]
                            else { continue }
                            let packet = forgery.packet((ofLink, ofInternet, ofTarget))
                            try forger.send(packet, by: (forgery.isForeign ? internet : link).interface)
                            sent += 1
                        }
                        try await Task.sleep(for: .milliseconds(20))
                    }
                    try await eventually("all \(sent) of \(forgery) are counted") {
                        try await onprem.drops("probe-reply-unexpected") >= before + max(sent, 1)
                    }
                }
                for wire in Wire.allCases {
                    let tunnel = try await onprem.tunnel(over: wire)
                    try #require(
                        tunnel.state == .down && tunnel.reasonCode == "probe-timeout", "\(wire): \(tunnel)")
                }
                try await Self.isBelieved(bundle, forger)
            }
        }

        /// Honest replies that are sent in the same way bring the tunnel back.
        private static func isBelieved(_ bundle: Bundle, _ forger: ProbeForger) async throws {
            _ = forger.receive()
            try await eventually("the link is up by replies that are sent by hand") {
                for probe in forger.receive() where probe.destination == Wire.link.inside(.vpc) {
                    try forger.send(probe.reply(), by: bundle.vpc[0].interface)
                }
                try await Task.sleep(for: .milliseconds(20))
                return try await bundle.onprem.tunnel(over: .link).state == .up
            }
        }
    }
}
