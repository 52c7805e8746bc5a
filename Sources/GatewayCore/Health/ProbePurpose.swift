/// What a probe is for: whoever reads its answer must know whom to tell.
package enum ProbePurpose: Hashable, Sendable {
    case health
    /// By index into the health settings' targets.
    case target(Int)
    case pathMTU
    /// A drill's, to the far inside address.
    case drill
    /// A drill's, to a target.
    case drillTarget

    /// In the payload, behind the sequence number. From `firstTarget` on: targets.
    var code: UInt16 {
        switch self {
        case .health: 0
        case .pathMTU: 1
        case .drill: 2
        case .drillTarget: 3
        case .target(let index): UInt16(clamping: Int(Self.firstTarget) + min(max(index, 0), 0xffff))
        }
    }

    private static let firstTarget: UInt16 = 0x100

    init?(code: UInt16) {
        switch code {
        case 0: self = .health
        case 1: self = .pathMTU
        case 2: self = .drill
        case 3: self = .drillTarget
        case Self.firstTarget...: self = .target(Int(code - Self.firstTarget))
        default: return nil
        }
    }
}
