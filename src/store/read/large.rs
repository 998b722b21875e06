//! Bounds how many large values are read from the engine at once.
//!
//! While it reads a value, the engine holds it as it lies on the disk and as it is, both outside of
//! every budget of the callers. So few are read at once, and the others wait on their thread.

use std::sync::{Condvar, Mutex, PoisonError};

/// From this size on, in bytes, a value is large.
const LARGE_BYTES_MIN: u64 = 1 << 20;
/// How many large values are read at once: as many as keep a disk busy.
const READS_MAX: usize = 2;

/// The reads of large values in progress.
#[derive(Debug, Default)]
pub(in crate::store) struct LargeReads {
    count: Mutex<usize>,
    ended: Condvar,
}

impl LargeReads {
    /// Runs `read`, which reads a value of `bytes`. May block; `read` must not come here again.
    pub(super) fn run<T>(&self, bytes: u64, read: impl FnOnce() -> T) -> T {
        if bytes < LARGE_BYTES_MIN {
            return read();
        }
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |count: &mut usize| *count >= READS_MAX;
        let waited = self.ended.wait_while(count, full);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        let _reading = Reading(self);
        read()
    }
}

/// A read in progress. Ended by drop, also after a panic.
struct Reading<'a>(&'a LargeReads);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn few_large_values_are_read_at_once_and_small_ones_pass() {
        let (reads, now, most) = (LargeReads::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        reads.run(LARGE_BYTES_MIN, || {
                            most.fetch_max(
                                now.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            reads.run(LARGE_BYTES_MIN - 1, std::thread::yield_now);
                            now.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        let most = most.load(Ordering::SeqCst);
        assert!((1..=READS_MAX).contains(&most), "{most}");
        let panicked = std::panic::catch_unwind(|| reads.run(LARGE_BYTES_MIN, || panic!("a test")));
        assert!(panicked.is_err() && *reads.count.lock().unwrap() == 0);
    }
}
