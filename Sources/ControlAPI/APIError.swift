/// The body of every answer that is not a success: what is wrong, in words for a person, and what to do.
package struct APIError: Codable, Error, Hashable, Sendable {
    /// For programs; stays the same when the wording changes.
    package var code: Code
    /// One sentence that names the thing it is about.
    package var message: String
    /// What to do about it, where that can be said.
    package var hint: String?

    package init(code: Code, message: String, hint: String? = nil) {
        self.code = code
        // It may repeat what was asked for.
        self.message = Printable.escaping(message)
        self.hint = hint
    }

    /// An open set: a newer daemon may answer with codes that this program does not know.
    package struct Code: Codable, Hashable, Sendable, RawRepresentable {
        package var rawValue: String

        package init(rawValue: String) { self.rawValue = rawValue }

        /// 400: the request cannot be read, or a value in it cannot be right.
        package static let badRequest = Code(rawValue: "bad-request")
        /// 403: the caller's user may not do this.
        package static let forbidden = Code(rawValue: "forbidden")
        /// 404: no such path, connection, tunnel or route.
        package static let notFound = Code(rawValue: "not-found")
        /// 405: the path exists, with another method.
        package static let methodNotAllowed = Code(rawValue: "method-not-allowed")
        /// 409: it contradicts what is there, such as a route that another connection has.
        package static let conflict = Code(rawValue: "conflict")
        /// 413: the body is past `APIPath.requestLimit`.
        package static let tooLarge = Code(rawValue: "too-large")
        /// 500: the system refused, such as a route that the kernel did not take.
        package static let failed = Code(rawValue: "failed")
        /// 501: a feature of the design that this version does not have.
        package static let notInThisVersion = Code(rawValue: "not-in-this-version")
        /// 503: starting, stopping, or too many requests at once.
        package static let unavailable = Code(rawValue: "unavailable")

        /// The HTTP status that goes with the code; 500 for one that is not known here.
        package var httpStatus: Int {
            switch self {
            case .badRequest: 400
            case .forbidden: 403
            case .notFound: 404
            case .methodNotAllowed: 405
            case .conflict: 409
            case .tooLarge: 413
            case .notInThisVersion: 501
            case .unavailable: 503
            default: 500
            }
        }
    }
}

extension APIError: CustomStringConvertible {
    package var description: String { hint.map { "\(message)\n\($0)" } ?? message }
}
