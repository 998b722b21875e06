//! Every schedule of a small world to a depth: the real ledgers, the real merge.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world_tests::{Kind, World};

/// What a schedule may still do.
#[derive(Clone, Copy, Debug, Hash)]
struct Left {
    writes: u8,
    restarts: u8,
    set_backs: u8,
    forgets: u8,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Write(usize, Kind),
    Deliver(usize),
    Open(usize, usize),
    Step(usize, bool),
    Restart(usize),
    Save(usize),
    SetBack(usize),
    Forget(usize, usize),
    Wait,
}

struct Explorer {
    known: HashMap<u128, u8>,
    trail: Vec<Action>,
    healed: u64,
}

fn actions(world: &World, left: Left) -> Vec<Action> {
    let nodes = 0..world.nodes.len();
    let mut all: Vec<_> = (0..world.sessions.len())
        .flat_map(|i| [Action::Step(i, false), Action::Step(i, true)])
        .chain((0..world.pushes.len()).map(Action::Deliver))
        .chain([Action::Wait])
        .collect();
    for n in nodes.clone() {
        if left.writes > 0 {
            all.extend([Kind::Value, Kind::Expiring, Kind::Delete].map(|k| Action::Write(n, k)));
        }
        if left.restarts > 0 {
            all.push(Action::Restart(n));
        }
        if left.set_backs > 0 {
            all.extend([Action::Save(n), Action::SetBack(n)]);
        }
        for other in nodes.clone().filter(|other| *other != n) {
            if left.forgets > 0 && world.serves(n) {
                all.push(Action::Forget(n, other));
            }
            if n < other && world.sessions.len() < 2 {
                all.push(Action::Open(n, other));
            }
        }
    }
    all
}

fn play(world: &mut World, left: &mut Left, action: Action) -> bool {
    match action {
        Action::Write(n, kind) => {
            left.writes -= 1;
            return world.write(n, kind);
        }
        Action::Deliver(i) => return world.deliver(i).is_some(),
        Action::Open(a, b) => world.open(a, b),
        Action::Step(i, cut) => {
            world.step(i, cut);
        }
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
            world.forget(by, n);
        }
        Action::Wait => world.now += 5,
    }
    true
}

fn name(world: &World, left: Left) -> u128 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let build = BuildHasherDefault::<DefaultHasher>::default();
    let high = build.hash_one((0_u8, world, left));
    let low = build.hash_one((1_u8, world, left));
    (u128::from(high) << 64) | u128::from(low)
}

impl Explorer {
    /// Goes on to `depth` more actions, and heals the world at the end of each schedule.
    fn explore(&mut self, world: &World, left: Left, depth: u8) {
        let known = self.known.entry(name(world, left)).or_insert(u8::MAX);
        if *known != u8::MAX && *known >= depth {
            return;
        }
        *known = depth;
        if depth == 0 {
            self.healed += 1;
            world.clone().heal_and_judge();
            return;
        }
        for action in actions(world, left) {
            let (mut next, mut next_left) = (world.clone(), left);
            self.trail.push(action);
            if play(&mut next, &mut next_left, action) {
                self.explore(&next, next_left, depth - 1);
            }
            self.trail.pop();
        }
    }
}

/// Explores and returns the number of distinct states; a fault names its schedule.
fn explored(world: &World, left: Left, depth: u8) -> usize {
    let mut explorer = Explorer { known: HashMap::new(), trail: Vec::new(), healed: 0 };
    let run = catch_unwind(AssertUnwindSafe(|| explorer.explore(world, left, depth)));
    let states = explorer.known.len();
    eprintln!("{states} distinct states to depth {depth}, {} healed", explorer.healed);
    assert!(run.is_ok(), "a fault after {states} states by {:?}", explorer.trail);
    states
}

const LEFT: Left = Left { writes: 2, restarts: 1, set_backs: 1, forgets: 1 };

/// A depth for the gate, or the one that `KVS_MODEL_DEPTH` names.
fn depth(gate: u8) -> u8 {
    std::env::var("KVS_MODEL_DEPTH").ok().and_then(|text| text.parse().ok()).unwrap_or(gate)
}

#[test]
fn no_schedule_of_two_nodes_breaks_a_promise() {
    let left = Left { forgets: 0, ..LEFT };
    assert!(explored(&World::new(2, 0), left, depth(4)) > 1_000);
}

#[test]
fn no_schedule_of_two_nodes_and_a_joiner_breaks_a_promise() {
    assert!(explored(&World::new(2, 1), LEFT, depth(3)) > 1_000);
}

#[test]
fn no_schedule_that_begins_with_a_delete_at_hand_breaks_a_promise() {
    let mut world = World::new(2, 0);
    world.save(1);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.write(0, Kind::Delete);
    world.meet(0, 1);
    let left = Left { writes: 1, forgets: 0, ..LEFT };
    assert!(explored(&world, left, depth(4)) > 1_000);
}
