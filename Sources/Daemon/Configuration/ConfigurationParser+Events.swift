internal import ControlAPI
internal import GatewayCore
internal import LinuxIO

/// `[[hook]]`, and `[metrics]`: that is read and checked, so that what is wrong shows today, and refused.
extension ConfigurationParser {
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
            node, "an address to serve them at",
            instead: "leave [metrics] out; 'vgwctl status --json' has the counters")
    }

    /// None of a file that others may have written: a hook runs with the rights of vgwd.
    mutating func readHooks(_ document: ConfigurationReader.Section) -> [HookConfiguration] {
        let nodes = reader.elements(document, "hook")
        var known: Set<String> = []
        for node in nodes {
            let file = node.line?.file ?? path
            guard known.insert(file).inserted, let problem = files.tampering(with: file) else { continue }
            reader.report(node, "no hook is started: \(problem.problem)", problem.remedy)
        }
        return nodes.compactMap { readHook($0) }
    }

    /// Nil where something is wrong with it.
    private mutating func readHook(_ node: ConfigurationNode) -> HookConfiguration? {
        guard let section = reader.section(node, known: ["on", "run", "timeout"]) else { return nil }
        for name in ["on", "run"] where !section.has(name) {
            reader.report(
                section, name, "is missing",
                "write on = [\"connection-down\"] and run = [\"/path/of/program\"]")
        }
        let patterns = reader.strings(section, "on", example: "\"connection-down\"") ?? []
        for (node, text) in patterns { checkHookEvent(node, text) }
        if section.has("on"), patterns.isEmpty, let node = section["on"], case .list(let items) = node.value,
            items.isEmpty
        {
            reader.report(node, "names no event", "write on = [\"connection-down\"], or \"*\" for all")
        }
        let arguments =
            reader.strings(section, "run", example: "\"/path/of/program\"", mayHaveLines: true) ?? []
        if let (program, text) = arguments.first {
            if !Printable.isPlain(text) {
                reader.report(program, "names no program", "write its path, and scripts behind it")
            } else if !text.hasPrefix("/") {
                reader.report(
                    program, "is not absolute",
                    "write the program's path from the root, then its arguments")
            } else if let problem = files.tampering(with: text) {
                reader.report(program, problem.problem, problem.remedy)
            } else {
                warnOfProgram(text, at: program)
                if let (script, path) = arguments.dropFirst().first, Self.isScript(path, of: text) {
                    warnOfScript(path, at: script)
                }
            }
        } else if let run = section["run"], case .list(let items) = run.value, items.isEmpty {
            reader.report(run, "names no program", "write run = [\"/path/of/program\"]")
        }
        let timeout = duration(section, "timeout", in: .milliseconds(100) ... .seconds(3600), "100ms to 1h")
        guard !patterns.isEmpty, !arguments.isEmpty else { return nil }
        return HookConfiguration(
            on: patterns.map(\.1), run: arguments.map(\.1),
            timeout: timeout ?? HookConfiguration.defaultTimeout)
    }

    /// It may come later: until then the hook fails each time that it is to start.
    private mutating func warnOfProgram(_ path: String, at node: ConfigurationNode) {
        guard let problem = files.obstacle(to: .execute, at: path) else { return }
        reader.warn(node, "the hook cannot start: \(problem.problem)", problem.remedy)
    }

    private mutating func warnOfScript(_ path: String, at node: ConfigurationNode) {
        if let problem = files.tampering(with: path) {
            reader.warn(node, "the hook runs what others can change: \(problem.problem)", problem.remedy)
        } else if let problem = files.obstacle(to: .read, at: path) {
            reader.warn(node, "the hook cannot run: \(problem.problem)", problem.remedy)
        }
    }

    /// Programs that run the file which their first argument names.
    private static let interpreters = ["sh", "bash", "dash", "ash", "zsh", "perl", "python3", "python"]

    private static func isScript(_ argument: String, of program: String) -> Bool {
        argument.hasPrefix("/") && Printable.isPlain(argument)
            && interpreters.contains { program.hasSuffix("/\($0)") }
    }

    private mutating func checkHookEvent(_ node: ConfigurationNode, _ pattern: String) {
        let known = HookConfiguration.kinds.map(\.rawValue)
        guard !known.contains(where: { HookConfiguration.matches(pattern, $0) }) else { return }
        guard pattern != GatewayEvent.Kind.hookFailed.rawValue else {
            return reader.report(
                node, "the failure of a hook starts no hook", "see it in the log and in 'vgwctl events'")
        }
        let near = Names.nearest(to: pattern, in: known).map { "did you mean '\($0)'?" }
        reader.report(
            node, "\(reader.quoted(pattern)) is no event",
            near ?? "known: \(known.joined(separator: ", ")); \"tunnel-*\" and \"*\" stand for several")
    }
}
