internal import GatewayCore
internal import LinuxIO
internal import Logging

/// Which firewall mark and which table a configured gateway has in this run.
extension DaemonSettings {
    /// 1. What earlier runs left, and what others have, is looked up in the kernel.
    /// 2. A number that the file asks for and another gateway has is an error.
    /// 3. What the file leaves open is chosen, and remembered in the state folder.
    ///
    /// Whoever else chooses at this moment must wait (`NamespaceLock`) until the guard is laid: from then on it shows
    /// what is taken.
    mutating func takeNumbers(_ log: Logger) throws(DaemonError) {
        guard let wishes else { return }
        let store = RoutingNumbersStore(directory: stateDirectory, interface: interface, log: log)
        let remembered = store.load()
        var numbers = wishes.preferred
        var conflict: String?
        do throws(SystemError) {
            let netlink = try Netlink()
            let survey = try self.survey(netlink, remembered)
            conflict = Self.conflict(wishes, survey, netlink)
            earlierMarks = survey.routes.isEmpty && survey.ownMarks.isEmpty ? nil : survey.ownMarks
            if conflict == nil { numbers = try Self.choose(wishes, survey, netlink) ?? numbers }
        } catch {
            log.warning(
                "whose mark and table are whose cannot be looked up: another gateway may have ours",
                metadata: ["error": "\(error)"])
        }
        if let conflict { throw DaemonError(conflict) }
        if numbers != wishes.preferred {
            log.notice(
                "somebody else has the firewall mark or the table of the listen-port: others are taken",
                metadata: [
                    "mark": "\(numbers.mark)", "table": "\(numbers.table.map { "\($0)" } ?? "off")",
                ])
        }
        if numbers != remembered { store.keep(numbers) }
        plan.mark = numbers.mark
        plan.table = numbers.table
        spec.firewallMark = numbers.mark
    }

    /// Who has a number that the configuration asks for, in words for `vgwd check`; nil where nobody else has.
    package func numbersConflict() -> String? {
        guard let wishes, let netlink = try? Netlink(), let survey = try? survey(netlink, nil) else {
            return nil
        }
        return Self.conflict(wishes, survey, netlink)
    }

    /// Marks of the rules that earlier runs left.
    func findEarlierMarks(_ log: Logger) throws(SystemError) -> Set<UInt32> {
        let store = RoutingNumbersStore(directory: stateDirectory, interface: interface, log: log)
        return try survey(Netlink(), store.load()).ownMarks
    }

    private func survey(
        _ netlink: borrowing Netlink, _ remembered: RoutingNumbers?
    ) throws(SystemError) -> RoutingSurvey {
        RoutingSurvey(
            rules: try netlink.rules(protocol: nil), routes: try netlink.routes(), plan: plan,
            interface: try netlink.link(interface)?.index ?? 0, remembered: remembered)
    }

    private static func conflict(
        _ wishes: RoutingNumbers.Wishes, _ survey: RoutingSurvey, _ netlink: borrowing Netlink
    ) -> String? {
        let fixed = wishes.fixed
        for (key, number, numbers) in [
            ("firewall-mark", fixed.mark, RoutingNumbers(mark: fixed.mark, table: nil)),
            ("table", fixed.table ?? 0, RoutingNumbers(mark: 0, table: fixed.table)),
        ] {
            guard case .gateway(let index) = survey.holder(of: numbers) else { continue }
            let name = index == 0 ? nil : (try? netlink.link(index: index))??.name
            let who =
                name.map { "the gateway on interface \($0) has it" }
                ?? "another gateway has it that does not run now, and 'vgwd unguard' with its file takes it away"
            return "\(key) \(number) is taken: \(who). Leave \(key) out of [gateway], or write another number"
        }
        return nil
    }

    /// Nil when nothing is free.
    private static func choose(
        _ wishes: RoutingNumbers.Wishes, _ survey: RoutingSurvey, _ netlink: borrowing Netlink
    ) throws(SystemError) -> RoutingNumbers? {
        for numbers in wishes.candidates(remembered: survey.remembered) {
            let free = wishes.open(of: numbers)
            guard survey.holder(of: free) == nil else { continue }
            // Somebody else's routes in a table that was not ours before.
            if let table = free.table, table != survey.remembered?.table,
                try netlink.routes(table: table).contains(where: { $0.protocol != NetlinkRoute.ownProtocol })
            {
                continue
            }
            return numbers
        }
        return nil
    }
}
