internal import CSodium

/// Comparison of MACs: the time taken says nothing of where they differ.
package func isEqualInConstantTime(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    unsafe a.count == b.count && sodium_memcmp(a, b, a.count) == 0
}
