//! What one simulation does and what goes wrong in it: one struct, drawn from the seed.
//!
//! A plan is plain data. It is drawn whole before the run, so that it can be printed and written
//! down as a test. The run itself draws delays, losses and requests from the same seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A year in microseconds.
pub const YEAR_US: i64 = 365 * 24 * HOUR_US;
/// An hour in microseconds.
pub const HOUR_US: i64 = 3600 * 1_000_000;
/// Longer than clocks are ever set forward.
pub const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const SHORT: Duration = Duration::from_secs(3);

/// Everything about one simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all that the run draws.
    pub seed: u64,
    /// The number of nodes; each joins through the first two.
    pub nodes: usize,
    /// How many of them start at the beginning; the others come by [`Event::Join`].
    pub founders: usize,
    pub noise: Noise,
    pub load: Load,
    /// Whether fresh commits are pushed; without, sessions move all records.
    pub push: bool,
    /// How many commits a slow peer can be behind before it misses pushes.
    pub push_queue_max: usize,
    /// The longest that a group waits for a healthy disk.
    pub disk_ms_max: u64,
    /// How far ahead of its clock a node dates a write, and how far back its clock can be set
    /// without reviving an expired value.
    pub clock_drift_max: Duration,
    /// How long requests with a request id are remembered, and in how many bytes.
    pub idempotency_window: Duration,
    pub idempotency_bytes_max: u64,
    /// How many earlier revisions of a key are stored.
    pub history_depth: u32,
    /// Whether commits reach the disk at once (`durability = "sync"`), or survive only a kill.
    pub synced: bool,
    /// How far the wall clock of each node is off at the beginning, in microseconds.
    pub skews: Vec<i64>,
    /// How long faults and clients go on.
    pub lasting: Duration,
    /// The faults and their times, ascending.
    pub events: Vec<(Duration, Event)>,
}

/// The faults of the network that go on all the time.
#[derive(Clone, Debug)]
pub struct Noise {
    /// The share of datagrams that get lost; lost chunks of streams are sent again.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplicated: f64,
    /// The share of datagrams that take ten times as long, so that others overtake them.
    pub overtaken: f64,
    /// The chance of each chunk that its connection breaks.
    pub broken: f64,
    /// The longest ordinary delay.
    pub delay_ms_max: u64,
}

impl Noise {
    /// A network without faults.
    pub fn quiet() -> Self {
        Self { loss: 0.0, duplicated: 0.0, overtaken: 0.0, broken: 0.0, delay_ms_max: 5 }
    }
}

/// What the clients of each node do.
#[derive(Clone, Debug)]
pub struct Load {
    pub clients: usize,
    pub keys: u32,
    /// The longest that a client waits between two requests.
    pub pause_ms_max: u64,
    /// The share of values that are large.
    pub large: f64,
    /// The share of values that expire, or keep the end of the value that they replace.
    pub ending: f64,
    /// The share of requests that are transactions.
    pub txns: f64,
    /// The share of requests with a request id, which can be retried.
    pub named: f64,
    /// The share of a client's turns in which it retries an earlier request of any client.
    pub retried: f64,
}

/// A fault at one moment, and how long it lasts. Nodes are named by their slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing gets from one node to another, while the way back is open.
    OneWay { from: usize, to: usize, lasting: Duration },
    /// The nodes whose bits are set are cut off from the others.
    Halves { mask: u32, lasting: Duration },
    /// One node is cut off from all others.
    Isolated { at: usize, lasting: Duration },
    /// Each node in turn is cut off from all others.
    Rolling { each: Duration },
    /// A link comes and goes.
    Flapping { a: usize, b: usize, each: Duration, times: u32 },
    /// No connection gets to or from a node, while gossip passes.
    Blocked { at: usize, lasting: Duration },
    /// A node stands still: no traffic gets in or out, and its disk and its clients wait.
    Paused { at: usize, lasting: Duration },
    /// A process is killed, and started again later.
    Killed { at: usize, absent: Duration },
    /// A process is killed, and its disk forgets what it had not synced.
    PowerLost { at: usize, absent: Duration },
    /// A process stops in order, and is started again later.
    Stopped { at: usize, absent: Duration },
    /// A process is killed, and comes back as a new node with an empty disk.
    Emptied { at: usize, absent: Duration },
    /// Someone copies the disk of a node.
    Copied { at: usize },
    /// A process is killed, and its disk is set back to the copy.
    SetBack { at: usize, absent: Duration },
    /// An operator lets `by` forget `whom` for good, wherever that one is.
    Forgotten { by: usize, whom: usize },
    /// A node leaves the cluster in order, if others hold its writes, and is started again later.
    Left { at: usize, absent: Duration },
    /// The next commit fails; with `applied` it takes place all the same.
    CommitFails { at: usize, applied: bool },
    /// One change within a transaction fails, after `after` others.
    ChangeFails { at: usize, after: u32 },
    /// The disk cannot be read.
    Unreadable { at: usize, lasting: Duration },
    /// The disk takes up to `ms_max` for a group.
    Slow { at: usize, lasting: Duration, ms_max: u64 },
    /// The wall clock is set.
    ClockStep { at: usize, by_us: i64 },
    /// A new node joins.
    Join { at: usize },
}

