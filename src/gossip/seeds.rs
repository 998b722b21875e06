//! When to contact the seeds, to which addresses their names resolve at that time, and which of
//! them answer.
//!
//! Promises that a name which fails or hangs delays no other seed's address, and that an IP address
//! is never looked up, so that the simulator stays deterministic. Must not know what is sent.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{sleep, timeout};

use crate::model::member::SeedAnswer;

/// Probe periods between two attempts once another member is alive. The attempts never end: a seed
/// may be the only bridge to another part of the cluster.
const PERIODS_BETWEEN: u32 = 30;
/// Addresses used per name.
const ADDRESSES_MAX: usize = 8;
/// Deadline for one DNS look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// A seed that left this many attempts in a row without an answer does not answer.
const ATTEMPTS_MAX: u32 = 3;

/// The seeds of one node, and the timer and look-up under way.
pub(super) struct Seeds {
    all: Vec<Seed>,
    own: SocketAddr,
    period: Duration,
    /// Resolves at the end of the current probe period. Like the look-up it lives here, because
    /// every datagram drops the future of [`Seeds::next`].
    tick: BoxFuture<'static, ()>,
    ticks: u32,
    lookup: Option<BoxFuture<'static, Vec<(usize, LookedUp)>>>,
}

/// The addresses of a name, or why there are none.
type LookedUp = Result<Vec<SocketAddr>, String>;

struct Seed {
    text: String,
    is_name: bool,
    /// For a name, those of the latest look-up.
    addresses: Vec<SocketAddr>,
    /// Why the latest look-up failed, or what came from the seed instead of an answer.
    problem: Option<String>,
    has_answered: bool,
    /// Attempts since the last answer.
    attempts: u32,
}

impl Seed {
    fn error(&self) -> Option<String> {
        if self.has_answered && self.attempts < ATTEMPTS_MAX {
            return None;
        }
        Some(self.problem.clone().unwrap_or_else(|| "no answer".to_owned()))
    }
}

impl Seeds {
    /// Each of `seeds` is `host:port`. Leaves out `own`, this node's address.
    pub(super) fn new(seeds: Vec<String>, own: SocketAddr, period: Duration) -> Self {
        let seed = |text: String| {
            let address = text.parse::<SocketAddr>().ok();
            Seed {
                is_name: address.is_none(),
                addresses: address.into_iter().collect(),
                text,
                problem: None,
                has_answered: false,
                attempts: 0,
            }
        };
        let seeds = seeds.into_iter().map(seed).filter(|seed| !seed.addresses.contains(&own));
        let tick = Box::pin(sleep(Duration::ZERO));
        Self { all: seeds.collect(), own, period, tick, ticks: 0, lookup: None }
    }

    /// Waits until it is time to announce and returns the addresses: immediately on the first call,
    /// then in each probe period while this node is `alone`, then every 30th. Addresses of names
    /// follow in a later return, when the look-up has ended. Cancel-safe.
    pub(super) async fn next(&mut self, alone: bool) -> Vec<SocketAddr> {
        loop {
            tokio::select! { biased;
                found = finish(&mut self.lookup) => {
                    self.lookup = None;
                    return self.take(found);
                }
                () = &mut self.tick => {
                    self.tick = Box::pin(sleep(self.period));
                    let due = alone || self.ticks.is_multiple_of(PERIODS_BETWEEN);
                    self.ticks = self.ticks.wrapping_add(1);
                    if due {
                        return self.begin();
                    }
                }
            }
        }
    }

    /// Begins an attempt: starts the look-ups and returns the addresses that need none.
    fn begin(&mut self) -> Vec<SocketAddr> {
        for seed in &mut self.all {
            seed.attempts = seed.attempts.saturating_add(1);
        }
        let names = self.all.iter().enumerate().filter(|(_, seed)| seed.is_name);
        let names: Vec<_> = names.map(|(at, seed)| (at, seed.text.clone())).collect();
        if self.lookup.is_none() && !names.is_empty() {
            let all = names.into_iter().map(|(at, name)| look_up(at, name));
            self.lookup = Some(Box::pin(join_all(all)));
        }
        let known = self.all.iter().filter(|seed| !seed.is_name);
        known.flat_map(|seed| seed.addresses.clone()).collect()
    }

    fn take(&mut self, found: Vec<(usize, LookedUp)>) -> Vec<SocketAddr> {
        assert!(found.len() <= self.all.len(), "one look-up a seed");
        let mut all = Vec::new();
        for (at, looked_up) in found {
            let Some(seed) = self.all.get_mut(at) else { continue };
            match looked_up {
                Ok(addresses) => {
                    let others = addresses.into_iter().filter(|address| *address != self.own);
                    seed.addresses = others.take(ADDRESSES_MAX).collect();
                    seed.problem = None;
                    all.extend(&seed.addresses);
                }
                Err(problem) => seed.problem = Some(problem),
            }
        }
        all
    }

    /// Notes that a member's datagram came from `from`, or one that was dropped for `problem`.
    pub(super) fn heard(&mut self, from: SocketAddr, problem: Option<&str>) {
        for seed in self.all.iter_mut().filter(|seed| seed.addresses.contains(&from)) {
            seed.problem = problem.map(|why| format!("its datagram was dropped: {why}"));
            if problem.is_none() {
                (seed.has_answered, seed.attempts) = (true, 0);
            }
        }
    }

    /// Which seeds answer. A seed that is this node itself is left out.
    pub(super) fn answers(&self) -> Vec<SeedAnswer> {
        let itself = |seed: &&Seed| {
            seed.is_name && seed.addresses.is_empty() && seed.problem.is_none() && seed.attempts > 1
        };
        let others = self.all.iter().filter(|seed| !itself(seed));
        others.map(|seed| SeedAnswer { seed: seed.text.clone(), error: seed.error() }).collect()
    }
}

async fn finish<T>(lookup: &mut Option<BoxFuture<'static, T>>) -> T {
    match lookup {
        Some(lookup) => lookup.await,
        None => std::future::pending().await,
    }
}

/// Looks up the name of the seed at `at`.
async fn look_up(at: usize, name: String) -> (usize, LookedUp) {
    let looked_up = match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(&name)).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(format!("its name cannot be resolved: {error}")),
        Err(_) => Err(format!("its name cannot be resolved within {LOOKUP_TIMEOUT:?}")),
    };
    (at, looked_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[tokio::test]
    async fn a_seed_answers_until_it_leaves_three_attempts_without_one() {
        let list = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"].map(str::to_owned).to_vec();
        let mut seeds = Seeds::new(list, address(1), Duration::from_secs(1));
        let errors = |seeds: &Seeds| -> Vec<_> {
            seeds.answers().into_iter().map(|answer| answer.error).collect()
        };
        assert_eq!(seeds.begin(), [address(2), address(3)], "not the node itself");
        seeds.heard(address(2), None);
        seeds.heard(address(3), Some("another key"));
        let dropped = Some("its datagram was dropped: another key".to_owned());
        assert_eq!(errors(&seeds), [None, dropped]);
        for _ in 0..ATTEMPTS_MAX {
            seeds.begin();
        }
        assert_eq!(errors(&seeds)[0].as_deref(), Some("no answer"));
    }
}
