import Daemon

/// A configuration that is right, for tests to break in one place.
enum ConfigurationExamples {
    /// 32 bytes that are 1 to 32; any would do.
    static let privateKey = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
    static let presharedKey = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
    static let secondKey = "ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="
    static let peer = "hy/XBiNk1X5LIQVfvCvNLt9DZEk27sSJx5d3TZzZDWk="
    static let otherPeer = "9U4HD36dx+VI0PGGDoXS+CdOWlo6DNOF0JVM84MOMG8="

    static let files = FixedFiles([
        "/etc/vgwd/private.key": privateKey,
        "/etc/vgwd/second.key": secondKey,
        "/etc/vgwd/zone-a.psk": presharedKey,
        "/etc/vgwd/junk.key": "not a key",
        "/run/credentials/private-key": privateKey,
    ])

    /// Line 1 is `[gateway]`, line 2 its key file, line 4 `[[connection]]`, line 8 its tunnel.
    static func text(
        gateway: String = #"private-key-file = "/etc/vgwd/private.key""#, name: String = #"name = "aws""#,
        routes: String = #"routes = ["10.20.0.0/16"]"#, tunnel: String = "", key: String = peer,
        more: String = ""
    ) -> String {
        """
        [gateway]
        \(gateway)

        [[connection]]
        \(name)
        \(routes)

        [[connection.tunnel]]
        public-key = "\(key)"
        \(tunnel)
        \(more)
        """
    }

    static func load(
        _ text: String, environment: [String: String] = [:]
    ) throws(ConfigurationErrors) -> GatewayConfiguration {
        try GatewayConfiguration.parse(
            text, path: "/etc/vgwd/vgwd.toml", environment: environment, files: files)
    }

    static func errors(in text: String, environment: [String: String] = [:]) -> [ConfigurationError] {
        do {
            _ = try load(text, environment: environment)
            return []
        } catch {
            return error.errors
        }
    }
}
