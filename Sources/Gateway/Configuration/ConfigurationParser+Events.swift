/// `[metrics]` and `[[hook]]`: read and checked, so that what is wrong shows today, and refused.
extension ConfigurationParser {
    private static let hookEvents = [
        "connection-up", "connection-down", "tunnel-up", "tunnel-down", "started", "stopping", "reloaded",
    ]

    mutating func readMetrics(_ node: ConfigurationNode) {
        guard let section = reader.section(node, known: ["listen"]) else { return }
        if let text = reader.string(section, "listen", example: "\"127.0.0.1:9586\""),
            let listen = section["listen"]
        {
            if case .address = try? EndpointName.parse(text) {
            } else {
                reader.report(
                    listen, "\(reader.quoted(text)) is no address with a port", "write \"127.0.0.1:9586\"")
            }
        }
        reader.refuse(
            node, "metrics", instead: "leave [metrics] out; 'vgwctl status --json' has the counters")
    }

    mutating func readHook(_ node: ConfigurationNode) {
        guard let section = reader.section(node, known: ["on", "run"]) else { return }
        for name in ["on", "run"] where !section.has(name) {
            reader.report(
                section, name, "is missing",
                "write on = [\"connection-down\"] and run = [\"/path/of/program\"]")
        }
        for (event, text) in reader.strings(section, "on", example: "\"connection-down\"") ?? []
        where !Self.hookEvents.contains(text) {
            let near = Names.nearest(to: text, in: Self.hookEvents).map { "did you mean '\($0)'?" }
            reader.report(
                event, "\(reader.quoted(text)) is no event",
                near ?? "known: \(Self.hookEvents.joined(separator: ", "))")
        }
        if let run = reader.strings(section, "run", example: "\"/path/of/program\"") {
            if let (program, text) = run.first {
                if !text.hasPrefix("/") {
                    reader.report(
                        program, "is not absolute",
                        "write the program's path from the root, then its arguments")
                }
            } else if let run = section["run"] {
                reader.report(run, "names no program", "write run = [\"/path/of/program\"]")
            }
        }
        reader.refuse(node, "hooks", instead: "leave [[hook]] out")
    }
}