impl Plan {
    /// Whether no two clocks are ever further apart than the cluster expects.
    pub fn clocks_agree(&self) -> bool {
        let mut shown = self.skews.clone();
        let (mut least, mut most) = (shown.iter().min().copied(), shown.iter().max().copied());
        for (_, event) in &self.events {
            if let Event::ClockStep { at, by_us } = event {
                shown[*at] += by_us;
                (least, most) = (least.min(Some(shown[*at])), most.max(Some(shown[*at])));
            }
        }
        let apart = most.unwrap_or_default().abs_diff(least.unwrap_or_default());
        Duration::from_micros(apart) <= self.clock_drift_max
    }

    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = *pick(&mut rng, &[2, 3, 3, 3, 4, 5, 7]);
        let founders = rng.random_range(1.max(nodes / 2)..=nodes);
        let push = rng.random_bool(0.8);
        // Sometimes a long run, in which nodes are absent for long.
        let lasting = Duration::from_secs(*pick(&mut rng, &[10, 20, 20, 30, 30, 120]));
        let mut plan = Self {
            seed,
            nodes,
            founders,
            noise: Noise::draw(&mut rng),
            load: Load::draw(&mut rng, push, lasting),
            push,
            push_queue_max: *pick(&mut rng, &[2, 16, 64]),
            disk_ms_max: *pick(&mut rng, &[0, 2, 10]),
            clock_drift_max: Duration::from_secs(*pick(&mut rng, &[2, 5, 10])),
            idempotency_window: *pick(&mut rng, &[SHORT, FOR_EVER, FOR_EVER, FOR_EVER]),
            idempotency_bytes_max: *pick(&mut rng, &[4 << 10, 1 << 30, 1 << 30, 1 << 30, 1 << 30]),
            history_depth: *pick(&mut rng, &[0, 1, 3, 3, 8]),
            synced: rng.random_bool(0.8),
            skews: (0..nodes).map(|_| draw_skew(&mut rng)).collect(),
            lasting,
            events: Vec::new(),
        };
        plan.events = plan.draw_events(&mut rng);
        plan
    }

    fn draw_events(&self, rng: &mut StdRng) -> Vec<(Duration, Event)> {
        let seconds = self.lasting.as_secs();
        let count = rng.random_range(0..=seconds.min(30));
        // Each seed has favourites, so that some seeds see much of one kind.
        let favourites: [u32; 4] = std::array::from_fn(|_| rng.random_range(0..KINDS));
        let mut events: Vec<_> = (0..count)
            .map(|_| {
                let at = Duration::from_millis(rng.random_range(0..seconds * 1000));
                let favourite = rng.random_bool(0.6);
                let kind =
                    if favourite { *pick(rng, &favourites) } else { rng.random_range(0..KINDS) };
                (at, self.draw_event(rng, kind))
            })
            .collect();
        for at in self.founders..self.nodes {
            let when = Duration::from_millis(rng.random_range(0..seconds * 1000));
            events.push((when, Event::Join { at }));
        }
        events.extend(self.draw_block());
        events.extend(self.draw_removals());
        events.sort_by_key(|(at, _)| *at);
        events
    }

    /// Sometimes a node that loses its disk while nobody can connect to it. Drawn apart, so that it
    /// changes nothing else in the plan of a seed.
    fn draw_block(&self) -> Vec<(Duration, Event)> {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(7));
        if !rng.random_bool(0.3) {
            return Vec::new();
        }
        let at = rng.random_range(0..self.nodes);
        let begin = Duration::from_millis(rng.random_range(0..self.lasting.as_secs() * 500));
        let lasting = Duration::from_secs(rng.random_range(1..40));
        let absent = Duration::from_millis(rng.random_range(10..12_000));
        let emptied = rng.random_bool(0.7).then_some((begin, Event::Emptied { at, absent }));
        [(begin, Event::Blocked { at, lasting })].into_iter().chain(emptied).collect()
    }

    /// Sometimes a disk that is set back, or a member that is forgotten. Drawn apart, too.
    fn draw_removals(&self) -> Vec<(Duration, Event)> {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_mul(37).wrapping_add(11));
        let millis = self.lasting.as_secs() * 1000;
        let mut events = Vec::new();
        if rng.random_bool(0.3) {
            let at = rng.random_range(0..self.nodes);
            let copied = rng.random_range(0..millis * 3 / 4);
            let set_back = rng.random_range(copied..millis);
            let absent = Duration::from_millis(rng.random_range(10..5_000));
            events.push((Duration::from_millis(copied), Event::Copied { at }));
            events.push((Duration::from_millis(set_back), Event::SetBack { at, absent }));
        }
        for _ in 0..*pick(&mut rng, &[0, 0, 1, 2]) {
            let by = rng.random_range(0..self.nodes);
            let whom = (by + rng.random_range(1..self.nodes)) % self.nodes;
            let at = Duration::from_millis(rng.random_range(0..millis));
            events.push((at, Event::Forgotten { by, whom }));
        }
        if rng.random_bool(0.4) {
            let at = rng.random_range(0..self.nodes);
            let absent = Duration::from_millis(rng.random_range(10..5_000));
            let when = Duration::from_millis(rng.random_range(0..millis));
            events.push((when, Event::Left { at, absent }));
        }
        events
    }

    fn draw_event(&self, rng: &mut StdRng, kind: u32) -> Event {
        let at = rng.random_range(0..self.nodes);
        let other = (at + rng.random_range(1..self.nodes)) % self.nodes;
        let longest = self.lasting.as_secs() * 400;
        let lasting = Duration::from_millis(rng.random_range(100..longest));
        let absent = Duration::from_millis(rng.random_range(10..longest));
        let short = Duration::from_millis(rng.random_range(50..3_000));
        match kind {
            0 => Event::OneWay { from: at, to: other, lasting },
            1 => Event::Halves { mask: rng.random_range(1..(1 << self.nodes) - 1), lasting },
            2 => Event::Isolated { at, lasting },
            3 => Event::Rolling { each: short },
            4 => Event::Flapping { a: at, b: other, each: short, times: rng.random_range(2..10) },
            5 => Event::Paused { at, lasting: lasting / 2 },
            6 => Event::Killed { at, absent },
            7 => Event::PowerLost { at, absent },
            8 => Event::Stopped { at, absent },
            9 => Event::Emptied { at, absent },
            10 => Event::CommitFails { at, applied: rng.random() },
            11 => Event::Unreadable { at, lasting: lasting / 2 },
            12 => Event::Slow { at, lasting, ms_max: rng.random_range(10..2_000) },
            13 => Event::ChangeFails { at, after: rng.random_range(0..10) },
            _ => Event::ClockStep { at, by_us: draw_step(rng) },
        }
    }
}

