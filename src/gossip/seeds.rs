//! When to try the seeds, and what addresses their names have at that time.
//!
//! Promises: names that cannot be resolved, or hang, delay no address; an address is never looked
//! up, so that the simulator stays deterministic. Must not know what is sent to them.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{sleep, timeout};

/// Once somebody is alive the seeds are tried that many times less often: they may be the only
/// bridge to another part of the cluster.
const SLOWLY: u32 = 30;
/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;
/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The seeds of one node.
pub(super) struct Seeds {
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
    own: SocketAddr,
    period: Duration,
    /// Ends when the current probe period does. Kept here, and the look-up too, because the future
    /// that [`Seeds::next`] gives is dropped with every datagram.
    tick: BoxFuture<'static, ()>,
    ticks: u32,
    lookup: Option<BoxFuture<'static, Vec<SocketAddr>>>,
}

impl Seeds {
    /// `seeds` are of the form `host:port`, of which `own` is left out.
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

    /// The addresses to announce to, when it is time: at the start, then in each probe period while
    /// this node is `alone`, then slowly.
    pub(super) async fn next(&mut self, alone: bool) -> Vec<SocketAddr> {
        loop {
            tokio::select! { biased;
                found = finish(&mut self.lookup) => {
                    self.lookup = None;
                    return found;
                }
                () = &mut self.tick => {
                    self.tick = Box::pin(sleep(self.period));
                    let due = alone || self.ticks.is_multiple_of(SLOWLY);
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
            tracing::debug!("the seed {name} cannot be resolved: {error}");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!("the seed {name} was not resolved in {LOOKUP_TIMEOUT:?}");
            Vec::new()
        }
    }
}
