internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireGuard

/// Names of endpoints to addresses, on a thread of its own: the system's resolver may take half a minute to
/// say no, and nothing may wait for that.
///
/// Concurrency: control asks; the answer comes by the closure, on the resolver's thread.
final class EndpointResolver: Sendable {
    typealias Answer = @Sendable (Endpoint?, _ problem: String?) -> Void

    private struct Question: Sendable {
        let host: String
        let port: UInt16
        let answer: Answer
    }

    private let questions = Mutex<(waiting: [Question], isRunning: Bool)>(([], false))

    func resolve(_ host: String, port: UInt16, answer: @escaping Answer) {
        let mustStart = questions.withLock { questions in
            questions.waiting.append(Question(host: host, port: port, answer: answer))
            defer { questions.isRunning = true }
            return !questions.isRunning
        }
        guard mustStart else { return }
        do throws(SystemError) {
            _ = try Thread.spawn(name: "vgwd-resolve") { self.work() }
        } catch {
            let waiting = questions.withLock { questions in
                defer { questions = ([], false) }
                return questions.waiting
            }
            for question in waiting { question.answer(nil, "\(error)") }
        }
    }

    /// Until nothing is left to ask.
    private func work() {
        while true {
            let question = questions.withLock { questions -> Question? in
                guard !questions.waiting.isEmpty else {
                    questions.isRunning = false
                    return nil
                }
                return questions.waiting.removeFirst()
            }
            guard let question else { return }
            do {
                let address = try SocketAddress.makeAddressResolvingHost(
                    question.host, port: Int(question.port))
                if let text = address.ipAddress, let ip = IPAddress(text) {
                    question.answer(Endpoint(address: ip, port: question.port), nil)
                } else {
                    question.answer(nil, "\(question.host) has no address")
                }
            } catch {
                question.answer(nil, "\(question.host) does not resolve")
            }
        }
    }
}
