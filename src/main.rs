//! The binary `kvs`: sets up the allocator. No other logic lives here.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    allocator::bound_free_memory();
    kvs::cli::main()
}

/// The allocator of glibc, which serves RocksDB as well.
#[cfg(target_env = "gnu")]
mod allocator {
    /// Blocks of at least this many bytes go back to the system when they are freed.
    const RETURNED_BYTES_MIN: i32 = 1 << 20;
    /// How much of smaller freed blocks an arena keeps at its end, in bytes.
    const KEPT_BYTES_MAX: i32 = 4 << 20;
    /// How many arenas there are. Each keeps free memory of its own.
    const ARENAS_MAX: i32 = 8;

    /// Bounds how much freed memory stays with the process. By default glibc learns from the first
    /// freed value of 16 MiB to keep all up to that size, once for each thread.
    pub fn bound_free_memory() {
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, RETURNED_BYTES_MIN),
            (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX),
            (libc::M_ARENA_MAX, ARENAS_MAX),
        ] {
            // SAFETY: it takes two numbers, and no other thread runs yet. A refusal only costs
            // memory.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
