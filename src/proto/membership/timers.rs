//! Timers in the order in which they are due. At one instant the lesser event comes first, then the
//! one set first: foca demands its own order there, and the simulator needs one fixed order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events by their due times, which count from the start of the machine.
pub(super) struct Timers<E> {
    heap: BinaryHeap<Reverse<TimerEntry<E>>>,
    /// How many timers were ever set: the number of the latest entry.
    set: u64,
}

struct TimerEntry<E> {
    due: Duration,
    event: E,
    number: u64,
}

impl<E: Ord> Ord for TimerEntry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = self.due.cmp(&other.due);
        by_time.then_with(|| self.event.cmp(&other.event)).then(self.number.cmp(&other.number))
    }
}

impl<E: Ord> PartialOrd for TimerEntry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E: Ord> PartialEq for TimerEntry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E: Ord> Eq for TimerEntry<E> {}

impl<E: Ord> Timers<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), set: 0 }
    }

    /// Sets a timer; one set twice fires twice.
    pub(super) fn set(&mut self, due: Duration, event: E) {
        self.set += 1;
        self.heap.push(Reverse(TimerEntry { due, event, number: self.set }));
    }

    /// When the next event is due; `None` when none is set.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// Removes and returns the next event that is due by `now`.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<E> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }

    /// All events that are set, in no order.
    pub(super) fn events(&self) -> impl Iterator<Item = &E> {
        self.heap.iter().map(|Reverse(entry)| &entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Timers};

    #[test]
    fn time_then_event_then_order_of_setting() {
        #[derive(PartialEq, Eq, Debug)]
        struct Event(u8, &'static str);
        impl Ord for Event {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.0.cmp(&other.0)
            }
        }
        impl PartialOrd for Event {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        let s = Duration::from_secs;
        let mut timers = Timers::new();
        for (due, event, name) in [(2, 0, "e"), (1, 1, "b"), (1, 1, "c"), (1, 0, "a"), (1, 2, "d")]
        {
            timers.set(s(due), Event(event, name));
        }
        assert_eq!(timers.pop_due(Duration::ZERO), None);
        let first: Vec<_> = std::iter::from_fn(|| timers.pop_due(s(1))).map(|e| e.1).collect();
        assert_eq!(first, ["a", "b", "c", "d"]);
        assert_eq!(timers.next_due(), Some(s(2)));
    }
}
