//! Notices panics in the tasks of nodes: their runtime swallows them, and a node that goes on
//! without one of its tasks would pass for healthy.

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    // A simulation has one thread, on which all its tasks run.
    static SEEN: Cell<bool> = const { Cell::new(false) };
}

/// Begins to watch this thread.
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SEEN.set(true);
            show(info);
        }));
    });
    SEEN.set(false);
}

/// Whether this thread has panicked since [`watch`].
pub fn seen() -> bool {
    SEEN.get()
}
