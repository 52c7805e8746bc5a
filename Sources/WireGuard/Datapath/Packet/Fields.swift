// Where the fields of a packet's headers are, in bytes from the start of each header. No other file has an offset.

/// IPv4 (RFC 791, section 3.1).
enum IPv4Field {
    static let versionAndLength = 0
    static let tos = 1
    static let totalLength = 2
    static let identification = 4
    /// ``FragmentBits``.
    static let fragment = 6
    static let ttl = 8
    static let transport = 9
    static let checksum = 10
    static let source = 12
    static let destination = 16
    /// Length of a header without options.
    static let headerLength = 20
}

/// Flags and offset of an IPv4 fragment, in one number.
enum FragmentBits {
    static let reserved = 0x8000
    static let doNotFragment = 0x4000
    static let moreFragments = 0x2000
    /// In units of eight bytes.
    static let offset = 0x1fff
}

/// IPv6 (RFC 8200, section 3).
enum IPv6Field {
    static let versionAndClass = 0
    static let payloadLength = 4
    static let nextHeader = 6
    static let hopLimit = 7
    static let source = 8
    static let destination = 24
    static let headerLength = 40
}

/// IPv6 extension headers (RFC 8200, sections 4.3 to 4.6).
enum ExtensionField {
    static let nextHeader = 0
    /// In units of eight bytes, the first not counted.
    static let length = 1
    /// Offset and flags of a fragment header.
    static let fragment = 2
    static let segmentsLeft = 3
    /// Length of the shortest, and of a fragment header.
    static let unit = 8
}

/// TCP (RFC 9293, section 3.1).
enum TCPField {
    static let sourcePort = 0
    static let destinationPort = 2
    static let sequence = 4
    static let acknowledgement = 8
    static let dataOffset = 12
    static let flags = 13
    static let window = 14
    static let checksum = 16
    /// Length of a header without options.
    static let headerLength = 20
}

enum TCPFlag {
    static let fin: UInt8 = 0x01
    static let syn: UInt8 = 0x02
    static let rst: UInt8 = 0x04
    static let psh: UInt8 = 0x08
    static let ack: UInt8 = 0x10
    static let cwr: UInt8 = 0x80
}

/// UDP (RFC 768).
enum UDPField {
    static let length = 4
    static let checksum = 6
    static let headerLength = 8
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443).
enum ICMPField {
    static let type = 0
    static let code = 1
    static let checksum = 2
    static let identifier = 4
    /// The MTU of "packet too big", 32 bits.
    static let mtu6 = 4
    static let sequence = 6
    /// The MTU of "fragmentation needed", 16 bits (RFC 1191, section 4).
    static let mtu4 = 6
    static let headerLength = 8
}

enum ICMPType {
    static let echoReply4: UInt8 = 0
    static let unreachable4: UInt8 = 3
    static let echoRequest4: UInt8 = 8
    static let unreachable6: UInt8 = 1
    static let packetTooBig6: UInt8 = 2
    static let echoRequest6: UInt8 = 128
    static let echoReply6: UInt8 = 129

    /// What no ICMP error may be about (RFC 1122, section 3.2.2; RFC 4443, section 2.1).
    static func isError(_ type: UInt8, _ family: IPAddress.Family) -> Bool {
        switch family {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        case .v4: type == 3 || type == 4 || type == 5 || type == 11 || type == 12
        case .v6: type < 128
        }
    }
}

/// Numbers of transports and of IPv6 extension headers.
enum IPProtocol {
    static let hopByHop: UInt8 = 0
    static let icmp4: UInt8 = 1
    static let tcp: UInt8 = 6
    static let udp: UInt8 = 17
    static let dccp: UInt8 = 33
    static let routing: UInt8 = 43
    static let fragment: UInt8 = 44
    static let icmp6: UInt8 = 58
    /// No next header: nothing that we know is there.
    static let none: UInt8 = 59
    static let destinationOptions: UInt8 = 60
    static let udpLite: UInt8 = 136

    static func icmp(_ family: IPAddress.Family) -> UInt8 { family == .v4 ? icmp4 : icmp6 }
}
