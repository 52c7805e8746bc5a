import TestSupport
import Testing

@testable import WireGuard

@Suite("Bytes from outside never stop the packet's way")
struct HostileInputTests {
    @Test("random datagrams of every length are dropped under a name", arguments: 0..<8)
    func randomDatagrams(seed: Int) {
        var entropy = SplitMix(seed: UInt64(seed))
        var pair = DatapathPair()
        var sent: UInt64 = 0
        for count in 1..<400 {
            var datagram = entropy.bytes(count)
            // Half of them get as far as their index.
            if count >= 16, count % 2 == 0 {
                datagram.replaceSubrange(0..<4, with: [4, 0, 0, 0])
                if count % 4 == 0, let index = pair.right.keypair?.localIndex {
                    datagram.replaceSubrange(4..<8, with: InnerPackets.bigEndian(index.byteSwapped))
                }
            }
            #expect(pair.receive(datagram).isEmpty)
            sent += 1
        }
        let queued = UInt64(pair.right.events(pair.right.inboundEvents).count)
        #expect(pair.right.drops.snapshot.values.reduce(0, +) + queued == sent)
        #expect(pair.right.path.lastReceived == nil)
    }

    @Test("authentic rubbish is dropped, or passed on as the packet that it says it is", arguments: 0..<8)
    func randomInnerPackets(seed: Int) throws {
        var entropy = SplitMix(seed: UInt64(seed + 100))
        var pair = DatapathPair()
        let keypair = try #require(pair.left.keypair)
        for _ in 0..<400 {
            var packet = InnerPackets.tcp(payload: InnerPackets.payload(Int(entropy.next(UInt8.self))))
            for _ in 0..<(1 + entropy.next(UInt8.self) % 6) {
                packet[Int(entropy.next(UInt16.self)) % min(packet.count, 60)] = entropy.next(UInt8.self)
            }
            packet = Array(packet.prefix(1 + Int(entropy.next(UInt16.self)) % packet.count))
            let message = try #require(keypair.seal(packet, mtu: 1420))
            // A length within the padding is not a lie that a receiver can see.
            let padded = packet + [UInt8](repeating: 0, count: 15)
            for written in pair.receive(message) {
                let isWhatWasSent = padded.starts(with: written.packet)
                #expect(isWhatWasSent)
            }
        }
    }

    @Test("random packets under random offload headers are segmented or dropped", arguments: 0..<8)
    func randomOffloads(seed: Int) {
        var entropy = SplitMix(seed: UInt64(seed + 200))
        var pair = DatapathPair()
        for _ in 0..<300 {
            let payload = InnerPackets.payload(Int(entropy.next(UInt16.self) % 9000))
            var packet =
                entropy.next(UInt8.self) & 1 == 0
                ? InnerPackets.tcp(payload: payload)
                : InnerPackets.udp(from: InnerPackets.left6, to: InnerPackets.right6, payload: payload)
            for _ in 0..<(entropy.next(UInt8.self) % 4) {
                packet[Int(entropy.next(UInt16.self)) % min(packet.count, 70)] = entropy.next(UInt8.self)
            }
            var offload = VirtioNetHeader.tcp(packet[0] >> 4 == 4 ? .v4 : .v6, segment: 1 + payload.count / 7)
            switch entropy.next(UInt8.self) % 6 {
            case 0: offload.segmentation = entropy.next()
            case 1: offload.segmentSize = entropy.next()
            case 2: offload.checksumStart = entropy.next(UInt16.self) % 120
            case 3: offload.checksumOffset = entropy.next(UInt16.self) % 64
            case 4: offload.flags = entropy.next()
            default: break
            }
            for sent in pair.send([(packet, offload)]).sent { #expect(sent.datagram.count <= 65_507) }
        }
    }
}
