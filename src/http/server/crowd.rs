//! All open connections, and which of them makes room for a new one.
//!
//! At the limit the longest idle connection ends, so that clients that keep connections open
//! without using them never shut others out. Where none is idle, a new connection becomes
//! *surplus*: it is answered once, `/health/*` as usual and anything else with `overloaded`. So a
//! busy node always answers, and says what it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::activity::{Activity, ConnectionState};
use crate::clock::Clock;
use crate::telemetry::Metrics;

/// How many surplus connections may be open beside `limits.connections_max`.
pub(crate) const SURPLUS_MAX: usize = 64;

/// The open connections.
pub(crate) struct Crowd {
    max: usize,
    clock: Clock,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<ConnectionState>>,
}

/// The place of one connection in the crowd; dropping it leaves.
pub(crate) struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    /// The connection.
    pub(crate) seen: Arc<ConnectionState>,
}

impl Crowd {
    /// A crowd in which `max` connections are served.
    pub(crate) fn new(max: usize, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        assert!(max > 0, "a crowd of nobody serves nobody");
        Arc::new(Self { max, clock, metrics, open: Mutex::default() })
    }

    /// The most connections at once, surplus ones included.
    pub(crate) fn capacity(&self) -> usize {
        self.max.saturating_add(SURPLUS_MAX)
    }

    /// Takes in a new connection; at the limit another makes room, or this one is surplus.
    pub(crate) fn enter(self: &Arc<Self>) -> Seat {
        let mut open = match self.open.lock() {
            Ok(open) => open,
            Err(poisoned) => poisoned.into_inner(),
        };
        let is_surplus = open.served().count() >= self.max && !open.make_room(self.max);
        let seen = Arc::new(ConnectionState::new(self.clock.clone(), is_surplus));
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Arc::clone(&seen));
        self.metrics.http_connections.inc();
        Seat { crowd: Arc::clone(self), number, seen }
    }

    /// Ends one connection that may end, as when the process has no descriptor left.
    pub(crate) fn make_room(&self) {
        if let Ok(open) = self.open.lock() {
            open.make_room(open.served().count());
        }
    }
}

impl Open {
    /// The connections that are not surplus.
    fn served(&self) -> impl Iterator<Item = &Arc<ConnectionState>> {
        self.connections.values().filter(|seen| !seen.is_surplus())
    }

    /// Ends connections so that one more fits below `max`; `false` if all of them are busy. A
    /// surplus connection, which ends by itself after its answer, leaves no room to another.
    fn make_room(&self, max: usize) -> bool {
        let leaving = self.served().filter(|seen| seen.activity() == Activity::Leaving).count();
        if leaving + max > self.served().count() {
            return true;
        }
        // one that is found idle may just have got a request
        for _ in 0..3 {
            let idle = self.served().filter(|seen| seen.activity() == Activity::Idle);
            match idle.min_by_key(|seen| seen.since()) {
                Some(longest) if longest.tell() => return true,
                Some(_) => {}
                None => break,
            }
        }
        let all = self.connections.values();
        let slow = all.filter(|seen| seen.has_slow_head()).min_by_key(|seen| seen.since());
        if let Some(slowest) = slow {
            // makes room for the next one
            slowest.tell_in_head();
        }
        false
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Ok(mut open) = self.crowd.open.lock() {
            open.connections.remove(&self.number);
        }
        self.crowd.metrics.http_connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(max: usize) -> Arc<Crowd> {
        Crowd::new(max, Clock::system(), Metrics::new())
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_makes_room() {
        let crowd = crowd(3);
        let mut seats = Vec::new();
        for _ in 0..3 {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            seats.push(crowd.enter());
        }
        seats[0].seen.begin();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let fourth = crowd.enter();
        assert!(!fourth.seen.is_surplus());
        let activities: Vec<_> = seats.iter().map(|seat| seat.seen.activity()).collect();
        assert_eq!(activities, [Activity::Handling, Activity::Leaving, Activity::Idle]);
        drop(seats.remove(1));
        let fifth = crowd.enter();
        assert!(!fifth.seen.is_surplus());
        assert_eq!(seats[1].seen.activity(), Activity::Leaving);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_surplus_while_all_are_busy() {
        let crowd = crowd(2);
        let seats = [crowd.enter(), crowd.enter()];
        for seat in &seats {
            seat.seen.begin();
        }
        assert!(crowd.enter().seen.is_surplus());
        // one that has got its answer and has not ended yet leaves no room
        let answered = crowd.enter();
        assert_eq!(answered.seen.activity(), Activity::Idle);
        assert!(crowd.enter().seen.is_surplus());
        assert_eq!(answered.seen.activity(), Activity::Idle);
        drop((seats, answered));
        assert!(!crowd.enter().seen.is_surplus());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_slow_ends_and_a_fresh_one_does_not() {
        let crowd = crowd(1);
        let seat = crowd.enter();
        seat.seen.has_read();
        assert!(crowd.enter().seen.is_surplus());
        assert!(futures_util::poll!(std::pin::pin!(seat.seen.told())).is_pending());
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert!(crowd.enter().seen.is_surplus());
        seat.seen.told().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_came_first_keeps_its_connection() {
        let crowd = crowd(1);
        let seat = crowd.enter();
        let other = crowd.enter();
        assert_eq!(seat.seen.activity(), Activity::Leaving);
        seat.seen.stay();
        assert_eq!(seat.seen.activity(), Activity::Idle);
        assert!(seat.seen.tell());
        seat.seen.has_read();
        assert_eq!(seat.seen.activity(), Activity::Head);
        drop(other);
    }
}
