//! Every schedule of a small world to a depth: the real ledgers, the real merge.
//!
//! A search that deepens step by step and keeps the least depth of each state visits each state at
//! its least depth alone. Each new state is healed and judged. A state is known by 64 bits of its
//! hash, so among 10^7 states the odds are a few in a million that one was passed over.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world_tests::{Kind, Sights, World};

/// What a schedule may still do.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Left {
    writes: u8,
    waits: u8,
    restarts: u8,
    set_backs: u8,
    forgets: u8,
    skews: u8,
    words: u8,
    /// Sessions that are played step by step, at most two at a time.
    stepped: u8,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Write(usize, Kind),
    Deliver(usize),
    /// A whole session between two others' actions: one that is played step by step, shortened.
    Meet(usize, usize),
    Open(usize, usize),
    Step(usize, bool),
    Drop(usize),
    Tell(usize, usize),
    Hear(usize),
    Alone(usize),
    Restart(usize),
    Save(usize),
    SetBack(usize),
    Forget(usize, usize),
    Skew(usize, i64),
    Wait(u64),
}

fn actions(world: &World, left: Left) -> Vec<Action> {
    let mut all = Vec::with_capacity(32);
    for i in 0..world.sessions.len() {
        all.extend([Action::Step(i, false), Action::Drop(i)]);
        if world.at_last_word(i) {
            all.push(Action::Step(i, true));
        }
    }
    all.extend((0..world.pushes.len()).map(Action::Deliver));
    all.extend((0..world.words.len()).map(Action::Hear));
    if left.waits > 0 {
        all.extend([1, 5].map(Action::Wait));
    }
    for n in 0..world.nodes.len() {
        if left.writes > 0 && world.serves(n) {
            all.extend([Kind::Value, Kind::Expiring, Kind::Delete].map(|k| Action::Write(n, k)));
        }
        if left.restarts > 0 {
            all.push(Action::Restart(n));
        }
        if left.set_backs > 0 {
            all.push(if world.has_copy(n) { Action::SetBack(n) } else { Action::Save(n) });
        }
        if left.skews > 0 {
            all.extend([4, 12, -12].map(|ahead| Action::Skew(n, ahead)));
        }
        all.push(Action::Alone(n));
        for other in (0..world.nodes.len()).filter(|other| *other != n) {
            if left.forgets > 0 && world.serves(n) {
                all.push(Action::Forget(n, other));
            }
            if left.words > 0 && world.serves(n) {
                all.push(Action::Tell(n, other));
            }
            if n < other {
                all.push(Action::Meet(n, other));
                if left.stepped > 0 && world.sessions.len() < 2 {
                    all.push(Action::Open(n, other));
                }
            }
        }
    }
    all
}

/// Plays an action; returns false when it does nothing.
fn play(world: &mut World, left: &mut Left, action: Action) -> bool {
    match action {
        Action::Write(n, kind) => {
            left.writes -= 1;
            return world.write(n, kind);
        }
        Action::Deliver(i) => return world.deliver(i).is_some(),
        Action::Meet(a, b) => world.meet(a, b),
        Action::Open(a, b) => {
            left.stepped -= 1;
            world.open(a, b);
        }
        Action::Step(i, cut) => {
            world.step(i, cut);
        }
        Action::Drop(i) => {
            world.sessions.remove(i);
        }
        Action::Tell(from, to) => {
            left.words -= 1;
            return world.tell(from, to);
        }
        Action::Hear(i) => world.hear(i),
        Action::Alone(n) => return world.alone(n),
        Action::Restart(n) => {
            left.restarts -= 1;
            world.restart(n);
        }
        Action::Save(n) => world.save(n),
        Action::SetBack(n) => {
            left.set_backs -= 1;
            return world.set_back(n);
        }
        Action::Forget(by, n) => {
            left.forgets -= 1;
            return world.forget(by, n);
        }
        Action::Skew(n, ahead) => {
            left.skews -= 1;
            world.nodes[n].ahead = ahead;
        }
        Action::Wait(micros) => {
            left.waits -= 1;
            world.now += micros;
        }
    }
    true
}

