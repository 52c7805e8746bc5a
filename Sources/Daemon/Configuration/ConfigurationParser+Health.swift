internal import GatewayCore
internal import WireGuard

extension ConfigurationParser {
    /// Each is asked through every tunnel.
    private static let targetLimit = 8

    /// `health = "off"`, or
    /// `health = { interval = "200ms", down-after = 3, up-after = 5, target = ["10.20.0.10"] }`.
    mutating func readHealth(_ connection: ConfigurationReader.Section) -> HealthSettings {
        var health = HealthSettings()
        guard let node = connection["health"] else { return health }
        switch node.value {
        case .string("off"):
            health.isOn = false
            return health
        case .string, .boolean:
            reader.report(
                node, "is no setting of health",
                "write \"off\", or { interval = \"200ms\", down-after = 3 }, or leave the key out")
            return health
        default: break
        }
        guard
            let section = reader.section(
                node,
                known: [
                    "interval", "down-after", "up-after", "hold-down", "max-loss", "max-rtt", "target",
                    "source",
                ])
        else { return health }
        if let interval = duration(section, "interval", in: .milliseconds(10) ... .seconds(60), "10ms to 60s")
        {
            health.interval = interval
        }
        if let count = reader.integer(section, "down-after", in: 1...1000, meaning: "a number of lost probes")
        {
            health.downAfter = count
        }
        if let count = reader.integer(section, "up-after", in: 1...1000, meaning: "a number of answers") {
            health.upAfter = count
        }
        if let holdDown = duration(section, "hold-down", in: .zero ... .seconds(60), "0s to 60s") {
            health.holdDown = holdDown
        }
        health.maxLoss = readShare(section, "max-loss")
        health.maxRoundTrip = duration(
            section, "max-rtt", in: .milliseconds(1) ... .seconds(60), "1ms to 60s")
        health.targets = readTargets(section)
        health.source = readTargetSource(section)
        return health
    }

    private mutating func readTargetSource(_ section: ConfigurationReader.Section) -> IPAddress? {
        guard let text = reader.string(section, "source", example: "\"192.168.10.1\""),
            let node = section["source"]
        else { return nil }
        guard let address = IPAddress(text), !address.isMulticast, !address.isUnspecified else {
            reader.report(
                node, "\(reader.quoted(text)) is no address of a host",
                "write the address that targets are to answer to, \"192.168.10.1\"")
            return nil
        }
        if !section.has("target") {
            reader.report(
                node, "is for targets, and there is none",
                "write target = [\"10.20.0.10\"], or leave source out")
        }
        return address
    }

    private mutating func readShare(_ section: ConfigurationReader.Section, _ name: String) -> Double? {
        guard let text = reader.string(section, name, example: "\"5%\""), let node = section[name] else {
            return nil
        }
        if let share = Shares.parse(text) { return share }
        reader.report(node, "\(reader.quoted(text)) is no share", "write a percentage: \"5%\"")
        return nil
    }

    /// `10.20.0.10` is asked by echo, `10.20.0.10:443` by a TCP connection.
    private mutating func readTargets(_ section: ConfigurationReader.Section) -> [HealthTarget] {
        var targets: [HealthTarget] = []
        for (node, text) in reader.strings(section, "target", example: "\"10.20.0.10\"") ?? [] {
            let target: HealthTarget
            if let address = IPAddress(text), !address.isMulticast, !address.isUnspecified {
                target = .echo(address)
            } else if let endpoint = Endpoint(text), endpoint.scope == 0, endpoint.port != 0 {
                target = .tcp(endpoint.address, port: endpoint.port)
            } else {
                reader.report(
                    node, "\(reader.quoted(text)) is no address",
                    "write an address behind the far end, \"10.20.0.10\", or one with a TCP port, "
                        + "\"10.20.0.10:443\"")
                continue
            }
            guard !targets.contains(target) else {
                reader.report(node, "is there already", "leave one of the two out")
                continue
            }
            targets.append(target)
        }
        if targets.count > Self.targetLimit, let node = section["target"] {
            reader.report(
                node, "are \(targets.count) targets",
                "write at most \(Self.targetLimit): each is asked through every tunnel")
        }
        return targets
    }
}
