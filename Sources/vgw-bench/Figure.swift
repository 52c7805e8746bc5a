/// What is measured. The raw value names it in JSON.
enum Figure: String, CaseIterable, Sendable {
    case tcp1 = "tcp-1"
    case tcp1Reverse = "tcp-1-reverse"
    case tcp4 = "tcp-4"
    case tcp4Reverse = "tcp-4-reverse"
    case tcp8 = "tcp-8"
    case tcp8Reverse = "tcp-8-reverse"
    case cpu = "cpu-per-gigabit"
    case udp64 = "udp-64"
    case udp64Loss = "udp-64-loss"
    case udp512 = "udp-512"
    case udp512Loss = "udp-512-loss"
    case udp1372 = "udp-1372"
    case udp1372Loss = "udp-1372-loss"
    case halfLoad = "udp-64-half-load-rate"
    case delay50 = "udp-64-half-load-delay-p50"
    case delay99 = "udp-64-half-load-delay-p99"
    case delayLoss = "udp-64-half-load-loss"
    case ping50 = "ping-under-load-p50"
    case ping99 = "ping-under-load-p99"
    case ping999 = "ping-under-load-p99.9"
    case pingLoss = "ping-under-load-loss"
    case handshakes = "handshakes"
    case wakeUps = "idle-wake-ups"
    case residentPeak = "resident-peak"
    case resident = "resident-end"

    enum Better: String, Sendable {
        case more
        case less
    }

    var unit: String {
        switch self {
        case .tcp1, .tcp1Reverse, .tcp4, .tcp4Reverse, .tcp8, .tcp8Reverse: "Gbit/s"
        case .cpu: "s/Gbit"
        case .udp64, .udp512, .udp1372, .halfLoad: "1000/s"
        case .udp64Loss, .udp512Loss, .udp1372Loss, .delayLoss, .pingLoss: "%"
        case .delay50, .delay99, .ping50, .ping99, .ping999: "ms"
        case .handshakes, .wakeUps: "1/s"
        case .residentPeak, .resident: "MB"
        }
    }

    var better: Better {
        switch unit {
        case "Gbit/s", "1000/s": .more
        case "1/s" where self == .handshakes: .more
        default: .less
        }
    }

    var title: String {
        switch self {
        case .tcp1: "TCP, 1 stream"
        case .tcp1Reverse: "TCP, 1 stream, the other way"
        case .tcp4: "TCP, 4 streams"
        case .tcp4Reverse: "TCP, 4 streams, the other way"
        case .tcp8: "TCP, 8 streams"
        case .tcp8Reverse: "TCP, 8 streams, the other way"
        case .cpu: "CPU of both daemons, TCP, 1 stream"
        case .udp64: "UDP, 64 bytes, packets received of a blast"
        case .udp64Loss: "UDP, 64 bytes, lost of the blast"
        case .udp512: "UDP, 512 bytes, packets received of a blast"
        case .udp512Loss: "UDP, 512 bytes, lost of the blast"
        case .udp1372: "UDP, 1372 bytes, packets received of a blast"
        case .udp1372Loss: "UDP, 1372 bytes, lost of the blast"
        case .halfLoad: "UDP, 64 bytes, paced at half of the rate received: packets received"
        case .delay50: "UDP, 64 bytes, paced likewise: one-way delay, p50"
        case .delay99: "UDP, 64 bytes, paced likewise: one-way delay, p99"
        case .delayLoss: "UDP, 64 bytes, paced likewise: lost"
        case .ping50: "ping while one TCP stream runs, p50"
        case .ping99: "ping while one TCP stream runs, p99"
        case .ping999: "ping while one TCP stream runs, p99.9"
        case .pingLoss: "ping while one TCP stream runs, lost"
        case .handshakes: "handshakes answered"
        case .wakeUps: "wake-ups of an idle daemon with a tunnel up"
        case .residentPeak: "resident memory of the larger daemon, peak"
        case .resident: "resident memory of the larger daemon, after all traffic"
        }
    }
}
