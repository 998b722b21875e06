//! When to contact the seeds, and to which addresses their names resolve at that time.
//!
//! Promises that a name which fails or hangs delays no other seed's address, and that an IP address
//! is never looked up, so that the simulator stays deterministic. Must not know what is sent.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{sleep, timeout};

/// Probe periods between two attempts once another member is alive. The attempts never end: a seed
/// may be the only bridge to another part of the cluster.
const PERIODS_BETWEEN: u32 = 30;
/// Addresses used per name.
const ADDRESSES_MAX: usize = 8;
/// Deadline for one DNS look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The seeds of one node, and the timer and look-up under way.
pub(super) struct Seeds {
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
    own: SocketAddr,
    period: Duration,
    /// Resolves at the end of the current probe period. Like the look-up it lives here, because
    /// every datagram drops the future of [`Seeds::next`].
    tick: BoxFuture<'static, ()>,
    ticks: u32,
    lookup: Option<BoxFuture<'static, Vec<SocketAddr>>>,
}

impl Seeds {
    /// Each of `seeds` is `host:port`. Leaves out `own`, this node's address.
    pub(super) fn new(seeds: Vec<String>, own: SocketAddr, period: Duration) -> Self {
        let (mut addresses, mut names) = (Vec::new(), Vec::new());
        for seed in seeds {
            match seed.parse::<SocketAddr>() {
                Ok(address) if address == own => {}
                Ok(address) => addresses.push(address),
                Err(_) => names.push(seed),
            }
        }
        let tick = Box::pin(sleep(Duration::ZERO));
        Self { addresses, names, own, period, tick, ticks: 0, lookup: None }
    }

    /// Waits until it is time to announce and returns the addresses: immediately on the first call,
    /// then in each probe period while this node is `alone`, then every 30th. Addresses of names
    /// follow in a later return, when the look-up has ended. Cancel-safe.
    pub(super) async fn next(&mut self, alone: bool) -> Vec<SocketAddr> {
        loop {
            tokio::select! { biased;
                found = finish(&mut self.lookup) => {
                    self.lookup = None;
                    return found;
                }
                () = &mut self.tick => {
                    self.tick = Box::pin(sleep(self.period));
                    let due = alone || self.ticks.is_multiple_of(PERIODS_BETWEEN);
                    self.ticks = self.ticks.wrapping_add(1);
                    if due {
                        self.start_lookup();
                        return self.addresses.clone();
                    }
                }
            }
        }
    }

    fn start_lookup(&mut self) {
        if self.lookup.is_none() && !self.names.is_empty() {
            let own = self.own;
            let all = join_all(self.names.clone().into_iter().map(move |name| look_up(name, own)));
            self.lookup = Some(Box::pin(async move { all.await.concat() }));
        }
    }
}

async fn finish(lookup: &mut Option<BoxFuture<'static, Vec<SocketAddr>>>) -> Vec<SocketAddr> {
    match lookup {
        Some(lookup) => lookup.await,
        None => std::future::pending().await,
    }
}

async fn look_up(name: String, own: SocketAddr) -> Vec<SocketAddr> {
    match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(&name)).await {
        Ok(Ok(found)) => found.filter(|address| *address != own).take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => {
            tracing::debug!("cannot resolve the seed {name}: {error}");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!("cannot resolve the seed {name} within {LOOKUP_TIMEOUT:?}");
            Vec::new()
        }
    }
}
