package import GatewayCore
internal import WireGuard

/// One block of the cross-platform control interface (wireguard.com/xplatform), read and checked whole.
package enum WgRequest: Sendable {
    case get
    case set(WgSet)
    /// Something in the block is wrong. `errno` is positive; how it goes out depends on what was asked.
    case refused(isSet: Bool, errno: Int32)

    /// EINVAL of Linux, here because this file makes no system call.
    package static let invalid: Int32 = 22
    /// E2BIG.
    package static let tooBig: Int32 = 7
    /// EOPNOTSUPP.
    package static let notSupported: Int32 = 95
}

/// Answers as bytes. `errno` is negative after a failed `set` and positive after anything else: `wg` reads
/// only digits there when it asked for `get`.
package enum WgReply {
    /// Holds keys: whoever has it wipes it.
    package static func get(_ report: WgDeviceReport) -> [UInt8] {
        var reply: [UInt8] = []
        // For the longest lines that there are, so that it never grows: that would leave keys behind.
        reply.reserveCapacity(report.peers.reduce(512) { $0 + 640 + 64 * $1.allowedIPs.count })
        func line(_ text: String) {
            reply += text.utf8
            reply.append(UInt8(ascii: "\n"))
        }
        if let key = report.privateKey {
            reply += "private_key=".utf8
            key.exportHex(to: &reply)
            line("")
        }
        if report.listenPort != 0 { line("listen_port=\(report.listenPort)") }
        if report.firewallMark != 0 { line("fwmark=\(report.firewallMark)") }
        for peer in report.peers {
            line("public_key=\(peer.publicKey.hex)")
            reply += "preshared_key=".utf8
            peer.presharedKey.exportHex(to: &reply)
            line("")
            line("protocol_version=1")
            if let endpoint = peer.endpoint { line("endpoint=\(endpoint)") }
            line("last_handshake_time_sec=\(peer.lastHandshake / 1_000_000_000)")
            line("last_handshake_time_nsec=\(peer.lastHandshake % 1_000_000_000)")
            line("tx_bytes=\(peer.transmittedBytes)")
            line("rx_bytes=\(peer.receivedBytes)")
            line("persistent_keepalive_interval=\(peer.persistentKeepalive)")
            for prefix in peer.allowedIPs { line("allowed_ip=\(prefix)") }
        }
        line("errno=0")
        line("")
        return reply
    }

    /// After a `set`; 0 is success.
    package static func set(errno: Int32) -> [UInt8] { Array("errno=\(-Int64(errno.magnitude))\n\n".utf8) }

    package static func failed(isSet: Bool, errno: Int32) -> [UInt8] {
        isSet ? set(errno: errno) : Array("errno=\(errno.magnitude)\n\n".utf8)
    }
}
