internal import Testing

/// The two ways between the sites: the internet, which every lab has, and a dedicated link beside it, which a
/// lab gets by `addLink()`.
///
///     onprem wan2 100.64.1.10 ── 100.64.1.1 link 100.64.2.1 ── 100.64.2.10 wan2 vpc
///            fd64:1::10                 (forwards)              fd64:2::10
enum Wire: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case link
    case internet

    var other: Wire { self == .link ? .internet : .link }
    var testDescription: String { rawValue }
    /// At either site.
    var device: String { self == .link ? "wan2" : "wan" }
    /// Priority of the tunnel over it: the link is what it is for, the internet stands behind it.
    var priority: Int { self == .link ? 10 : 20 }

    /// A site's outer address on it.
    func underlay(_ site: Site, _ family: Family = .v4) -> String {
        switch (self, family) {
        case (.internet, _): site.underlay(family)
        case (.link, .v4): "100.64.\(site.number).10"
        case (.link, .v6): "fd64:\(site.number)::10"
        }
    }

    func router(_ site: Site, _ family: Family) -> String {
        switch (self, family) {
        case (.internet, _): site.router(family)
        case (.link, .v4): "100.64.\(site.number).1"
        case (.link, .v6): "fd64:\(site.number)::1"
        }
    }

    /// What all of the wire's addresses at a site are in.
    func network(_ site: Site, _ family: Family) -> String {
        switch (self, family) {
        case (.internet, .v4): site == .onprem ? "192.0.2.0/24" : "198.51.100.0/24"
        case (.internet, .v6): "2001:db8:\(site.number)::/64"
        case (.link, .v4): "100.64.\(site.number).0/24"
        case (.link, .v6): "fd64:\(site.number)::/64"
        }
    }

    /// A site's end of the link inside the tunnel.
    func inside(_ site: Site) -> String {
        "169.254.\(self == .link ? 101 : 102).\(site == .onprem ? 2 : 1)"
    }
}

extension Site {
    fileprivate var number: Int { self == .onprem ? 1 : 2 }
}

extension Lab {
    /// Lays the second wire.
    func addLink() async throws {
        let link = try await addNamespace(Wire.link.rawValue)
        try await Shell.run(
            """
            sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
                net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
                net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            """, in: link)
        for site in Site.allCases { try await connectLink(at: site) }
    }

    /// Gives the site a device to the link; again after it was deleted.
    func connectLink(at site: Site) async throws {
        let (name, link) = (namespace(site), namespace(Wire.link))
        var script = """
            set -e
            ip link add wan2 netns \(name) type veth peer name \(site.rawValue) netns \(link)
            ip -n \(name) link set wan2 up
            ip -n \(link) link set \(site.rawValue) up

            """
        for family in Family.allCases {
            script += """
                ip -n \(name) addr add \(Wire.link.underlay(site, family))/\(family.linkPrefix) dev wan2
                ip -n \(link) addr add \(Wire.link.router(site, family))/\(family.linkPrefix) \
                    dev \(site.rawValue)
                ip -n \(name) \(family.option) route add \(Wire.link.network(site.other, family)) \
                    via \(Wire.link.router(site, family)) dev wan2

                """
        }
        try await Shell.run(script)
    }

    // MARK: Faults

    /// Cuts a wire silently: no link goes down, and nobody is told.
    /// - Parameter site: only what comes from there is lost; nil cuts both ways.
    /// - Returns: the last moment, in seconds since 1970, at which it was surely whole: a shell takes its time to start
    ///   under load, and that is no part of an outage.
    @discardableResult
    func cut(_ wire: Wire, from site: Site? = nil) async throws -> Double {
        let condition = site.map { "iifname \"\($0.rawValue)\" " } ?? ""
        let moment = try await Shell.run(
            """
            echo $EPOCHREALTIME
            nft -f - <<'END'
            table inet cut
            delete table inet cut
            table inet cut {
                chain forward { type filter hook forward priority 0; \(condition)drop; }
            }
            END
            """, in: namespace(wire))
        guard let seconds = Double(moment) else { throw LabError("no moment: \(moment)") }
        return seconds
    }

    /// Joins what was cut.
    func mend(_ wire: Wire) async throws {
        try await Shell.run("nft 'table inet cut; delete table inet cut'", in: namespace(wire))
    }

    /// Makes a wire as fast as `tc` says, each way by itself: `200mbit`.
    func limit(_ wire: Wire, to rate: String) async throws {
        for site in Site.allCases {
            try await Shell.run(
                "tc qdisc replace dev \(site.rawValue) root tbf rate \(rate) burst 128kb latency 30ms",
                in: namespace(wire))
        }
    }
}
