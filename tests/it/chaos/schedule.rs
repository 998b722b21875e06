//! The faults of a chaos run, drawn from its seed.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::clients::Crowd;
use super::rig::{NODES, Rig, skipped};

/// A fault lasts until clients have received this many answers.
const HOLD: usize = 250;
/// The largest shift of a clock in milliseconds, either way. Two nodes so stay within
/// `sync.clock_drift_max` of each other.
const CLOCK_OFF_MAX: i64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Two halves without any link between them.
    Halves,
    /// One direction of one link is cut.
    OneWay,
    /// Each node in turn is cut off from all others.
    Rolling,
    /// One node is cut off until the others see it down, then returns.
    Isolation,
    /// Every link loses packets.
    Lossy,
    /// Every link delays, repeats, reorders and throttles.
    Slow,
    /// `kill -9`, then an immediate restart.
    Kill,
    /// `kill -9` of a node that is cut off, so that no peer restores what it lost.
    KillAlone,
    /// All nodes but one are killed and restarted.
    KillMost,
    /// A node is paused until the others see it down, then resumed.
    Pause,
    /// A node is killed and restarted with an empty disk.
    EmptyDisk,
    /// The disk is full until the node refuses writes.
    FullDisk,
    /// The wall clock steps.
    Clock,
}

pub const OF_LINKS: [Fault; 6] =
    [Fault::Halves, Fault::OneWay, Fault::Rolling, Fault::Isolation, Fault::Lossy, Fault::Slow];
pub const OF_NODES: [Fault; 7] = [
    Fault::Kill,
    Fault::KillAlone,
    Fault::KillMost,
    Fault::Pause,
    Fault::EmptyDisk,
    Fault::FullDisk,
    Fault::Clock,
];

/// Each of `faults`, `times` times, shuffled.
pub fn plan(faults: &[Fault], times: usize, rng: &mut StdRng) -> Vec<Fault> {
    let mut plan = faults.repeat(times);
    plan.shuffle(rng);
    plan
}

/// Makes a link lose every packet.
fn cut(link: &mut crate::support::proxy::Link) {
    link.loss = 1.0;
}

impl Fault {
    /// Starts the fault, waits while the clients work, and ends it.
    pub async fn happen(self, rig: &mut Rig, crowd: &Crowd, rng: &mut StdRng) {
        let at = rng.random_range(0..NODES);
        let other = (at + rng.random_range(1..NODES)) % NODES;
        match self {
            Self::Halves => {
                let first = [at, other];
                cut_between(rig, |node| first.contains(&node));
                let outside = (0..NODES).find(|node| !first.contains(node)).expect("two are left");
                rig.nodes[at].shows(&rig.nodes[outside].id, "down").await;
                crowd.goes_on(HOLD).await;
            }
            Self::OneWay => {
                rig.link(at, other, cut);
                rig.rewire();
                crowd.goes_on(HOLD).await;
            }
            Self::Rolling => {
                for alone in 0..NODES {
                    rig.heal();
                    cut_between(rig, |node| node == (at + alone) % NODES);
                    crowd.goes_on(HOLD / 2).await;
                }
            }
            Self::Isolation => {
                cut_between(rig, |node| node == at);
                rig.nodes[other].shows(&rig.nodes[at].id, "down").await;
                crowd.goes_on(HOLD).await;
            }
            Self::Lossy | Self::Slow => {
                self.begin(rig, rng);
                crowd.goes_on(2 * HOLD).await;
            }
            _ => return self.happen_to(at, rig, crowd, rng).await,
        }
        rig.heal();
        crowd.goes_on(HOLD).await;
    }

    /// Degrades every link until the rig heals it.
    pub fn begin(self, rig: &mut Rig, rng: &mut StdRng) {
        let loss = rng.random_range(0.1..0.4);
        let twice = rng.random_range(0.05..0.2);
        let delay_max = Duration::from_millis(rng.random_range(5..60));
        let rate = rng.random_range(100_000..1_000_000);
        rig.every_link(|link| match self {
            Self::Lossy => link.loss = loss,
            _ => {
                (link.twice, link.delay_max) = (twice, delay_max);
                link.bytes_per_second = Some(rate);
            }
        });
        rig.rewire();
    }

    /// Applies the fault to the node `at`.
    async fn happen_to(self, at: usize, rig: &mut Rig, crowd: &Crowd, rng: &mut StdRng) {
        crowd.goes_on(rng.random_range(1..HOLD)).await;
        match self {
            Self::Kill => rig.kill_and_restart(at).await,
            Self::KillAlone => {
                cut_between(rig, |node| node == at);
                crowd.goes_on(HOLD).await;
                rig.kill_and_restart(at).await;
                crowd.goes_on(HOLD).await;
                rig.heal();
            }
            Self::KillMost => {
                for killed in (0..NODES).filter(|node| *node != at) {
                    rig.kill_and_restart(killed).await;
                }
            }
            Self::Pause => {
                let (paused, other) = (&rig.nodes[at], &rig.nodes[(at + 1) % NODES]);
                paused.pause();
                other.shows(&paused.id, "down").await;
                crowd.goes_on(HOLD / 2).await;
                paused.resume();
            }
            Self::EmptyDisk => rig.empty(at, crowd).await,
            Self::FullDisk => {
                if !rig.fill_disk().await {
                    skipped("a full disk", "there is no namespace to mount one in");
                }
            }
            _ => {
                let _ = rig.set_clock(at, rng.random_range(-CLOCK_OFF_MAX..=CLOCK_OFF_MAX));
            }
        }
        crowd.goes_on(HOLD).await;
    }
}

/// Cuts every link between a node in `part` and a node outside of it.
fn cut_between(rig: &mut Rig, part: impl Fn(usize) -> bool) {
    for from in 0..NODES {
        for to in (0..NODES).filter(|to| part(from) != part(*to)) {
            rig.link(from, to, cut);
        }
    }
    rig.rewire();
}
