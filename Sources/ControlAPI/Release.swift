/// What this is a version of: both programs are released together.
package enum Release {
    package static let version = "0.1.0"
}
