// swift-tools-version: 6.2
import PackageDescription

/// Swift 6 language mode with every promise the compiler can keep for us: strict memory safety (pointers need
/// a marker, and have an address: shared/DESIGN.md), imports that say what they expose, and no warning left.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableExperimentalFeature("Lifetimes"),
]

let package = Package(
    name: "vgwd",
    products: [
        .executable(name: "vgwd", targets: ["vgwd"]),
        .executable(name: "vgwctl", targets: ["vgwctl"]),
        .executable(name: "vgw-bench", targets: ["vgw-bench"]),
        // For vgw-bench to preload into vgwd; no product links it.
        .library(name: "NullCipher", type: .dynamic, targets: ["CNullCipher"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
    ],
    targets: [
        // System libraries, and the few C structs and calls that Glibc hides from Swift.
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
        .systemLibrary(name: "CBlake2", pkgConfig: "libb2", providers: [.apt(["libb2-dev"])]),
        .systemLibrary(
            name: "CNetlink", pkgConfig: "libnl-route-3.0", providers: [.apt(["libnl-route-3-dev"])]),
        .systemLibrary(name: "CCares", pkgConfig: "libcares", providers: [.apt(["libc-ares-dev"])]),
        .target(name: "CLinux"),
        .target(name: "CResolver", dependencies: ["CCares"]),
        .target(name: "CNullCipher"),

        // The protocol and the packet's way: pure, no socket, no clock.
        .target(
            name: "WireGuard",
            dependencies: [
                "CSodium", "CBlake2", .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: settings),

        // The system: descriptors, epoll, UDP batches, TUN, netlink, names, threads, clock, random.
        .target(
            name: "LinuxIO", dependencies: ["CLinux", "CNetlink", "CResolver", "WireGuard"],
            swiftSettings: settings),

        // The data threads: what joins the packet's way to sockets and the TUN device.
        .target(name: "DataPlane", dependencies: ["LinuxIO", "WireGuard"], swiftSettings: settings),

        // Requests and answers between vgwd and vgwctl.
        .target(name: "ControlAPI", swiftSettings: settings),

        // All that a gateway decides: connections, tunnels, health, selection, drills, diagnoses. Pure: no socket, no
        // clock, no log, which this list of dependencies keeps so.
        .target(name: "GatewayCore", dependencies: ["ControlAPI", "WireGuard"], swiftSettings: settings),

        // The daemon around it: configuration, control loop, kernel routes, the `wg` socket.
        .target(
            name: "Daemon",
            dependencies: [
                "ControlAPI", "DataPlane", "GatewayCore", "LinuxIO", "WireGuard",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "TOMLKit", package: "TOMLKit"),
            ],
            swiftSettings: settings),

        // The control API over HTTP: what asks the daemon's mailbox for those who connect.
        .target(
            name: "ControlServer",
            dependencies: [
                "ControlAPI", "Daemon", "GatewayCore", "LinuxIO", "WireGuard",
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings),

        .executableTarget(
            name: "vgwd",
            dependencies: [
                "ControlServer", "Daemon",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "vgwctl",
            dependencies: [
                // The reader of configurations: what vgwctl writes, vgwd reads.
                "ControlAPI", "Daemon", "GatewayCore", "LinuxIO", "WireGuard",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "vgw-bench",
            dependencies: [
                "CLinux", "CSodium", "ControlAPI", "Daemon", "DataPlane", "GatewayCore", "LinuxIO",
                "TestSupport", "WireGuard",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Subprocess", package: "swift-subprocess"),
            ],
            swiftSettings: settings),

        // What tests of several targets and vgw-bench use; without expectations, as vgw-bench has no tests.
        .target(
            name: "TestSupport", dependencies: ["LinuxIO", "WireGuard"], path: "Tests/TestSupport",
            swiftSettings: settings),
        // Stands before the C library in the test program.
        .target(name: "SystemFaults", path: "Tests/SystemFaults", swiftSettings: settings),
        .testTarget(
            name: "WireGuardTests", dependencies: ["TestSupport", "WireGuard"], exclude: ["Vectors"],
            swiftSettings: settings
        ),
        .testTarget(
            name: "LinuxIOTests",
            dependencies: ["CLinux", "LinuxIO", "SystemFaults", "TestSupport", "WireGuard"],
            swiftSettings: settings),
        .testTarget(
            name: "DataPlaneTests",
            dependencies: ["DataPlane", "LinuxIO", "SystemFaults", "TestSupport", "WireGuard"],
            swiftSettings: settings),
        .testTarget(
            name: "GatewayCoreTests",
            dependencies: ["ControlAPI", "GatewayCore", "TestSupport", "WireGuard"],
            swiftSettings: settings),
        .testTarget(
            name: "DaemonTests",
            dependencies: [
                "ControlAPI", "ControlServer", "Daemon", "DataPlane", "GatewayCore", "LinuxIO", "TestSupport",
                "WireGuard", "vgwctl",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "ControlAPI", "LinuxIO", "TestSupport", "WireGuard",
                .product(name: "Subprocess", package: "swift-subprocess"),
            ],
            swiftSettings: settings),
    ]
)