/// Folds each word into 64 bits by a wide multiplication.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half of a product")]
    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64).rotate_left(23);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A hash is hashed enough.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are hashes");
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The least depth at which a state was met, and the last deepening that went on from it.
#[derive(Clone, Copy)]
struct Met {
    depth: u8,
    passed: u8,
}

#[derive(Default)]
struct Explorer {
    met: HashMap<u64, Met, BuildHasherDefault<Plain>>,
    /// States that differ in what healing ends, such as sessions under way, are healed once.
    healed: HashSet<u64, BuildHasherDefault<Plain>>,
    trail: Vec<Action>,
    /// No more states than these.
    most: usize,
    floor_moved: usize,
    collected: usize,
    began_anew: usize,
    set_back: usize,
}

impl Explorer {
    /// Goes on from a state that `depth` actions led to, until `end`.
    fn explore(&mut self, world: &World, left: Left, depth: u8, end: u8) {
        for action in actions(world, left) {
            if self.met.len() >= self.most {
                return;
            }
            let (mut next, mut next_left) = (world.clone(), left);
            self.trail.push(action);
            if play(&mut next, &mut next_left, action) && self.meets(&next, next_left, depth, end) {
                self.explore(&next, next_left, depth + 1, end);
            }
            self.trail.pop();
        }
    }

    /// Whether to go on from a state that is one action away from `depth`.
    fn meets(&mut self, world: &World, left: Left, depth: u8, end: u8) -> bool {
        let mut fold = Fold::default();
        (world, left).hash(&mut fold);
        let depth = depth + 1;
        if let Some(met) = self.met.get_mut(&fold.finish()) {
            let goes_on = depth < end && met.depth == depth && met.passed < end;
            if goes_on {
                met.passed = end;
            }
            return goes_on;
        }
        self.met.insert(fold.finish(), Met { depth, passed: end });
        self.floor_moved += usize::from(world.seen.floor_moved);
        self.collected += usize::from(world.seen.collected);
        self.began_anew += usize::from(world.seen.began_anew);
        self.set_back += usize::from(world.seen.set_back);
        let mut fold = Fold::default();
        world.hash_healed(&mut fold);
        if self.healed.insert(fold.finish()) {
            world.clone().heal_and_judge();
        }
        depth < end
    }
}

/// A world to begin in, and what may happen in it.
struct Begin {
    name: &'static str,
    world: World,
    left: Left,
    /// The depth in the gate.
    gate: u8,
}

/// Explores step by step, until the depth or the number of states is reached. A fault names its
/// schedule.
fn explored(begin: &mut Begin) -> usize {
    begin.world.seen = Sights::default();
    let named = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let most: usize = named("KVS_MODEL_STATES").unwrap_or(usize::MAX);
    let end = named("KVS_MODEL_DEPTH");
    let end = end.map_or(begin.gate, |depth| u8::try_from(depth).expect("no schedule is as long"));
    let mut explorer = Explorer { most, ..Explorer::default() };
    for depth in 1..=end {
        let before = explorer.met.len();
        let go = || explorer.explore(&begin.world, begin.left, 0, depth);
        let run = catch_unwind(AssertUnwindSafe(go));
        let Explorer { met, floor_moved, collected, began_anew, set_back, trail, .. } = &explorer;
        let part = if met.len() < most { "" } else { " in part" };
        eprintln!(
            "{}: depth {depth}{part}, {} states, a floor had moved in {floor_moved}, a record was \
             collected in {collected}, a disk set back in {set_back}, a node began anew in \
             {began_anew}; {} healed",
            begin.name,
            met.len(),
            explorer.healed.len(),
        );
        assert!(run.is_ok(), "{}: a fault after {} states by {trail:?}", begin.name, met.len());
        if met.len() == before || met.len() >= most {
            break;
        }
    }
    explorer.met.len()
}

const LEFT: Left = Left {
    writes: 3,
    waits: 2,
    restarts: 1,
    set_backs: 1,
    forgets: 1,
    skews: 0,
    words: 1,
    stepped: 2,
};

