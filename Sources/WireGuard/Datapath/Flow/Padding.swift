/// Length of a plaintext once padded with zeros: to a multiple of 16, but never past the MTU (whitepaper,
/// section 5.4.6).
@inline(__always)
func paddedLength(_ count: Int, mtu: Int) -> Int {
    let rounded = (count &+ 15) & ~15
    return count >= mtu ? count : min(rounded, mtu)
}