/// How many kinds of events are drawn; joins are added to them.
const KINDS: u32 = 15;

impl Noise {
    fn draw(rng: &mut StdRng) -> Self {
        // Most seeds have little of each kind, some have much.
        let mut part = |most: f64| {
            let scale = *pick(rng, &[0.0, 0.1, 0.3, 1.0]);
            rng.random_range(0.0..=1.0) * scale * most
        };
        let (loss, duplicated, overtaken, broken) = (part(0.5), part(0.3), part(0.3), part(0.02));
        Self { loss, duplicated, overtaken, broken, delay_ms_max: *pick(rng, &[1, 5, 30, 100]) }
    }
}

impl Load {
    fn draw(rng: &mut StdRng, push: bool, lasting: Duration) -> Self {
        // Without push, and in long runs, clients write less, so that sessions get their turn.
        let calm = !push || lasting > Duration::from_secs(60);
        Self {
            clients: rng.random_range(1..4),
            keys: *pick(rng, &[1, 10, 40, 40, 300]),
            pause_ms_max: if calm { 400 } else { *pick(rng, &[20, 50, 100]) },
            large: *pick(rng, &[0.0, 0.02, 0.1]),
            ending: *pick(rng, &[0.0, 0.1, 0.4]),
            txns: *pick(rng, &[0.0, 0.2, 0.5]),
            named: *pick(rng, &[0.0, 0.2, 0.6]),
            retried: *pick(rng, &[0.0, 0.1, 0.2]),
        }
    }
}

/// Most clocks are nearly right, some are off, and a few are off by a year.
fn draw_skew(rng: &mut StdRng) -> i64 {
    match rng.random_range(0..30) {
        0 => *pick(rng, &[-YEAR_US, YEAR_US]),
        1..4 => rng.random_range(-120_000_000..120_000_000),
        _ => rng.random_range(-500_000..500_000),
    }
}

fn draw_step(rng: &mut StdRng) -> i64 {
    match rng.random_range(0..6) {
        0 => *pick(rng, &[-YEAR_US, YEAR_US]),
        5 => rng.random_range(-5 * HOUR_US..5 * HOUR_US),
        1 => rng.random_range(-120_000_000..120_000_000),
        _ => rng.random_range(-2_000_000..2_000_000),
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}