/// A point was told, the floor moved, and one node's disk was copied before.
fn old_cluster(counted: usize, empty: usize) -> World {
    let mut world = World::new(counted, empty);
    world.save(1);
    for _ in 0..3 {
        world.now += 1;
        for a in 0..counted {
            for b in a + 1..counted {
                world.meet(a, b);
            }
        }
    }
    world
}

/// A value that the first two nodes hold, and whose delete the first has alone.
fn delete_at_hand(mut world: World) -> World {
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.save(1);
    world.now += 1;
    world.write(0, Kind::Delete);
    world
}

#[test]
fn no_schedule_of_two_nodes_breaks_a_promise() {
    let (world, left) = (World::new(2, 0), LEFT);
    explored(&mut Begin { name: "two nodes", world, left, gate: 4 });
}

#[test]
fn no_schedule_of_two_old_nodes_breaks_a_promise() {
    let (world, left) = (old_cluster(2, 0), LEFT);
    explored(&mut Begin { name: "two old nodes", world, left, gate: 4 });
}

#[test]
fn no_schedule_of_two_nodes_with_a_delete_at_hand_breaks_a_promise() {
    let (world, left) = (delete_at_hand(World::new(2, 0)), Left { writes: 1, ..LEFT });
    explored(&mut Begin { name: "two nodes, a delete at hand", world, left, gate: 4 });
}

#[test]
fn no_schedule_of_two_nodes_with_wrong_clocks_breaks_a_promise() {
    let left = Left { skews: 2, forgets: 0, set_backs: 0, ..LEFT };
    let world = World::new(2, 0);
    explored(&mut Begin { name: "two nodes with wrong clocks", world, left, gate: 4 });
}

#[test]
fn no_schedule_of_clocks_and_disks_set_back_breaks_a_promise() {
    let left = Left { skews: 2, forgets: 0, words: 0, writes: 2, ..LEFT };
    let (two, three) = (old_cluster(2, 0), old_cluster(3, 0));
    explored(&mut Begin { name: "two clocks and disks", world: two, left, gate: 3 });
    explored(&mut Begin { name: "three clocks and disks", world: three, left, gate: 2 });
}

#[test]
fn no_schedule_of_two_sets_founded_apart_breaks_a_promise() {
    for lone in [true, false] {
        let mut world = World::new(2, 0);
        world.add_founder(lone);
        let name = if lone { "a pair and one that was alone" } else { "a pair and a set of one" };
        let left = Left { writes: 2, set_backs: 0, forgets: 0, ..LEFT };
        explored(&mut Begin { name, world, left, gate: 3 });
    }
}

#[test]
fn no_schedule_of_three_nodes_breaks_a_promise() {
    let (world, left) = (old_cluster(3, 0), LEFT);
    explored(&mut Begin { name: "three nodes", world, left, gate: 3 });
}

#[test]
fn no_schedule_of_three_nodes_with_a_delete_at_hand_breaks_a_promise() {
    let left = Left { writes: 1, words: 0, stepped: 1, waits: 1, ..LEFT };
    let world = delete_at_hand(World::new(3, 0));
    explored(&mut Begin { name: "three nodes, a delete at hand", world, left, gate: 3 });
}

#[test]
fn no_schedule_of_three_nodes_with_wrong_clocks_breaks_a_promise() {
    let left = Left { skews: 2, forgets: 0, set_backs: 0, words: 0, ..LEFT };
    let world = World::new(3, 0);
    explored(&mut Begin { name: "three nodes with wrong clocks", world, left, gate: 3 });
}

#[test]
fn no_schedule_of_two_nodes_and_a_joiner_breaks_a_promise() {
    let (world, left) = (old_cluster(2, 1), LEFT);
    explored(&mut Begin { name: "two nodes and a joiner", world, left, gate: 3 });
}

#[test]
fn no_schedule_of_a_node_and_two_joiners_breaks_a_promise() {
    let (world, left) = (World::new(1, 2), Left { words: 0, ..LEFT });
    explored(&mut Begin { name: "a node and two joiners", world, left, gate: 3 });
}
