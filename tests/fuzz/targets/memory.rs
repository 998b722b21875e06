//! Measures the memory of a piece of work, so that "bounded" can be asserted.
//!
//! Counts what this thread asks of the allocator, but not the memory of C code (zstd, RocksDB).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// The bytes allocated now, and the most that were allocated at once.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(taken: usize, given_back: usize) {
    // A thread that ends can free memory after its counters are gone.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        // Memory can be freed on another thread than allocated it.
        let now = now.wrapping_add(taken).saturating_sub(given_back);
        held.set((now, most.max(now)));
    });
}

// SAFETY: each call goes to the system's allocator unchanged; counting neither allocates nor
// panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both allocations can exist for a moment.
        count(size, 0);
        count(0, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The result of `work`, and the most bytes that it allocated at once beyond those allocated
/// before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let result = work();
    (result, HELD.get().1.saturating_sub(before))
}
