internal import Testing

/// Built daemons, real TUN devices and network namespaces. Needs root. One test at a time: they share the
/// machine's two cores, and a slow neighbour must not look like a broken tunnel.
@Suite(.serialized)
enum Integration {}
