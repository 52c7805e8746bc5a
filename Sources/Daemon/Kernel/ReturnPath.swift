internal import Glibc
package import LinuxIO
package import Logging
package import WireGuard

/// The way in for outer packets, and for answers of name servers, where a carried prefix covers their source, such as
/// 0.0.0.0/0.
///
/// A kernel or a firewall that checks sources looks for the way back to them. Without the firewall mark that way leads
/// into the tunnel, or nowhere while the tunnel is down, and what the far end sends is dropped before a socket sees it.
/// So the mark is put on what arrives for our sockets (`InboundMark`), and each IPv4 interface that it arrives by is
/// told to look at marks (src_valid_mark). Such an interface stays like that: nothing else has the mark.
///
/// Owned by the control thread.
package struct ReturnPath: ~Copyable {
    private struct Marked: Equatable {
        let mark: UInt32
        let ports: Set<UInt16>
        let serverPorts: Set<UInt16>
    }

    private let table: String
    private let tun: UInt32
    private let log: Logger
    private let netlink: Netlink
    private var inboundMark: InboundMark?
    /// What `inboundMark` has been told.
    private var marked = Marked(mark: 0, ports: [], serverPorts: [])
    private var interfaces: Set<UInt32> = []
    /// Why arriving packets have no mark.
    package private(set) var failure: SystemError?

    package init(interface: String, tun: UInt32, log: Logger) throws(SystemError) {
        table = "vgwd-\(interface)"
        self.tun = tun
        self.log = log
        netlink = try Netlink()
    }

    /// After every change of the mark or of a port; `serverPorts` are those of name servers. What has failed is tried
    /// again.
    package mutating func mark(_ mark: UInt32, ports: Set<UInt16>, serverPorts: Set<UInt16>) {
        let wanted =
            mark == 0
            ? Marked(mark: 0, ports: [], serverPorts: [])
            : Marked(mark: mark, ports: ports, serverPorts: serverPorts)
        guard wanted != marked else { return }
        do throws(SystemError) {
            if inboundMark == nil { inboundMark = try InboundMark(table: table, except: tun) }
            do throws(SystemError) {
                try inboundMark?.set(mark, on: wanted.ports, answeringFrom: wanted.serverPorts)
            } catch {
                guard error.code == ENOENT else { throw error }
                try inboundMark?.set(mark, on: wanted.ports)
                log.warning(
                    "answers of name servers arrive without the mark: rp_filter or a firewall may drop them",
                    metadata: ["error": "the kernel has no nft_socket"])
            }
            marked = wanted
            failure = nil
        } catch {
            if failure != error {
                log.warning(
                    "packets of far ends arrive without the mark: rp_filter or a firewall may drop them",
                    metadata: ["error": "\(error)"])
            }
            failure = error
        }
    }

    /// Outer packets, or answers of name servers, may arrive by this interface. A call too many does no harm.
    package mutating func expect(on interface: UInt32) {
        guard interface != tun, interface != 0, interfaces.insert(interface).inserted else { return }
        do throws(SystemError) {
            guard let filter = try netlink.reversePathFilter(of: interface), !filter.honoursMark else {
                return
            }
            try netlink.honourMark(on: interface)
        } catch {
            log.warning(
                "rp_filter of an interface does not look at marks: it may drop what far ends or name servers send",
                metadata: ["link": "\(interface)", "error": "\(error)"])
        }
    }

    /// An administrator may have set them back, and an index may be another interface's.
    package mutating func forgetInterfaces() { interfaces = [] }

    /// Why packets of a far end that arrive by `interface` are dropped: nil where nothing is known to drop them.
    package func problem(from address: IPAddress, by interface: UInt32) -> ReversePathProblem? {
        guard address.family == .v4, let filter = (try? netlink.reversePathFilter(of: interface)) ?? nil,
            let name = ((try? netlink.link(index: interface)) ?? nil)?.name
        else { return nil }
        let isMarked = filter.honoursMark && failure == nil
        return ReversePathProblem(
            from: address, by: name, filter.mode,
            wayBack: .init(to: address, mark: isMarked ? marked.mark : 0, interface: interface, netlink))
    }
}

/// That rp_filter drops what a far end sends, in words. Pure.
package struct ReversePathProblem: Hashable, Sendable, CustomStringConvertible {
    package enum WayBack: Hashable, Sendable {
        case sameInterface
        case other(name: String)
        case nowhere

        /// As the kernel tells it now.
        package init(to address: IPAddress, mark: UInt32, interface: UInt32, _ netlink: borrowing Netlink) {
            guard let way = try? netlink.way(to: address, mark: mark) else {
                self = .nowhere
                return
            }
            guard way.interface != interface else {
                self = .sameInterface
                return
            }
            let link = (try? netlink.link(index: way.interface)) ?? nil
            self = .other(name: link?.name ?? "link \(way.interface)")
        }
    }

    package let description: String
    package let remedy: String

    /// Nil where nothing is dropped.
    package init?(
        from address: IPAddress, by interface: String, _ mode: ReversePathFilter.Mode, wayBack: WayBack
    ) {
        switch (mode, wayBack) {
        case (.off, _), (_, .sameInterface), (.loose, .other): return nil
        case (.strict, .other(let name)):
            description =
                "packets from \(address) that come by \(interface) are dropped: the way back leads by \(name) "
                + "(rp_filter = 1)"
            remedy = "sysctl -w net.ipv4.conf.\(interface).rp_filter=2"
        case (.strict, .nowhere), (.loose, .nowhere):
            description =
                "packets from \(address) that come by \(interface) are dropped: there is no way back "
                + "(rp_filter = \(mode.rawValue))"
            remedy = "sysctl -w net.ipv4.conf.\(interface).rp_filter=0 net.ipv4.conf.all.rp_filter=0"
        }
    }
}
