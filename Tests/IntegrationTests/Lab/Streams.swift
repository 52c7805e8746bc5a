/// What people have open while a tunnel is cut: a transfer, and a shell that they type into. Both run from onprem
/// to vpc over TCP until they are told to end.
struct Streams: Sendable {
    private let lab: Lab
    private let processes: [BackgroundProcess]
    private static let transferPort = 7000
    private static let keyPort = 7001

    static func start(in lab: Lab) async throws -> Streams {
        let (here, there) = (Site.onprem.inside(.v4), Site.vpc.inside(.v4))
        let folder = lab.directory
        let servers = [
            "socat -u TCP4-LISTEN:\(transferPort),bind=\(there) - | sha256sum >\(folder)/transfer.received",
            "socat TCP4-LISTEN:\(keyPort),bind=\(there),nodelay EXEC:cat",
        ]
        var processes: [BackgroundProcess] = []
        for (number, script) in servers.enumerated() {
            processes.append(
                try await lab.start(
                    ["bash", "-c", script], name: "stream-server\(number)", in: lab.namespace(.vpc)))
        }
        try await eventually("the streams' servers listen") {
            try await Shell.run("ss -Hltn | grep -c ':700[01] '", in: lab.namespace(.vpc)) == "2"
        }
        // About 2 MB a second, each block another.
        let transfer = """
            while [ ! -e \(folder)/streams.end ]; do head -c 100000 /dev/urandom; sleep 0.05; done \
                | tee >(sha256sum >\(folder)/transfer.sent) \
                | socat -u - TCP4:\(there):\(transferPort),bind=\(here)
            """
        // A key each 50 ms, and the next one only when this one is shown.
        let keys = try lab.write(
            """
            count=0
            while [ ! -e \(folder)/streams.end ]; do
                printf k
                IFS= read -rN 1 -t 30 key && [ "$key" = k ] || exit 1
                count=$((count + 1))
                sleep 0.05
            done
            echo $count >\(folder)/keys.shown

            """, to: "keys.sh")
        let clients = [
            transfer,
            "socat TCP4:\(there):\(keyPort),bind=\(here),nodelay EXEC:'bash \(keys)'",
        ]
        for (number, script) in clients.enumerated() {
            processes.append(
                try await lab.start(
                    ["bash", "-c", script], name: "stream-client\(number)", in: lab.namespace(.onprem)))
        }
        return Streams(lab: lab, processes: processes)
    }

    /// Ends them, and checks that nothing of them was lost.
    func finish() async throws {
        for process in processes {
            guard process.exitStatus == nil else { throw LabError("\(process.name) ended by itself") }
        }
        _ = try lab.write("", to: "streams.end")
        for process in processes { try await process.waitForExit(within: .seconds(40)) }
        try await eventually("the transfer arrived whole") {
            let sums = try await Shell.run("cd \(lab.directory); cat transfer.sent transfer.received")
                .split(separator: "\n")
            return sums.count == 2 && sums[0] == sums[1]
        }
        let shown = try await Shell.attempt("cat \(lab.directory)/keys.shown")
        guard let count = Int(shown.output), count > 10 else { throw LabError("keys were lost: \(shown)") }
    }
}
