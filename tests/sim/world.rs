//! Runs one plan: nodes, clients and faults, with the auditor at every step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvs::clock::Source as _;
use kvs::config::Config;
use kvs::model::{Header, Key, MemberState, Prefix, Timestamp, Version};
use kvs::proto::digest::{Digest, ElementKey};
use kvs::proto::secret::Secret;
use kvs::proto::stability::WhyGone;
use kvs::proto::stability::floor::goes_at;
use kvs::store::engine::Family;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::Instant;

use crate::audit::{Audit, Replay, Rules, Tally as Audited};
use crate::client::{Client, lock, look};
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::faults::Action;
use crate::network::{Network, Tally};
use crate::node::{BLOB_THRESHOLD_BYTES, Common, Node, Source, Up, address};
use crate::panics;
use crate::plan::{FOR_EVER, Plan};
use crate::story::Story;

/// How often the auditor checks all nodes.
const STEP: Duration = Duration::from_millis(500);
/// How long the nodes can take to agree after the faults, in virtual time: a suspicion, the waits
/// of dialers, and a few rounds of sessions.
const AGREE: Duration = Duration::from_secs(90);
/// How long they must then stay unchanged.
const STAY: Duration = Duration::from_secs(10);

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash of everything that happened.
    pub trace: String,
    /// What the auditor counted.
    pub audited: Audited,
    /// Acknowledged writes that lost a merge against a write that did not know them, as their nodes
    /// report.
    pub lost_merges: u64,
    /// What the network counted.
    pub network: Tally,
    /// How many times each kind of fault took place.
    pub faults: BTreeMap<&'static str, u64>,
    /// How long the nodes took to agree after the faults.
    pub agreed_after: Duration,
    /// How many ends of a wait for first data were checked against a node that served.
    pub waits_ended: u64,
    /// How many keys had a record that some node held back after the faults.
    pub held_keys: u64,
}

pub struct World {
    pub plan: Plan,
    pub common: Common,
    pub nodes: Vec<Node>,
    /// Copies of disks, and what their nodes had met by then.
    pub copies: BTreeMap<usize, (Disk, Replay)>,
    pub audit: Arc<Mutex<Audit>>,
    pub rng: StdRng,
    pub start: Instant,
    pub faults: BTreeMap<&'static str, u64>,
    /// The actions to come, by their times and then in the order in which they were added.
    pub agenda: BTreeMap<(Instant, u64), Action>,
    pub decided: u64,
    /// How many ends of a wait for first data were checked.
    waits_ended: RefCell<u64>,
}

/// Runs one plan to its end.
///
/// # Panics
/// When a promise does not hold; the message has the story.
pub fn run(plan: Plan) -> Outcome {
    panics::watch();
    let seed = plan.seed;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let guard = SeedOnPanic(seed);
    // Made inside of the runtime, where time is virtual.
    let outcome = runtime.block_on(async { World::new(plan).run().await });
    drop(guard);
    outcome
}

struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: KVS_SIM_SEED={0} cargo test --test sim one_seed", self.0);
        }
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        // Not the generator that drew the plan, so that a written-down plan plays the same.
        let mut rng = StdRng::seed_from_u64(!plan.seed);
        let start = Instant::now();
        let mut entropy = [0; 64];
        rng.fill_bytes(&mut entropy);
        let mut config = Config::defaults().expect("valid defaults");
        config.sync.interval = Duration::from_secs(2);
        config.sync.bootstrap_wait = Duration::from_secs(1);
        config.sync.push = plan.push;
        config.sync.push_queue_max = plan.push_queue_max;
        config.sync.clock_drift_max = plan.clock_drift_max;
        config.limits.idempotency_window = plan.idempotency_window;
        config.limits.idempotency_bytes_max = plan.idempotency_bytes_max;
        config.revision_history_depth = plan.history_depth;
        let nodes = (0..plan.nodes).map(|slot| {
            let clock = SimClock::new(start, plan.skews[slot], StdRng::from_rng(&mut rng));
            let disk = Disk::watched(plan.synced, clock.clone());
            Node::new(slot, clock, disk, plan.disk_ms_max)
        });
        let nodes: Vec<Node> = nodes.collect();
        let clocks = nodes.iter().map(|node| node.clock.clone()).collect();
        let remembers_little = plan.idempotency_bytes_max < 1 << 20;
        let rules = Rules {
            clock_drift_max: plan.clock_drift_max,
            // a small memory may forget what a clock that was set makes look old
            remembers: plan.idempotency_window == FOR_EVER && !remembers_little,
            remembers_little,
            history_depth: plan.history_depth,
        };
        let common = Common {
            network: Network::new(rng.random(), plan.noise.clone()),
            config,
            secret: Arc::new(Secret::from_entropy(entropy)),
            seeds: (0..2).map(|slot| address(slot).to_string()).collect(),
        };
        let mut story = Story::new(start);
        story.add(None, format!("{plan:?}"));
        let audit = Arc::new(Mutex::new(Audit::new(story, clocks, rules)));
        let (faults, agenda, copies) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let waits_ended = RefCell::default();
        Self {
            plan,
            common,
            nodes,
            copies,
            audit,
            rng,
            start,
            faults,
            agenda,
            decided: 0,
            waits_ended,
        }
    }

    pub fn network(&self) -> &Network {
        &self.common.network
    }

    /// Adds a line about nodes and network to the trace and the story.
    pub fn report(&self, text: String) {
        self.network().note(&text);
        lock(&self.audit).story.add(None, text);
    }

    async fn run(mut self) -> Outcome {
        (0..self.plan.founders).for_each(|slot| self.start(slot));
        for (at, event) in self.plan.events.clone() {
            self.plan_at(self.start + at, Action::Begin(event));
        }
        self.trouble().await;
        self.end_faults().await;
        let (mut agreed_after, mut held_keys) = (Duration::ZERO, 0);
        let held = self.held_keys();
        if let Some(latest) = held.values().max().copied() {
            held_keys = held.len() as u64;
            self.report(format!("{held_keys} keys have records that are held back"));
            // unless a newcomer waits, as it holds back what every member has
            let settled = self.settled_held(held.keys());
            if !settled {
                agreed_after = self.wait_until(Self::all_agree_on_the_rest).await;
            }
            // unless the time of one comes meanwhile
            if !settled && self.first_held(held.keys()) > self.horizon().plus(AGREE) {
                let claimed = self.claimed_where_held(held.keys());
                self.stay(Self::all_agree_on_the_rest).await;
                self.nothing_was_claimed(&claimed);
            }
            self.audit_all();
            self.report("the time of the held records comes".to_owned());
            self.set_clocks_right(latest);
        }
        agreed_after = agreed_after.max(self.wait_until(Self::all_agree).await);
        self.stay(Self::all_agree).await;
        self.wait_until_the_dead_are_gone().await;
        self.audit_all();
        self.audit_the_end().await;
        let fingerprint = self.up().map(|up| up.store.fingerprint()).next();
        self.network().note(&format!("{fingerprint:?} {agreed_after:?}"));
        let audit = lock(&self.audit);
        let stands = |key: &Key| Some(self.held_by_first(key)?.version);
        let lost = self.nodes.iter().filter_map(|node| {
            let id = node.up.as_ref()?.identity.node;
            Some(audit.nothing_is_lost_in_silence(node.slot, id, stands))
        });
        let (audited, lost_merges) = (audit.tally, lost.sum());
        let (trace, network) = (self.network().trace(), self.network().tally());
        let waits_ended = *self.waits_ended.borrow();
        let faults = self.faults.clone();
        Outcome {
            trace,
            audited,
            lost_merges,
            network,
            faults,
            agreed_after,
            waits_ended,
            held_keys,
        }
    }

    /// Runs faults and clients until their time is over.
    async fn trouble(&mut self) {
        let end = self.start + self.plan.lasting;
        let mut look = Instant::now();
        while Instant::now() < end {
            let next = self.agenda.first_key_value().map_or(end, |((at, _), _)| *at);
            tokio::time::sleep_until(next.min(look).min(end)).await;
            while let Some(entry) = self.agenda.first_entry()
                && entry.key().0 <= Instant::now()
            {
                let action = entry.remove();
                self.act(action).await;
            }
            self.check_panics();
            self.start_anew();
            if Instant::now() >= look {
                self.audit_all();
                look = Instant::now() + STEP;
            }
        }
    }

    /// Ends the processes of nodes that have left, and starts those again that begin anew under
    /// another id.
    fn start_anew(&mut self) {
        for slot in 0..self.plan.nodes {
            let left = |up: &Up| up.left.lock().expect("one thread").take();
            if let Some(absent) = self.nodes[slot].up.as_ref().and_then(left) {
                self.take_down(slot);
                self.report(format!("node {slot} has left"));
                *self.faults.entry("left in order").or_default() += 1;
                if Instant::now() < self.start + self.plan.lasting {
                    self.plan_after(absent, Action::Start(slot));
                } else {
                    self.start_with(slot, 0);
                }
            }
            let begun = |up: &Up| up.store.has_other_identity();
            if self.nodes[slot].up.as_ref().is_some_and(begun) {
                let clients = self.nodes[slot].up.as_ref().map_or(0, |up| up.clients.len());
                self.take_down(slot);
                self.report(format!("node {slot} begins anew"));
                self.start_with(slot, clients.min(self.plan.load.clients));
            }
        }
    }

    /// Ends all faults. Nodes that are up stay up: they must recover by themselves.
    async fn end_faults(&mut self) {
        self.report("all faults end".to_owned());
        self.agenda.clear();
        self.common.network.heal();
        for slot in 0..self.plan.nodes {
            self.nodes[slot].disk.heal();
            let quick = self.plan.disk_ms_max;
            self.nodes[slot].disk_ms_max.store(quick, std::sync::atomic::Ordering::Relaxed);
            if let Some(up) = &mut self.nodes[slot].up {
                up.stop_clients().await;
            }
        }
        self.check_panics();
        for slot in 0..self.plan.nodes {
            if self.nodes[slot].up.is_none() {
                self.start_with(slot, 0);
            }
        }
        self.set_clocks_right(Timestamp::ZERO);
        // the operator's word for those that were founded apart
        for node in &self.nodes {
            node.may_join.send_replace(true);
        }
        self.agenda.clear();
    }

    /// Sets all clocks nearly right, and late enough for all nodes to agree on which values have
    /// expired: a value whose bytes a node that was ahead has swept can reach others only when it
    /// has expired there too. Not before `earliest`.
    fn set_clocks_right(&self, earliest: Timestamp) {
        let over = |node: &Node| {
            let latest = node.clock.latest();
            let keys = lock(&self.audit).keys();
            let headers = keys.iter().filter_map(|key| self.held_by(node, key));
            let ends = headers.filter_map(|header| header.expires_at);
            ends.filter(|at| *at <= latest).max()
        };
        let over = self.nodes.iter().filter_map(over).max().unwrap_or_default().max(earliest);
        for (node, skew) in self.nodes.iter().zip(&self.plan.skews) {
            node.clock.set_right(over, *skew % 500_000);
            lock(&self.audit).clock_set(node.slot);
        }
    }

    /// The greatest timestamp that every node merges now.
    fn horizon(&self) -> Timestamp {
        let now = self.nodes.iter().map(|node| node.clock.now()).min().unwrap_or_default();
        now.plus(self.plan.clock_drift_max)
    }

    /// The keys of which a node has a record that others hold back.
    fn held_keys(&self) -> BTreeMap<Key, Timestamp> {
        let horizon = self.horizon();
        let latest = |key: &Key| {
            let held = self.nodes.iter().filter_map(|node| self.held_by(node, key));
            held.map(|header| header.version.timestamp).max()
        };
        let keys = lock(&self.audit).keys().into_iter();
        let keys = keys.filter_map(|key| Some((latest(&key)?, key)));
        keys.filter(|(at, _)| *at > horizon).map(|(at, key)| (key, at)).collect()
    }

    /// The least timestamp of the records of these `keys` that are held back: of one key, nodes may
    /// hold several.
    fn first_held<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Timestamp {
        let horizon = self.horizon();
        let held = keys.flat_map(|key| self.nodes.iter().map(|node| self.held_by(node, key)));
        let held = held.flatten().map(|header| header.version.timestamp);
        held.filter(|at| *at > horizon).min().unwrap_or(Timestamp::MAX)
    }

    /// Whether a node has told that all members hold what it wrote at such a time.
    fn settled_held<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> bool {
        let told = self.up().map(|up| up.store.ledger().told.0).max();
        told >= Some(self.first_held(keys))
    }

    /// Up to which point each node claims to hold all of each other one between which and itself
    /// records of these `keys` are held back.
    fn claimed_where_held<'a>(
        &self,
        keys: impl Iterator<Item = &'a Key> + Clone,
    ) -> BTreeMap<(usize, usize), Timestamp> {
        let shown =
            |node: &Node| keys.clone().map(|key| self.held_by(node, key)).collect::<Vec<_>>();
        let shown: Vec<_> = self.nodes.iter().map(shown).collect();
        let mut claimed = BTreeMap::new();
        for (a, of_a) in shown.iter().enumerate() {
            for b in (0..shown.len()).filter(|b| shown[*b] != *of_a) {
                let (Some(own), Some(other)) = (&self.nodes[a].up, &self.nodes[b].up) else {
                    continue;
                };
                claimed.insert((a, b), own.store.ledger().holds_of(other.identity.node));
            }
        }
        claimed
    }

    /// Checks that no session has led to a claim since, as each held something back.
    fn nothing_was_claimed(&self, claimed: &BTreeMap<(usize, usize), Timestamp>) {
        for ((a, b), before) in claimed {
            let (Some(own), Some(other)) = (&self.nodes[*a].up, &self.nodes[*b].up) else {
                continue;
            };
            let now = own.store.ledger().holds_of(other.identity.node);
            if now > *before {
                let what = format!(
                    "node {a} claims to hold all of node {b} up to {now:?}, although one of the \
                     two holds records back"
                );
                lock(&self.audit).violated(None, &what);
            }
        }
    }

    /// Waits until the nodes agree, as `agree` judges it.
    async fn wait_until(&mut self, agree: fn(&Self) -> bool) -> Duration {
        let healed = Instant::now();
        while !agree(self) {
            self.check_panics();
            self.start_anew();
            if healed.elapsed() > AGREE / 2 {
                // nodes that begin anew can wait for members whose disks are lost
                self.forget_the_lost().await;
            }
            if healed.elapsed() > AGREE {
                let what = format!("the nodes do not agree:\n{}", self.describe());
                lock(&self.audit).violated(None, &what);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        healed.elapsed()
    }

    /// Checks that nodes which `agree` stay unchanged and move no more records.
    async fn stay(&mut self, agree: fn(&Self) -> bool) {
        // Lets transfers end that were under way when the nodes came to agree. What the former life
        // of a node had sent may reach some of the others, and a session brings it to the rest.
        tokio::time::sleep(STAY / 2).await;
        self.wait_until(agree).await;
        let moved = self.records_moved();
        let before = self.living();
        let end = Instant::now() + STAY;
        while Instant::now() < end {
            self.check_panics();
            // While a sweep is on its way to the disk, its node is not settled, but it shows the
            // same records.
            let agree = agree(self) || !self.up().all(Up::is_settled) || self.all_live_equal();
            let (moves, is_same) = (self.records_moved() - moved, self.living() == before);
            if !agree || moves > 0 || !is_same {
                let what = format!(
                    "nodes that agreed go on changing (agree: {agree}, {moves} records moved, \
                     same values: {is_same}):\n{}",
                    self.describe()
                );
                lock(&self.audit).violated(None, &what);
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// What the first node holds, but for the dead: these go, at each node in its time.
    fn living(&self) -> BTreeMap<Key, Version> {
        self.nodes.first().map(|node| self.living_at(node)).unwrap_or_default()
    }

    /// What a node holds that no floor passes.
    fn living_at(&self, node: &Node) -> BTreeMap<Key, Version> {
        let keys = lock(&self.audit).keys();
        let held = |key: Key| Some((key.clone(), self.held_by(node, &key)?));
        let lives = |(_, header): &(Key, Header)| goes_at(header).is_none();
        let version = |(key, header): (Key, Header)| (key, header.version);
        keys.into_iter().filter_map(held).filter(lives).map(version).collect()
    }

    /// Whether all hold the same that no floor passes, but for what some hold back.
    fn all_live_equal(&self) -> bool {
        let held = self.held_keys();
        let lives_at = |node: &Node| {
            let mut living = self.living_at(node);
            living.retain(|key, _| !held.contains_key(key));
            living
        };
        let living: Vec<_> = self.nodes.iter().map(lives_at).collect();
        living.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn holds_dead(&self, node: &Node, before: Timestamp) -> bool {
        let keys = lock(&self.audit).keys();
        let held = keys.iter().filter_map(|key| self.held_by(node, key));
        held.filter_map(|header| goes_at(&header)).any(|at| at.0 < before)
    }

    /// Forgets the members whose disks are lost, as an operator does: each pins what is dead.
    async fn forget_the_lost(&self) {
        let ids: BTreeSet<_> = self.up().map(|up| up.store.ledger().id).collect();
        for up in self.up() {
            let ledger = up.store.ledger();
            let members = ledger.set.iter().flat_map(|set| set.members());
            let lost: Vec<_> = members.filter(|id| !ids.contains(id)).collect();
            for id in lost {
                // one that stops or cannot write is asked again
                if up.store.remove_member(id, WhyGone::Forgotten).await.is_ok() {
                    self.report(format!("{id} is forgotten at {}", ledger.id));
                }
            }
        }
    }

    /// Waits until no node holds anything dead.
    async fn wait_until_the_dead_are_gone(&mut self) {
        let began = Instant::now();
        // What a clock had written that was far ahead goes when that time has come.
        let now = self.nodes.iter().map(|node| node.clock.now()).min().unwrap_or_default();
        while self.nodes.iter().any(|node| self.holds_dead(node, now)) {
            self.check_panics();
            self.start_anew();
            self.forget_the_lost().await;
            if began.elapsed() > AGREE {
                let what = format!("what is dead does not go:\n{}", self.describe());
                lock(&self.audit).violated(None, &what);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn records_moved(&self) -> u64 {
        let counted = |up: &Up| {
            let received = [("direction", "received")];
            let pushed = up.metrics.push_records.get_or_create(&received).get();
            let in_sessions = up.metrics.sync_records.get_or_create(&received).get();
            // what is dead may be given by a node whose floor has not passed it yet
            pushed + in_sessions - up.metrics.merges_below_floor.get()
        };
        self.up().map(counted).sum()
    }

    /// Starts a node with its clients.
    pub fn start(&mut self, slot: usize) {
        self.start_with(slot, self.plan.load.clients);
    }

    fn start_with(&mut self, slot: usize, clients: usize) {
        let node = &mut self.nodes[slot];
        if !node.start(&self.common, self.audit.clone(), &mut self.rng) {
            // Tries again later, as a supervisor does.
            self.plan_at(Instant::now() + STEP, Action::Start(slot));
            return;
        }
        // None of its tasks has run yet.
        self.audit_start(slot);
        let sources = self.sources(slot);
        if let Some(up) = &mut self.nodes[slot].up {
            up.sources = sources;
        }
        for _ in 0..clients {
            let rng = StdRng::from_rng(&mut self.rng);
            let (audit, network) = (self.audit.clone(), self.common.network.clone());
            let disk = self.nodes[slot].disk.clone();
            let Some(up) = &mut self.nodes[slot].up else { continue };
            let client = Client {
                store: up.store.clone(),
                disk,
                audit,
                network,
                rng,
                slot,
                nodes: self.plan.nodes,
                load: self.plan.load.clone(),
                no_more: up.no_more.clone(),
                syncing: up.syncing.clone(),
            };
            up.clients.spawn(client.run());
        }
        let id = self.nodes[slot].up.as_ref().map(|up| up.identity.node.to_string());
        self.report(format!("node {slot} starts as {}", id.unwrap_or_default()));
    }

    /// What the other nodes hold, if the node waits for its first data and all others serve.
    fn sources(&self, slot: usize) -> Vec<Source> {
        let waits = |up: &&Up| *up.syncing.borrow();
        if self.nodes[slot].up.as_ref().filter(waits).is_none() {
            return Vec::new();
        }
        let keys = lock(&self.audit).keys();
        let source = |node: &Node| {
            // What was committed and is not published yet, sessions do not see.
            let up = node.up.as_ref().filter(|up| !waits(up) && up.is_settled())?;
            if !node.disk.is_readable() {
                return None;
            }
            // One that ends may have lost its bytes.
            let lasts = |header: &Header| header.expires_at.is_none();
            let version =
                |key: &Key| Some((key.clone(), self.held_by(node, key).filter(lasts)?.version));
            let held = keys.iter().filter_map(version).collect();
            Some(Source { id: up.identity.node, process: up.metrics.clone(), held })
        };
        let others = self.nodes.iter().filter(|node| node.slot != slot && node.up.is_some());
        // One that does not serve yet may do so soon, and be the one that it gets all from.
        others.map(source).collect::<Option<_>>().unwrap_or_default()
    }

    /// Checks that a node which has ended its wait for first data holds all that one of the others
    /// held, where these are still the same and it saw each of them up and serving then.
    fn audit_wait(&self, node: &Node, up: &Up) {
        let full = up.full.lock().expect("one thread").take().unwrap_or_default();
        let runs = |source: &Source| {
            let same = |other: &Up| Arc::ptr_eq(&other.metrics, &source.process);
            full.contains(&source.id) && self.up().any(same)
        };
        let others = self.up().count() - 1;
        let all = up.sources.len() == others && full.len() == others;
        // A node drops the bytes of a value that has ended, and one whose clock is behind does not
        // take it so.
        let judged = all && others > 0 && up.sources.iter().all(runs) && self.plan.clocks_agree();
        // One that saw nobody when it decided to go on alone met the others a moment later.
        let ledger = up.store.ledger();
        if !judged || ledger.lone || !ledger.counted {
            return;
        }
        let has = |(key, version): (&Key, &Version)| {
            let held = self.held_by(node, key);
            held.is_some_and(|header| header.version >= *version)
                || lock(&self.audit).is_collected(key, *version)
        };
        if !up.sources.iter().any(|source| source.held.iter().all(has)) {
            let lacks = |source: &Source| {
                source.held.iter().find(|held| !has(*held)).map(|(key, at)| (key.clone(), *at))
            };
            let lacks: Vec<_> = up.sources.iter().map(lacks).collect();
            let what = format!(
                "node {} serves without the data of {full:?}, which it sees: {lacks:?}\n{}",
                node.slot,
                self.describe()
            );
            let about = lacks.iter().flatten().next().map(|(key, _)| key.clone());
            lock(&self.audit).violated(about.as_ref(), &what);
        }
        *self.waits_ended.borrow_mut() += 1;
    }

    /// Kills the process; returns whether it was up.
    pub fn take_down(&mut self, slot: usize) -> bool {
        let was_up = self.nodes[slot].up.take().is_some();
        self.common.network.detach(address(slot));
        was_up
    }

    fn check_panics(&self) {
        if panics::seen() {
            lock(&self.audit).violated(None, "a task of a node has panicked, see above");
        }
        // A node whose storage failed goes on by itself.
        if self.up().any(Up::has_ended) {
            lock(&self.audit).violated(None, "the writer of a node has ended");
        }
    }

    pub fn up(&self) -> impl Iterator<Item = &Up> {
        self.nodes.iter().filter_map(|node| node.up.as_ref())
    }

    /// Whether each node serves, sees all others alive, and holds the same records.
    fn all_agree(&self) -> bool {
        self.all_show_the_same(|_, up| up.store.fingerprint())
    }

    /// Whether each node serves, sees all others alive, and holds the same records of all keys, but
    /// for the records that some node holds back.
    fn all_agree_on_the_rest(&self) -> bool {
        let (held, keys, horizon) = (self.held_keys(), lock(&self.audit).keys(), self.horizon());
        let is_far = |held: &Header| held.version.timestamp > horizon;
        let agree_on = |key: &Key| {
            let shown = self.nodes.iter().map(|node| self.held_by(node, key));
            let timely: Vec<_> = shown.filter(|held| !held.as_ref().is_some_and(is_far)).collect();
            timely.windows(2).all(|pair| pair[0] == pair[1])
        };
        if !held.keys().all(agree_on) {
            return false;
        }
        let rest: Vec<_> = keys.into_iter().filter(|key| !held.contains_key(key)).collect();
        self.all_show_the_same(|node, _| {
            let record = |key: &Key| Some((key.clone(), self.held_by(node, key)?));
            self.fingerprint(&rest.iter().filter_map(record).collect())
        })
    }

    fn all_show_the_same(&self, print: impl Fn(&Node, &Up) -> [u8; 32]) -> bool {
        let seen = |id| self.up().all(|up| up.sees(id) == Some(MemberState::Alive));
        if !self.up().all(|up| seen(up.identity.node)) {
            return false;
        }
        let serves = |up: &&Up| !*up.syncing.borrow() && up.is_settled();
        let print = |node: &Node| node.up.as_ref().filter(serves).map(|up| print(node, up));
        let prints: Vec<_> = self.nodes.iter().map(print).collect();
        prints.iter().all(|print| print.is_some() && *print == prints[0])
    }

    fn describe(&self) -> String {
        let describe = |node: &Node| match &node.up {
            Some(up) => {
                let (counts, syncing) = (up.store.counts(), *up.syncing.borrow());
                let sees: Vec<_> = self.up().map(|other| up.sees(other.identity.node)).collect();
                let peers = up.peers.borrow().clone();
                let errors: Vec<_> =
                    peers.values().map(|peer| (peer.reach, peer.error.clone())).collect();
                let ledger = up.store.ledger();
                let set = ledger.set.as_ref().map(|set| set.members().collect::<Vec<_>>());
                format!(
                    "node {}: {counts:?}, syncing: {syncing}, sees {sees:?}, errors {errors:?}, \
                     counted: {}, lone: {}, floor {:?}, point {:?}, told {:?}, stable {:?}, \
                     set {set:?}",
                    node.slot,
                    ledger.counted,
                    ledger.lone,
                    ledger.floor,
                    ledger.point,
                    ledger.told,
                    ledger.stable()
                )
            }
            None => format!("node {} is down", node.slot),
        };
        self.nodes.iter().map(describe).collect::<Vec<_>>().join("\n")
    }

    /// Checks the invariants of each node, and what it shows for each key against all promises.
    fn audit_all(&mut self) {
        for node in self.nodes.iter().filter(|node| node.disk.is_readable()) {
            let Some(up) = &node.up else { continue };
            let check = || up.store.check_invariants(up.is_settled());
            if catch_unwind(AssertUnwindSafe(check)).is_err() {
                let what = format!("an invariant of node {} does not hold, see above", node.slot);
                lock(&self.audit).violated(None, &what);
            }
            let held = self.audit_node(node.slot, up);
            lock(&self.audit).shows_whole(node.slot, &held);
            if up.is_settled() && up.store.fingerprint() != self.fingerprint(&held) {
                let what = format!("the digest of node {} is wrong", node.slot);
                lock(&self.audit).violated(None, &what);
            }
        }
        for node in self.nodes.iter().filter(|node| node.disk.is_readable()) {
            if let Some(up) = &node.up {
                self.audit_wait(node, up);
            }
        }
    }

    /// The fingerprint of these records.
    fn fingerprint(&self, held: &BTreeMap<Key, Header>) -> [u8; 32] {
        let key = ElementKey::new(&self.common.secret.digest_key());
        let mut digest = Digest::new(key.clone());
        for (at, header) in held {
            digest.append(at.as_bytes(), &key.element(at.as_bytes(), &header.hash()));
        }
        digest.root().fingerprint()
    }

    /// Checks what one node shows for each key; returns its records.
    fn audit_node(&self, slot: usize, up: &Up) -> BTreeMap<Key, Header> {
        let mut audit = lock(&self.audit);
        let commits = self.nodes[slot].disk.commits(audit.replayed(slot));
        audit.follow_commits(slot, up.identity.node, commits);
        let (mut held, mut dead) = (BTreeMap::new(), 0);
        for key in audit.keys() {
            let (record, live) = look(&up.store, &key).expect("the disk can be read");
            audit.looked(slot, &key, record.as_ref(), live.as_ref());
            let Some(record) = record else { continue };
            audit.is_timely(slot, up.identity.node, &key, &record.header);
            dead += u64::from(live.is_none());
            held.insert(key, record.header);
        }
        let page = up.store.superseded_now(&Prefix::all(), None, usize::MAX, usize::MAX);
        audit.reports(slot, page.expect("the disk can be read"));
        let counts = up.store.counts();
        let live = held.len() as u64 - dead;
        if up.is_settled() && (counts.keys, counts.tombstones) != (live, dead) {
            let what = format!("node {slot} counts {counts:?}, not {live} and {dead}");
            audit.violated(None, &what);
        }
        held
    }

    /// Checks that nothing reaches a peer before it is durable at its origin: records that others
    /// have from a starting node must be on its disk before another node gives them back. (A disk
    /// that forgets what it had not synced can lose them.)
    fn audit_start(&self, slot: usize) {
        let Some(up) = &self.nodes[slot].up else { return };
        // What the node itself has stored.
        lock(&self.audit).starts(slot);
        let held = self.audit_node(slot, up);
        lock(&self.audit).starts_whole(slot, &held);
        let lost_nothing = self.plan.synced && !self.nodes[slot].was_set_back;
        let Some(up) = self.nodes[slot].up.as_ref().filter(|_| lost_nothing) else { return };
        let audit = lock(&self.audit);
        for other in self.nodes.iter().filter(|node| node.slot != slot && node.disk.is_readable()) {
            for key in audit.keys() {
                let theirs = self.held_by(other, &key).filter(|h| h.origin == up.identity.node);
                let Some(theirs) = theirs.map(|header| header.version) else { continue };
                let held = self.held_by(&self.nodes[slot], &key).map(|header| header.version);
                if held.max(audit.gone(slot, &key)) < Some(theirs) {
                    let (other, what) = (other.slot, "and the node that wrote it does not");
                    audit.violated(Some(&key), &format!("node {other} has {theirs:?}, {what}"));
                }
            }
        }
    }

    fn held_by(&self, node: &Node, key: &Key) -> Option<Header> {
        let up = node.up.as_ref()?;
        Some(up.store.record_now(key).expect("the disk can be read")?.header)
    }

    fn held_by_first(&self, key: &Key) -> Option<Header> {
        self.held_by(self.nodes.first()?, key)
    }

    async fn audit_the_end(&self) {
        let keys = lock(&self.audit).keys();
        for key in &keys {
            lock(&self.audit).stands_at_the_end(key, self.held_by_first(key).as_ref());
        }
        for node in &self.nodes {
            // a value may expire, and be swept, while the others are counted
            let mut attempts = 0;
            while !self.audit_what_is_kept(node, &keys).await {
                attempts += 1;
                assert!(attempts < 100, "the values of node {} never rest", node.slot);
            }
        }
    }

    /// Compares revisions and large values of a node with what it was asked to keep; answers
    /// whether no large value was freed meanwhile, so that they could be counted.
    async fn audit_what_is_kept(&self, node: &Node, keys: &BTreeSet<Key>) -> bool {
        let Some(up) = &node.up else { return true };
        let (kept, mut apart) = (node.disk.count(Family::Values), 0);
        for key in keys {
            let current = up.store.record_now(key).expect("the disk can be read");
            let revisions = up.store.history(key, usize::MAX, u64::MAX).await;
            let revisions = revisions.expect("the disk can be read");
            lock(&self.audit).recalled(node.slot, key, current.as_ref(), &revisions);
            let bodies = revisions.iter().filter_map(|revision| revision.body.as_ref());
            apart += bodies.filter(|body| body.len() >= BLOB_THRESHOLD_BYTES).count();
        }
        if kept != node.disk.count(Family::Values) {
            return false;
        }
        if kept != apart {
            let what = format!("node {} stores {kept} large values, not {apart}", node.slot);
            lock(&self.audit).violated(None, &what);
        }
        true
    }
}
