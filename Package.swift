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
    targets: [
        // System libraries, and the few C structs and calls that Glibc hides from Swift.
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
        .systemLibrary(name: "CBlake2", pkgConfig: "libb2", providers: [.apt(["libb2-dev"])]),
        .systemLibrary(
            name: "CNetlink", pkgConfig: "libnl-route-3.0", providers: [.apt(["libnl-route-3-dev"])]),
        .target(name: "CLinux"),

        // The protocol and the packet's way: pure, no socket, no clock.
        .target(name: "WireGuard", dependencies: ["CSodium", "CBlake2"], swiftSettings: settings),

        // The system: descriptors, epoll, UDP batches, TUN, netlink, threads, clock, random.
        .target(name: "LinuxIO", dependencies: ["CLinux", "CNetlink", "WireGuard"], swiftSettings: settings),

        .testTarget(
            name: "WireGuardTests", dependencies: ["WireGuard"], exclude: ["Vectors"], swiftSettings: settings
        ),
        .testTarget(name: "LinuxIOTests", dependencies: ["LinuxIO", "WireGuard"], swiftSettings: settings),
    ]
)
