//! Gossip: moves sealed datagrams and time between a socket and the membership machine.
//!
//! Promises that only datagrams sealed with the cluster's key reach the machine, while all others
//! are dropped and counted; that network errors never end it; and that the watch changes only when
//! the members do. Must not know the protocol inside the datagrams, or who reads the members.

pub mod seal;
mod seeds;

use std::collections::BTreeSet;
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
use crate::model::member::SeedAnswer;
use crate::model::{Member, MemberState, NodeId};
use crate::proto::membership::{Membership, MembershipError, MembershipSettings, Output};
use crate::proto::secret::Secret;
use crate::telemetry::Metrics;

/// Dropped datagrams are summed up in at most one log line per this time.
const DROPS_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// A datagram socket: UDP, or the simulator's.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends one datagram to `to`. The network may lose it.
    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;

    /// Waits for a datagram and returns its length and its sender. Truncates a datagram that is
    /// longer than `buffer`. Cancel-safe.
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

/// The inputs and outputs of gossip.
pub struct Gossip {
    /// Receives the datagrams that others send to the gossip address of `me`.
    pub socket: Box<dyn Datagrams>,
    /// This node, as it announces itself.
    pub me: Member,
    /// Gives the gossip key and the cluster id.
    pub secret: Arc<Secret>,
    /// The seeds and the probe period; the other fields are unused here.
    pub settings: config::GossipConfig,
    /// The members that earlier runs of this node met. They start as down.
    pub known: Vec<Member>,
    /// Time, and entropy for nonces and probe targets.
    pub clock: Clock,
    /// Counts datagrams and members.
    pub metrics: Arc<Metrics>,
    /// Receives all members in order of their ids, this node included, on each change.
    pub members: watch::Sender<Vec<(Member, MemberState)>>,
    /// Whether this node waits for its first data, which the others shall know.
    pub syncing: watch::Receiver<bool>,
    /// Receives the members that wait for their first data themselves, before `members` shows what
    /// came with that news.
    pub syncing_members: watch::Sender<BTreeSet<NodeId>>,
    /// Receives which seeds answer, on each change.
    pub seeds: watch::Sender<Vec<SeedAnswer>>,
}

impl Gossip {
    /// Takes part until `stop`, then announces that this node leaves. Returns early, with a logged
    /// error, only when `me` does not fit into a datagram.
    pub async fn run(self, stop: CancellationToken) {
        let incarnation = self.clock.now().micros();
        let settings = MembershipSettings { probe_period: self.settings.probe_period };
        let (me, known, rng) = (self.me, self.known, self.clock.rng());
        let own = me.gossip;
        let machine = match Membership::new(me, incarnation, settings, &known, rng) {
            Ok(machine) => machine,
            Err(error) => {
                tracing::error!("gossip cannot start: it cannot announce this node: {error}");
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
            syncing: self.syncing,
            syncing_members: self.syncing_members,
            seeds: Seeds::new(self.settings.seeds, own, self.settings.probe_period),
            seeds_shown: self.seeds,
            drops_logged_at: None,
            dropped: 0,
        };
        driver.run(stop).await;
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
    syncing: watch::Receiver<bool>,
    syncing_members: watch::Sender<BTreeSet<NodeId>>,
    seeds: Seeds,
    seeds_shown: watch::Sender<Vec<SeedAnswer>>,
    /// When dropped datagrams were last logged.
    drops_logged_at: Option<Instant>,
    /// Datagrams dropped since then.
    dropped: u64,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        // one byte beyond the limit shows that a datagram is oversized
        let mut buffer = [0; SEALED_BYTES_MAX + 1];
        loop {
            let syncing = *self.syncing.borrow_and_update();
            self.machine.set_syncing(self.now(), syncing);
            self.flush().await;
            self.publish();
            let due = self.start + self.machine.next_timeout().unwrap_or_default();
            let alone = self.machine.is_alone();
            tokio::select! { biased;
                () = stop.cancelled() => break,
                // before `receive`, so that a flood cannot keep a new node from its seeds
                seeds = self.seeds.next(alone) => {
                    let now = self.now();
                    for seed in seeds {
                        self.machine.announce(now, seed);
                    }
                }
                received = self.socket.receive(&mut buffer) => match received {
                    Ok((length, from)) => self.handle(buffer.get(..length), from),
                    Err(error) => pause_after(&error).await,
                },
                // an error means that it never changes again
                Ok(()) = self.syncing.changed() => {}
                () = sleep_until(due) => {}
            }
            // on every turn and not in the last branch, so that a flood cannot hold up time
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
            let error = MembershipError::Oversized;
            return self.drop_datagram(error.reason(), from, &"it is too large");
        }
        let plain = match self.seal.open(sealed) {
            Ok(plain) => plain,
            Err(error) => return self.drop_datagram("unsealed", from, &error),
        };
        match self.machine.handle_datagram(self.now(), &plain) {
            Ok(()) => self.seeds.heard(from, None),
            Err(error) => self.drop_datagram(error.reason(), from, &error),
        }
    }

    async fn flush(&mut self) {
        while let Some(Output::Send { to, bytes }) = self.machine.poll_output() {
            let sealed = self.seal.seal(self.clock.random(), &bytes);
            match self.socket.send(to, &sealed).await {
                Ok(()) => self.count("sent", sealed.len()),
                // like a datagram lost on the way, which the protocol tolerates
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
        show(&self.seeds_shown, self.seeds.answers());
        show(&self.syncing_members, self.machine.syncing());
        let members = self.machine.members();
        if !show(&self.members, members.clone()) {
            return;
        }
        for (name, state) in [
            ("alive", MemberState::Alive),
            ("suspect", MemberState::Suspect),
            ("down", MemberState::Down),
            ("left", MemberState::Left),
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
        self.seeds.heard(from, Some(&error.to_string()));
        self.dropped += 1;
        let now = self.clock.instant();
        if self.drops_logged_at.is_some_and(|last| now < last + DROPS_LOGGED_EVERY) {
            return;
        }
        let hint = match reason {
            "refused" => "",
            _ => {
                "; give every node the same gossip.key_file and the same release, and point \
                 nothing else at the gossip port"
            }
        };
        tracing::warn!(
            "dropped {} gossip datagrams since the last such line, the latest from {from}: \
             {error}{hint}",
            self.dropped
        );
        self.drops_logged_at = Some(now);
        self.dropped = 0;
    }
}

/// Sends `now` to a watch that shows something else; returns whether it did.
fn show<T: PartialEq>(watch: &watch::Sender<T>, now: T) -> bool {
    watch.send_if_modified(|shown| {
        let changed = *shown != now;
        if changed {
            *shown = now;
        }
        changed
    })
}

/// Ignores the ICMP errors that a stopped peer causes. Logs other errors and pauses, so that a
/// persistent one does not make a busy loop.
async fn pause_after(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!("cannot receive gossip: {error}; trying again");
    sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests;
