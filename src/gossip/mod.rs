//! Gossip: moves sealed datagrams and time between a socket and the membership machine.
//!
//! Promises: only what the cluster's key sealed reaches the machine, the rest is dropped and
//! counted; network errors never end it; the watch changes only when the members do. Must not know
//! the protocol inside the datagrams, nor who reads the members.

pub mod seal;
mod seeds;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::seal::{SEALED_BYTES_MAX, Seal};
use self::seeds::Seeds;
use crate::clock::Clock;
use crate::config;
use crate::model::{Member, MemberState};
use crate::proto::membership::{Membership, MembershipError, MembershipSettings, Output};
use crate::proto::secret::Secret;
use crate::telemetry::Metrics;

/// Dropped datagrams are logged at most once in this time, with their number.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A datagram socket: UDP, or the simulator's.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends one datagram; it may be lost.
    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;

    /// Waits for a datagram and gives its length, cut at the buffer's, and its sender. Loses
    /// nothing when dropped while it waits.
    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;
}

impl Datagrams for UdpSocket {
    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.send_to(bytes, to).await.map(drop) })
    }

    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(self.recv_from(buffer))
    }
}

/// What gossip needs to run.
pub struct Gossip {
    /// Bound to the address that `me` advertises, or reachable by it.
    pub socket: Box<dyn Datagrams>,
    /// This node.
    pub me: Member,
    /// The cluster's secret.
    pub secret: Arc<Secret>,
    /// `[gossip]`; seeds and the probe period are read.
    pub settings: config::Gossip,
    /// The members ever met, as they were kept.
    pub known: Vec<Member>,
    /// Time and entropy.
    pub clock: Clock,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Where all members are published, by id, this node included, on each change.
    pub members: watch::Sender<Vec<(Member, MemberState)>>,
}

impl Gossip {
    /// Takes part until `stop`, then tells the others that this node goes.
    pub async fn run(self, stop: CancellationToken) {
        let incarnation = self.clock.now().micros();
        let settings = MembershipSettings { probe_period: self.settings.probe_period };
        let (me, known, rng) = (self.me, self.known, self.clock.rng());
        let own = me.gossip;
        let machine = match Membership::new(me, incarnation, settings, &known, rng) {
            Ok(machine) => machine,
            Err(error) => {
                tracing::error!("gossip cannot start: this node could not be told of: {error}");
                return;
            }
        };
        let driver = Driver {
            seal: Seal::new(self.secret.gossip_key(), self.secret.cluster_id()),
            socket: self.socket,
            machine,
            start: self.clock.instant(),
            clock: self.clock,
            metrics: self.metrics,
            members: self.members,
            complained: None,
            dropped: 0,
        };
        driver.run(Seeds::new(self.settings.seeds, own, self.settings.probe_period), stop).await;
    }
}

struct Driver {
    socket: Box<dyn Datagrams>,
    seal: Seal,
    machine: Membership,
    start: Instant,
    clock: Clock,
    metrics: Arc<Metrics>,
    members: watch::Sender<Vec<(Member, MemberState)>>,
    /// When dropped datagrams were last logged.
    complained: Option<Instant>,
    /// How many were dropped since.
    dropped: u64,
}

impl Driver {
    async fn run(mut self, mut seeds: Seeds, stop: CancellationToken) {
        // one byte more than allowed, so that what is larger is seen to be
        let mut buffer = [0; SEALED_BYTES_MAX + 1];
        loop {
            self.flush().await;
            self.publish();
            let due = self.start + self.machine.next_timeout().unwrap_or_default();
            let alone = self.machine.is_alone();
            tokio::select! { biased;
                () = stop.cancelled() => break,
                // before what is received, so that a flood cannot keep a new node from its seeds
                seeds = seeds.next(alone) => {
                    let now = self.now();
                    for seed in seeds {
                        self.machine.announce(now, seed);
                    }
                }
                received = self.socket.receive(&mut buffer) => match received {
                    Ok((length, from)) => self.handle(buffer.get(..length), from),
                    Err(error) => pause_after(&error).await,
                },
                () = sleep_until(due) => {}
            }
            // here and not in the last branch, so that a flood of datagrams cannot hold up time
            if let Err(error) = self.machine.handle_timeout(self.now()) {
                tracing::warn!("{error}");
            }
        }
        self.machine.leave(self.now());
        self.flush().await;
        self.publish();
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.start)
    }

    fn handle(&mut self, sealed: Option<&[u8]>, from: SocketAddr) {
        let sealed = sealed.unwrap_or_default();
        self.count("received", sealed.len());
        if sealed.len() > SEALED_BYTES_MAX {
            return self.drop_datagram(
                MembershipError::Oversized.reason(),
                from,
                &"it is too large",
            );
        }
        let plain = match self.seal.open(sealed) {
            Ok(plain) => plain,
            Err(error) => return self.drop_datagram("unsealed", from, &error),
        };
        if let Err(error) = self.machine.handle_datagram(self.now(), &plain) {
            self.drop_datagram(error.reason(), from, &error);
        }
    }

    async fn flush(&mut self) {
        while let Some(Output::Send { to, bytes }) = self.machine.poll_output() {
            let sealed = self.seal.seal(self.clock.random(), &bytes);
            match self.socket.send(to, &sealed).await {
                Ok(()) => self.count("sent", sealed.len()),
                // as good as lost on the way, which the protocol bears
                Err(error) => tracing::debug!("cannot send gossip to {to}: {error}"),
            }
        }
    }

    fn count(&self, direction: &'static str, bytes: usize) {
        let labels = [("direction", direction)];
        self.metrics.gossip_datagrams.get_or_create(&labels).inc();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.metrics.gossip_bytes.get_or_create(&labels).inc_by(bytes);
    }

    fn publish(&self) {
        let members = self.machine.members();
        let changed = self.members.send_if_modified(|shown| {
            let changed = *shown != members;
            if changed {
                shown.clone_from(&members);
            }
            changed
        });
        if !changed {
            return;
        }
        for (name, state) in [
            ("alive", MemberState::Alive),
            ("suspect", MemberState::Suspect),
            ("down", MemberState::Down),
        ] {
            let count = members.iter().filter(|(_, found)| *found == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.members.get_or_create(&[("state", name)]).set(count);
        }
    }

    fn drop_datagram(
        &mut self,
        reason: &'static str,
        from: SocketAddr,
        error: &dyn std::fmt::Display,
    ) {
        self.metrics.gossip_dropped.get_or_create(&[("reason", reason)]).inc();
        self.dropped += 1;
        let now = self.clock.instant();
        if self.complained.is_some_and(|last| now < last + COMPLAIN_EVERY) {
            return;
        }
        let hint = match reason {
            "refused" => "",
            _ => {
                "; a node with another gossip key or of another version may be talking to this one \
                 (`gossip.key_file` must be the same on every node), or the port receives what is \
                 no gossip"
            }
        };
        tracing::warn!(
            "dropped {} gossip datagrams since the last such line; the latest came from {from}: \
             {error}{hint}",
            self.dropped
        );
        self.complained = Some(now);
        self.dropped = 0;
    }
}

/// A peer that is gone makes the system refuse (ICMP), which is no news; whatever else fails must
/// not make a busy loop.
async fn pause_after(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!("cannot receive gossip: {error}");
    sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
#[path = "gossip_tests.rs"]
mod tests;
