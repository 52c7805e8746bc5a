internal import FoundationEssentials

/// How the hidden commands tell the one that started them: one JSON object on standard output.
enum Output {
    static func write(_ value: some Encodable) throws {
        print(String(decoding: try JSONEncoder().encode(value), as: UTF8.self))
    }

    static func read<Value: Decodable>(_: Value.Type = Value.self, from text: String) throws -> Value {
        try JSONDecoder().decode(Value.self, from: Data(text.utf8))
    }
}
