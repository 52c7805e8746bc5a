internal import CLinux

/// A failed call of the system: what was attempted, and the errno it ended with.
package struct SystemError: Error, Hashable, Sendable {
    /// The call, or in words what it was for: `bind [::]:51820`, `add route 10.0.0.0/8`. Never holds a
    /// secret.
    package let call: String
    /// errno.
    package let code: Int32

    package init(call: String, code: Int32) {
        self.call = call
        self.code = code
    }
}

extension SystemError: CustomStringConvertible {
    /// `bind: Address already in use (EADDRINUSE)`.
    package var description: String {
        "\(call): \(Self.text(code)) (\(Self.name(code)))"
    }

    /// `EADDRINUSE`; the number where there is no name.
    package static func name(_ code: Int32) -> String {
        guard let name = unsafe cl_errno_name(code) else { return "errno \(code)" }
        return unsafe String(cString: name)
    }

    /// The sentence of strerror, untranslated.
    package static func text(_ code: Int32) -> String {
        guard let text = unsafe cl_errno_text(code) else { return "Unknown error" }
        return unsafe String(cString: text)
    }
}
