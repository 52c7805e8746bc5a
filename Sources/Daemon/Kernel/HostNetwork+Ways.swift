internal import ControlAPI
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// What the kernel would do with a packet: for `vgwctl route get`.
extension HostNetwork {
    func explain(
        _ question: RouteQuestion, _ gateway: borrowing Gateway
    ) throws(APIError) -> RouteExplanation {
        let packet = try Self.packet(question)
        let isHere = gateway.interface.isHere
        let spec = gateway.spec
        return gateway.explain(
            RouteTrace.Packet(to: packet.destination, from: packet.source, by: packet.incoming?.name),
            interface: tun.name, kernel: isHere ? way(of: packet) : nil,
            match: isHere ? routes.match(of: packet) : nil,
            way: { tunnel, endpoint in wayOfOuterPackets(of: tunnel, to: endpoint, spec) })
    }

    /// By the tunnel's own socket: what that is bound to counts more than the routes.
    private func wayOfOuterPackets(
        of tunnel: String, to endpoint: Endpoint, _ spec: GatewaySpec
    ) -> RouteTrace.Way {
        let binding = spec.tunnel(named: tunnel)?.binding ?? UnderlayBinding()
        var outer = NetlinkPacket(
            to: endpoint.address, from: binding.source, outOf: endpoint.scope, mark: spec.firewallMark)
        if let device = binding.device {
            guard let link = (try? Netlink().link(device)) ?? nil else {
                return .nowhere("there is no interface \(device), which the tunnel is bound to")
            }
            outer.outgoing = link.index
        }
        guard case .link(let name, let gateway, let source) = way(of: outer) else { return way(of: outer) }
        return .link(name: name, gateway: gateway, source: binding.source ?? source)
    }

    private static func packet(_ question: RouteQuestion) throws(APIError) -> NetlinkPacket {
        var packet = NetlinkPacket(to: try address(question.destination))
        if let source = question.source {
            packet.source = try address(source)
            guard packet.source?.family == packet.destination.family else {
                throw APIError(
                    code: .badRequest,
                    message: "\(source) and \(packet.destination) are of different families")
            }
        }
        if let name = question.incoming {
            guard let link = (try? Netlink().link(String(name.prefix(15)))) ?? nil else {
                throw APIError(code: .notFound, message: "there is no interface \(name.prefix(15))")
            }
            guard packet.source != nil else {
                throw APIError(
                    code: .badRequest, message: "a packet that comes by \(link.name) has a source",
                    hint: "add --from with the address of a host there")
            }
            packet.incoming = link
        }
        return packet
    }

    private static func address(_ text: String) throws(APIError) -> IPAddress {
        guard text.utf8.count <= 64, let address = IPAddress(text) else {
            throw APIError(
                code: .badRequest, message: "that is no address", hint: "write 10.20.0.10 or 2001:db8:20::10")
        }
        return address
    }

    private func way(of packet: NetlinkPacket) -> RouteTrace.Way {
        do throws(SystemError) {
            let way = try routes.way(of: packet)
            if way.interface == tunIndex { return .tun }
            let name = (try? Netlink().link(index: way.interface))??.name
            return .link(name: name ?? "link \(way.interface)", gateway: way.gateway, source: way.source)
        } catch {
            return .nowhere(SystemError.text(error.code))
        }
    }
}
