import Glibc
import TestSupport
import Testing
import WireGuard

@Suite struct AddressTests {
    /// RFC 4291, section 2.2, and RFC 5952, sections 4 and 5: what is read, and how it is written.
    @Test(
        "an address is read in any form of RFC 4291 and written in that of RFC 5952",
        arguments: [
            ("0.0.0.0", "0.0.0.0"),
            ("255.255.255.255", "255.255.255.255"),
            ("192.0.2.1", "192.0.2.1"),
            ("::", "::"),
            ("::1", "::1"),
            ("1::", "1::"),
            ("0:0:0:0:0:0:0:0", "::"),
            ("2001:DB8:0:0:8:800:200C:417A", "2001:db8::8:800:200c:417a"),
            ("FF01:0:0:0:0:0:0:101", "ff01::101"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:0db8:0000:0000:0001:0000:0000:0001", "2001:db8::1:0:0:1"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
            ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
            ("fe80::", "fe80::"),
            ("::ffff:192.0.2.128", "::ffff:192.0.2.128"),
            ("::ffff:c000:280", "::ffff:192.0.2.128"),
            ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
            ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ])
    func text(given: String, written: String) throws {
        let address = try #require(IPAddress(given))
        #expect(address.description == written)
        #expect(IPAddress(written) == address)
        #expect(IPAddress(bytes: address.bytes) == address)
        #expect(address.bytes.count == address.family.width / 8)
    }

    @Test(
        "what is no address is none",
        arguments: [
            "", " ", ".", ":", ":::", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "1.2.3.", ".1.2.3",
            "1..2.3",
            "1.2.3.4 ", " 1.2.3.4", "1.2.3.4\n", "+1.2.3.4", "-1.2.3.4", "1.2.3.4a", "0x1.2.3.4",
            "1.2.3.1000",
            "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1::2::3",
            "1:::2", ":1::2",
            "1::2:", ":1", "1:", "12345::", "g::", "::g", "::1.2.3", "::1.2.3.4.5", "::1.2.3.4:1",
            "1.2.3.4::",
            "1:2:3:4:5:6:7:1.2.3.4", "::%1", "fe80::1%eth0", "::1/64", "1.2.3.4/8", "١.٢.٣.٤", "::ｆ",
        ])
    func rejected(text: String) {
        #expect(IPAddress(text) == nil)
        #expect(IPPrefix(text + "/8") == nil)
        #expect(Endpoint("\(text):1") == nil)
    }

    @Test("random text is an address exactly when inet_pton says so")
    func oracle() {
        var random = SplitMix(seed: 4291)
        let seeds = ["1.2.3.4", "2001:db8::1", "::ffff:192.0.2.1", "1:2:3:4:5:6:7:8", "fe80::", "::"]
        let alphabet = Array("0123456789abcdefF:.: .".utf8)
        var accepted = 0
        for _ in 0..<20_000 {
            var text = Array(seeds[Int(random.next(UInt8.self)) % seeds.count].utf8)
            for _ in 0..<(1 + Int(random.next(UInt8.self)) % 3) {
                let place = Int(random.next(UInt16.self)) % (text.count + 1)
                let symbol = alphabet[Int(random.next(UInt8.self)) % alphabet.count]
                switch random.next(UInt8.self) % 3 {
                case 0: text.insert(symbol, at: place)
                case 1 where place < text.count: text.remove(at: place)
                case 2 where place < text.count: text[place] = symbol
                default: break
                }
            }
            let string = String(decoding: text, as: UTF8.self)
            let expected = Self.systemBytes(string)
            // Not #expect for each: 20,000 of them take seconds.
            if IPAddress(string)?.bytes != expected { Issue.record("\(string)") }
            accepted += expected == nil ? 0 : 1
        }
        #expect(accepted > 1000)
    }

    private static func systemBytes(_ text: String) -> [UInt8]? {
        let isV6 = text.contains(":")
        var bytes = [UInt8](repeating: 0, count: isV6 ? 16 : 4)
        return unsafe inet_pton(isV6 ? AF_INET6 : AF_INET, text, &bytes) == 1 ? bytes : nil
    }

    @Test("only 4 or 16 bytes are an address")
    func bytes() {
        for count in 0..<32 {
            let address = IPAddress(bytes: [UInt8](repeating: 1, count: count))
            let expected: IPAddress.Family? = count == 4 ? .v4 : count == 16 ? .v6 : nil
            #expect(address?.family == expected)
        }
        #expect(IPAddress(family: .v4, bits: .max) == IPAddress("255.255.255.255"))
        #expect(IPAddress(v4: 1) != IPAddress(v6: 1))
    }

    @Test("an address knows whether it is unspecified, multicast or link-local")
    func kinds() throws {
        func matching(_ test: (IPAddress) -> Bool) -> [String] {
            [
                "0.0.0.0", "::", "1.2.3.4", "::1", "223.255.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1",
                "ff02::1",
                "fe00::1", "169.254.0.1", "169.255.0.1", "fe80::1", "febf::1", "fec0::1",
            ].filter { IPAddress($0).map(test) == true }
        }
        #expect(matching(\.isUnspecified) == ["0.0.0.0", "::"])
        #expect(matching(\.isMulticast) == ["224.0.0.1", "239.1.1.1", "ff02::1"])
        #expect(matching(\.isLinkLocal) == ["169.254.0.1", "fe80::1", "febf::1"])
        #expect(IPAddress.any(.v6) == IPAddress("::"))
    }

    // MARK: Prefixes

    @Test(
        "a prefix is read with its host bits, which its network has not",
        arguments: [
            ("10.1.2.3/8", "10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0"),
            ("255.255.255.255/0", "255.255.255.255/0", "0.0.0.0/0"),
            ("169.254.100.2/30", "169.254.100.2/30", "169.254.100.0/30"),
            ("192.0.2.1", "192.0.2.1/32", "192.0.2.1/32"),
            ("2001:db8::1", "2001:db8::1/128", "2001:db8::1/128"),
            ("2001:db8:20:ffff::/48", "2001:db8:20:ffff::/48", "2001:db8:20::/48"),
            ("ffff::/0", "ffff::/0", "::/0"),
            ("fe80::1/10", "fe80::1/10", "fe80::/10"),
        ])
    func prefixText(given: String, written: String, network: String) throws {
        let prefix = try #require(IPPrefix(given))
        #expect(prefix.description == written)
        #expect(prefix.network.description == network)
        #expect(IPPrefix(written) == prefix)
        #expect(prefix.contains(prefix.address))
        #expect(prefix.network.contains(prefix) && prefix.contains(prefix.network))
    }

    @Test(
        "what is no prefix is none",
        arguments: [
            "", "/", "/8", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/+8", "1.2.3.4/8/8", "1.2.3.4/ 8",
            "1.2.3.4/8 ",
            "1.2.3.4/a", "1.2.3.4/0x8", "1.2.3.4/9999", "1.2.3.4/255.0.0.0", "::/129", "::/", "::1/128/",
            "::/٣",
        ])
    func rejectedPrefix(text: String) { #expect(IPPrefix(text) == nil) }

    @Test("a prefix contains its first and last address and neither neighbour, at every length")
    func containment() throws {
        for address in ["10.170.85.3", "2001:db8:aaaa:5555::3"].compactMap({ IPAddress($0) }) {
            for length in 0...address.family.width {
                let prefix = try #require(IPPrefix(address: address, length: length))
                func at(_ bits: UInt128) -> IPAddress { IPAddress(family: address.family, bits: bits) }
                #expect(prefix.contains(at(prefix.first)) && prefix.contains(at(prefix.last)))
                #expect(prefix.first <= address.bits && address.bits <= prefix.last)
                if length > 0 {
                    #expect(!prefix.contains(at(prefix.first &- 1)) && !prefix.contains(at(prefix.last &+ 1)))
                    let wider = try #require(IPPrefix(address: address, length: length - 1))
                    #expect(wider.contains(prefix) && !prefix.contains(wider))
                    #expect(wider.overlaps(prefix) && prefix.overlaps(wider))
                }
                #expect(IPPrefix(address: address, length: length)?.network == prefix.network)
            }
            #expect(IPPrefix(address: address, length: -1) == nil)
            #expect(IPPrefix(address: address, length: address.family.width + 1) == nil)
        }
    }

    @Test("prefixes of different families have nothing in common")
    func families() throws {
        let four = try #require(IPPrefix("0.0.0.0/0"))
        let six = try #require(IPPrefix("::/0"))
        #expect(!four.overlaps(six) && !six.contains(IPAddress(v4: 1)) && !four.contains(IPAddress(v6: 1)))
    }

    // MARK: Endpoints

    @Test(
        "an endpoint is read as it is written",
        arguments: [
            "192.0.2.1:51820", "192.0.2.1:0", "0.0.0.0:65535", "[::]:1", "[2001:db8::1]:51820",
            "[fe80::1%3]:51820",
            "[fe80::1%4294967295]:1", "[::ffff:192.0.2.1]:80",
        ])
    func endpointText(text: String) throws {
        let endpoint = try #require(Endpoint(text))
        #expect(endpoint.description == text)
    }

    @Test(
        "what is no endpoint is none",
        arguments: [
            "", ":", ":1", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+1", "1.2.3.4: 1",
            "1.2.3.4:1 ",
            "1.2.3.4:a", "[1.2.3.4]:1", "::1:1", "2001:db8::1:51820", "[::1]", "[::1]1", "[::1:1", "::1]:1",
            "[]:1", "[::1]]:1",
            "[[::1]]:1", "[::1%]:1", "[::1%eth0]:1", "[::1%-1]:1", "[::1%+1]:1", "[::1%1%2]:1",
            "[::1%4294967296]:1", "host:1",
            "1.2.3.4:99999999999999999999",
        ])
    func rejectedEndpoint(text: String) { #expect(Endpoint(text) == nil) }
}
