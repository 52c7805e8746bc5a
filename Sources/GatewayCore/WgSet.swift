package import WireGuard

/// What `set=1` asks for. Nil: left as it is.
package struct WgSet: Sendable {
    package enum PrivateKeyChange: Sendable {
        case set(PrivateKey)
        case remove
    }

    package var privateKey: PrivateKeyChange?
    package var listenPort: UInt16?
    /// 0 takes the mark away.
    package var firewallMark: UInt32?
    package var replacePeers = false
    package var peers: [WgPeerChange] = []

    package init() {}
}

/// The part of a `set` from one `public_key` to the next.
package struct WgPeerChange: Sendable {
    package enum AllowedIP: Hashable, Sendable {
        case add(IPPrefix)
        /// Written `allowed_ip=-10.0.0.0/8`, as wireguard-tools of 2025 do.
        case remove(IPPrefix)
    }

    package var publicKey: PublicKey
    package var remove = false
    package var updateOnly = false
    package var presharedKey: PresharedKey?
    package var endpoint: Endpoint?
    package var persistentKeepalive: UInt16?
    package var replaceAllowedIPs = false
    package var allowedIPs: [AllowedIP] = []

    package init(publicKey: PublicKey) { self.publicKey = publicKey }
}

/// What `get=1` answers.
package struct WgDeviceReport: Sendable {
    package var privateKey: PrivateKey?
    package var listenPort: UInt16
    package var firewallMark: UInt32
    package var peers: [WgPeerReport]

    package init(privateKey: PrivateKey?, listenPort: UInt16, firewallMark: UInt32, peers: [WgPeerReport]) {
        self.privateKey = privateKey
        self.listenPort = listenPort
        self.firewallMark = firewallMark
        self.peers = peers
    }
}

package struct WgPeerReport: Sendable {
    package var publicKey: PublicKey
    package var presharedKey: PresharedKey
    package var endpoint: Endpoint?
    /// Nanoseconds of Unix time; 0 is never.
    package var lastHandshake: Int64
    package var transmittedBytes: UInt64
    package var receivedBytes: UInt64
    package var persistentKeepalive: UInt16
    package var allowedIPs: [IPPrefix]

    package init(
        publicKey: PublicKey, presharedKey: PresharedKey, endpoint: Endpoint?, lastHandshake: Int64,
        transmittedBytes: UInt64, receivedBytes: UInt64, persistentKeepalive: UInt16, allowedIPs: [IPPrefix]
    ) {
        self.publicKey = publicKey
        self.presharedKey = presharedKey
        self.endpoint = endpoint
        self.lastHandshake = lastHandshake
        self.transmittedBytes = transmittedBytes
        self.receivedBytes = receivedBytes
        self.persistentKeepalive = persistentKeepalive
        self.allowedIPs = allowedIPs
    }
}
