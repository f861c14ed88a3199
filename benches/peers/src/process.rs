//! What the kernel and the allocator know of this process.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Time that this thread has been on a processor, in the kernel too.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Memory of this process that is in RAM: what no file backs, and all.
pub fn resident_bytes() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    };
    (field("RssAnon:"), field("VmRSS:"))
}

/// Bytes that are allocated, as the C library's allocator counts them: Rust's and C's stores alike.
#[cfg(target_env = "gnu")]
pub fn heap_bytes() -> Option<u64> {
    // SAFETY: it takes nothing and gives figures.
    let info = unsafe { libc::mallinfo2() };
    Some((info.uordblks + info.hblkhd) as u64)
}

#[cfg(not(target_env = "gnu"))]
pub fn heap_bytes() -> Option<u64> {
    None
}

/// Allows as many open files as may be: each port has one, and each table of an LSM tree.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused, what needs more says so.
    let _ = setrlimit(Resource::Nofile, raised);
}
