internal import CLinux

/// The processors that this process may run on (sched_getaffinity).
package enum Processors {
    package static var count: Int { Int(cl_processor_count()) }
}
