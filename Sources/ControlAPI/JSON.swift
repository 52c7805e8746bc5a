internal import FoundationEssentials

/// The one JSON form of the control API. Keys are sorted so that two answers can be compared as text.
package enum JSON {
    package static func encode(_ value: some Encodable, pretty: Bool = false) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
        return Array(try encoder.encode(value))
    }

    package static func decode<Value: Decodable>(_: Value.Type = Value.self, from bytes: [UInt8]) throws
        -> Value
    {
        try JSONDecoder().decode(Value.self, from: Data(bytes))
    }
}
