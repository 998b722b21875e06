//! The schedules that stability must survive, each told as a story.

use super::floor::Arrival;
use super::world_tests::{Kind, World, at};
use super::*;
use crate::model::NodeId;

/// Two nodes hold and delete the key, and meet until the tombstone is gone from both.
fn deleted_and_collected(world: &mut World) {
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.write(0, Kind::Delete);
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.nodes[0].held.is_none(), "the tombstone went on the first node");
    assert!(world.nodes[1].held.is_none(), "the tombstone went on the second node");
}

#[test]
fn a_push_delayed_past_collection_is_refused() {
    let mut world = World::new(2, 0);
    deleted_and_collected(&mut world);
    assert_eq!(world.deliver(0), Some(Arrival::BelowFloor));
    world.heal_and_judge();
}

#[test]
fn a_member_that_is_away_pins_the_dead() {
    let mut world = World::new(3, 0);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    // the push to the third node arrives, and it is away since
    world.deliver(1);
    assert!(world.nodes[2].held.is_some());
    world.write(0, Kind::Delete);
    for _ in 0..5 {
        world.meet(0, 1);
    }
    assert!(world.nodes[0].held.is_some(), "the third node has not seen the delete");
    world.heal_and_judge();
}

#[test]
fn what_one_side_collected_the_other_drops_before_it_compares() {
    let mut world = World::new(2, 0);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.now += 1;
    world.write(0, Kind::Delete);
    for (a, b) in [(0, 1), (1, 0)] {
        world.open(a, b);
        while world.step(0, true) {}
    }
    // only one of the two hears what the other told
    world.tell(0, 1);
    world.report(1, 0);
    assert!(world.nodes[0].held.is_none() && world.nodes[1].held.is_some());
    world.open(0, 1);
    world.step(0, false);
    assert!(world.nodes[1].held.is_none());
    world.heal_and_judge();
}

#[test]
fn a_rewound_node_begins_anew_under_a_new_id() {
    let mut world = World::new(2, 0);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.save(1);
    let before = world.nodes[1].ledger.id;
    world.write(0, Kind::Delete);
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.set_back(1));
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert_ne!(world.nodes[1].ledger.id, before);
    assert!(world.nodes[1].ledger.counted, "it follows the other and is counted again");
    world.heal_and_judge();
}

#[test]
fn a_copy_of_before_anything_was_told_takes_no_push_of_its_last_life() {
    let mut world = World::new(2, 0);
    world.save(0);
    world.write(0, Kind::Value);
    assert!(world.set_back(0));
    world.meet(0, 1);
    assert_eq!(world.deliver(0), None, "the push names a start that the set no longer names");
    world.heal_and_judge();
}

#[test]
fn a_floor_is_not_adopted_before_it_is_judged() {
    let mut world = World::new(2, 0);
    world.save(1);
    deleted_and_collected(&mut world);
    assert!(world.set_back(1));
    let floor = world.nodes[1].ledger.floor;
    let word = world.nodes[0].ledger.introduce(at(world.now));
    assert_eq!(world.nodes[1].ledger.unite(&word), None);
    assert_eq!(world.nodes[1].ledger.floor, floor);
    world.heal_and_judge();
}

#[test]
fn a_healthy_node_passes_when_two_openings_overtake_each_other() {
    let mut world = World::new(2, 0);
    world.write(0, Kind::Value);
    let ids = [world.nodes[0].ledger.id, world.nodes[1].ledger.id];
    world.restart(1);
    world.open(0, 1);
    world.meet(1, 0);
    world.meet(1, 0);
    world.meet(1, 0);
    while !world.sessions.is_empty() {
        world.step(0, false);
    }
    assert_eq!(ids, [world.nodes[0].ledger.id, world.nodes[1].ledger.id]);
    world.heal_and_judge();
}

#[test]
fn a_joiner_is_counted_only_when_its_source_told_nothing_new() {
    let mut world = World::new(2, 1);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.open(2, 0);
    world.step(0, false);
    world.step(0, false);
    world.now += 1;
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(!world.step(0, false));
    assert!(!world.nodes[2].ledger.counted, "the source told a greater stable meanwhile");
    world.meet(2, 0);
    assert!(world.nodes[2].ledger.counted, "it goes over it once more");
    world.heal_and_judge();
}

#[test]
fn sets_come_to_agree_on_a_newcomer_that_two_sources_entered() {
    let mut world = World::new(2, 1);
    world.open(2, 0);
    while world.step(0, true) {}
    assert!(!world.nodes[2].ledger.counted, "it did not hear that it was entered");
    world.meet(2, 1);
    assert!(world.nodes[2].ledger.counted);
    // judges that sets are equal and floors move
    world.heal_and_judge();
}

#[test]
fn a_set_that_changes_in_a_session_bars_the_claim() {
    let mut world = World::new(2, 1);
    world.write(0, Kind::Value);
    world.open(0, 1);
    for _ in 0..3 {
        world.step(0, false);
    }
    world.meet(2, 0);
    let before = world.nodes[1].ledger.stable();
    world.step(0, false);
    assert_eq!(world.nodes[1].ledger.stable(), before);
    world.heal_and_judge();
}

#[test]
fn a_session_with_a_member_that_is_forgotten_ends_at_once() {
    let mut world = World::new(3, 0);
    world.write(1, Kind::Value);
    world.open(0, 1);
    world.step(0, false);
    world.forget(0, 1);
    assert!(!world.step(0, false));
    assert!(world.nodes[0].held.is_none());
    world.heal_and_judge();
}

#[test]
fn a_forgotten_node_that_returns_learns_it_and_stays_out() {
    let mut world = World::new(3, 0);
    world.forget(0, 1);
    world.meet(0, 2);
    world.write(1, Kind::Value);
    world.meet(2, 1);
    assert_eq!(world.nodes[1].ledger.gone(), Some(WhyGone::Forgotten));
    assert!(!world.serves(1));
    world.heal_and_judge();
}

#[test]
fn a_node_that_leaves_says_so_itself_and_nobody_waits_for_it() {
    let mut world = World::new(3, 0);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    let own = world.nodes[0].ledger.id;
    world.nodes[0].ledger.remove(own, WhyGone::Left);
    world.meet(1, 0);
    let gone = |set: &Option<DurableSet>| set.as_ref().and_then(|set| set.gone.get(&own).copied());
    assert_eq!(gone(&world.nodes[1].ledger.set), Some(WhyGone::Left));
    // the third node gets the write, and the news, from the second
    world.meet(1, 2);
    assert_eq!(gone(&world.nodes[2].ledger.set), Some(WhyGone::Left));
    assert!(world.nodes[2].held.is_some());
    world.now += 1;
    world.write(1, Kind::Delete);
    for _ in 0..3 {
        world.meet(1, 2);
    }
    assert!(world.nodes[1].held.is_none() && world.nodes[2].held.is_none());
    world.heal_and_judge();
}

#[test]
fn clocks_that_disagree_tell_no_point_and_claim_nothing() {
    let mut world = World::new(2, 0);
    let mut word = world.nodes[0].ledger.introduce(at(world.now));
    word.clock = at(world.now + 11);
    let now = at(world.now);
    let judged = world.nodes[1].ledger.judge(&word, now, super::world_tests::DRIFT);
    assert_eq!(judged, Judgement::Compare { claims: false });
    let begin = world.nodes[1].ledger.begin(false, now).unwrap().ledger_is_durable();
    assert_eq!(begin.point, None);
    let claim = world.nodes[0].ledger.hear_begin(begin);
    let last = world.nodes[1].ledger.last_word(&claim);
    assert!(!world.nodes[0].ledger.finish(&claim, last));
}

#[test]
fn a_barred_session_claims_nothing() {
    for why in [Bar::HeldBack, Bar::Replaced] {
        let mut world = World::new(2, 0);
        let now = at(world.now);
        let begin = world.nodes[1].ledger.begin(true, now).unwrap().ledger_is_durable();
        let mut claim = world.nodes[0].ledger.hear_begin(begin);
        let word = LastWord { set: world.nodes[1].ledger.set_name() };
        assert!(world.nodes[0].ledger.clone().finish(&claim, word));
        claim.bar(why);
        assert!(!world.nodes[0].ledger.finish(&claim, word));
    }
}

#[test]
fn a_lone_node_with_a_floor_of_now_is_the_newcomer_of_a_cluster() {
    let mut world = World::new(2, 0);
    deleted_and_collected(&mut world);
    let lone = world.add_founder(false);
    world.now += 50;
    world.alone(lone);
    let ids = [world.nodes[0].ledger.id, world.nodes[1].ledger.id];
    world.meet(lone, 0);
    world.meet(lone, 0);
    assert_eq!(ids, [world.nodes[0].ledger.id, world.nodes[1].ledger.id]);
    assert!(world.nodes[lone].ledger.counted);
    world.heal_and_judge();
}

#[test]
fn a_node_that_met_none_of_its_seeds_moves_no_floor_and_keeps_its_id() {
    let mut world = World::new(2, 0);
    let lone = world.add_founder(true);
    let id = world.nodes[lone].ledger.id;
    world.write(lone, Kind::Value);
    world.alone(lone);
    assert_eq!(world.nodes[lone].ledger.floor, Floor::default());
    world.meet(lone, 0);
    world.meet(lone, 0);
    world.meet(lone, 0);
    assert_eq!(world.nodes[lone].ledger.id, id);
    assert!(world.nodes[0].held.is_some(), "what it wrote merged");
    world.heal_and_judge();
}

#[test]
fn a_write_is_stamped_above_a_point_although_the_clock_stands_still() {
    let mut world = World::new(2, 0);
    let now = at(world.now);
    let begin = world.nodes[0].ledger.begin(true, now).unwrap().ledger_is_durable();
    assert!(world.nodes[0].ledger.next_timestamp(now, None) > begin.point.unwrap().0);
}

#[test]
fn two_nodes_whose_source_died_bring_each_other_what_they_have() {
    let mut world = World::new(1, 2);
    world.write(0, Kind::Value);
    world.open(1, 0);
    world.step(0, false);
    world.step(0, false);
    world.sessions.clear();
    world.meet(2, 1);
    for n in [1, 2] {
        assert_eq!(world.nodes[n].held, world.nodes[0].held);
        assert!(!world.nodes[n].ledger.counted);
        assert_eq!(world.nodes[n].ledger.stable(), Stable::default(), "nothing is claimed");
    }
    world.found(1);
    world.meet(2, 1);
    assert!(world.serves(1) && world.serves(2));
}

/// A node that is set back to when a value lived, and begins anew, and an empty node.
fn a_dead_value_held_by_a_newcomer() -> World {
    let mut world = World::new(2, 1);
    world.write(0, Kind::Value);
    world.meet(0, 1);
    world.save(1);
    world.write(0, Kind::Delete);
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.set_back(1));
    world.meet(0, 1);
    assert!(!world.nodes[1].ledger.counted && world.nodes[1].held.is_some());
    world
}

#[test]
fn what_a_newcomer_took_from_another_is_judged_when_it_follows() {
    let mut world = a_dead_value_held_by_a_newcomer();
    world.meet(1, 2);
    assert_eq!(world.nodes[2].held, world.nodes[1].held);
    world.meet(2, 0);
    assert!(world.nodes[2].ledger.counted);
    assert!(world.nodes[2].held.is_none(), "the dead value is set aside");
    world.heal_and_judge();
}

#[test]
fn what_a_newcomer_takes_from_another_ends_the_follow_that_has_judged_already() {
    let mut world = a_dead_value_held_by_a_newcomer();
    world.open(2, 0);
    world.step(0, false);
    world.step(0, false);
    world.meet(1, 2);
    assert!(world.nodes[2].held.is_some(), "it came after the follow set aside");
    world.step(0, false);
    assert!(!world.nodes[2].ledger.counted);
    world.heal_and_judge();
}

#[test]
fn an_exchange_ends_when_one_of_the_two_follows_a_source() {
    let mut world = a_dead_value_held_by_a_newcomer();
    world.open(1, 2);
    world.step(0, false);
    world.open(2, 0);
    world.step(1, false);
    world.step(1, false);
    while world.step(0, false) {}
    assert!(world.nodes[2].held.is_none(), "the exchange is one of before the follow");
    world.heal_and_judge();
}

#[test]
fn a_newcomer_does_not_follow_whom_it_knows_to_be_forgotten() {
    let mut world = World::new(3, 0);
    world.save(1);
    for _ in 0..3 {
        world.meet(0, 2);
        world.meet(1, 2);
        world.meet(0, 1);
    }
    assert!(world.set_back(1));
    world.forget(0, 2);
    world.meet(0, 1);
    assert!(!world.nodes[1].ledger.counted);
    world.nodes[1].ledger.remove(NodeId::from_u128(3), WhyGone::Forgotten);
    world.meet(1, 2);
    assert!(!world.nodes[1].ledger.counted);
    assert_eq!(world.nodes[2].ledger.gone(), Some(WhyGone::Forgotten), "and it hears of it");
    world.heal_and_judge();
}

#[test]
fn an_id_that_is_gone_is_remembered_no_longer() {
    let mut world = World::new(3, 0);
    world.meet(0, 1);
    let id = world.nodes[1].ledger.id;
    let before = world.nodes[0].ledger.clone();
    assert_ne!(before.last_told(id), super::ledger::LastTold::default());
    world.forget(0, 1);
    assert_eq!(world.nodes[0].ledger.last_told(id), super::ledger::LastTold::default());
    let word = StableTold {
        id,
        set: world.nodes[0].ledger.set_name().unwrap(),
        stable: Stable::default(),
        told: Stable(at(7)),
    };
    world.nodes[0].ledger.hear(&word);
    assert_eq!(world.nodes[0].ledger.last_told(id), super::ledger::LastTold::default());
}

#[test]
fn words_may_be_late_repeated_and_overtake_each_other() {
    let mut world = World::new(2, 0);
    for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        world.meet(0, 1);
        world.tell(from, to);
        world.now += 1;
    }
    let name = world.nodes[0].ledger.set_name();
    let floor = world.nodes[0].ledger.floor;
    assert!(floor > Floor::default());
    // the last words first, then all of them again
    for i in (0..world.words.len()).rev().chain(0..world.words.len()) {
        world.hear(i);
    }
    assert_eq!(world.nodes[0].ledger.floor, floor);
    world.write(1, Kind::Value);
    world.restart(1);
    world.report(1, 0);
    world.meet(0, 1);
    assert_ne!(world.nodes[0].ledger.set_name(), name);
    let ledger = world.nodes[0].ledger.clone();
    for i in 0..world.words.len() {
        if Some(world.words[i].1.set) == name {
            world.hear(i);
        }
    }
    assert_eq!(world.nodes[0].ledger, ledger, "what was told for an earlier set is passed over");
    world.heal_and_judge();
}

#[test]
fn a_write_between_commit_and_digest_is_in_no_point() {
    let mut world = World::new(2, 0);
    let header = world.commit(0, Kind::Value).unwrap();
    // the writer takes the point of a session after what it committed is in the digest
    world.put(0, header);
    world.meet(0, 1);
    world.meet(0, 1);
    world.heal_and_judge();
}

#[test]
#[should_panic(expected = "nodes disagree")]
fn a_point_taken_between_commit_and_digest_loses_the_write() {
    let mut world = World::new(2, 0);
    let header = world.commit(0, Kind::Value).unwrap();
    world.meet(0, 1);
    world.meet(0, 1);
    world.put(0, header);
    world.heal_and_judge();
}

#[test]
fn a_record_replaced_between_list_and_request_bars_the_claim() {
    let mut world = World::new(3, 0);
    world.nodes[0].ahead = 4;
    world.meet(0, 2);
    world.meet(0, 1);
    world.write(2, Kind::Value);
    world.meet(1, 2);
    world.open(0, 1);
    world.step(0, false);
    // the first node has the list, and asks for what the second has replaced
    world.write(1, Kind::Value);
    while world.step(0, false) {}
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        world.report(from, to);
    }
    // the only node that had what replaced it is gone
    world.forget(0, 1);
    world.forget(2, 1);
    world.heal_and_judge();
}

#[test]
fn a_record_held_back_until_its_time_bars_the_claim() {
    let mut world = World::new(3, 0);
    (world.nodes[0].ahead, world.nodes[1].ahead, world.nodes[2].ahead) = (10, 10, 8);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.meet(a, b);
    }
    // two clocks are set back; the third goes on ahead of them
    world.nodes[0].ahead = -8;
    world.nodes[1].ahead = 0;
    world.write(2, Kind::Value);
    world.meet(1, 2);
    world.meet(0, 1);
    assert!(world.nodes[1].held.is_some() && world.nodes[0].held.is_none());
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        world.report(from, to);
    }
    world.heal_and_judge();
}

#[test]
fn a_node_whose_clock_was_far_ahead_writes_as_soon_as_it_is_right() {
    let mut world = World::new(2, 0);
    world.nodes[1].ahead = 50;
    for _ in 0..3 {
        world.meet(0, 1);
    }
    world.nodes[1].ahead = 0;
    assert!(world.write(1, Kind::Value), "no point of the wrong clock was told");
    world.heal_and_judge();
}

#[test]
fn a_set_back_node_that_meets_first_who_remembers_too_little_is_known_by_the_next() {
    let mut world = World::new(3, 0);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.meet(a, b);
    }
    world.save(1);
    // the third node is away, and hears nothing of the second's next point
    world.now += 5;
    world.meet(0, 1);
    let (id, point) = (world.nodes[1].ledger.id, world.nodes[1].ledger.point);
    assert!(world.set_back(1));
    assert!(world.nodes[1].ledger.point < point);
    world.now += 5;
    world.meet(1, 2);
    world.meet(1, 2);
    assert!(world.nodes[1].ledger.id == id && world.nodes[1].ledger.counted, "nobody noticed");
    assert!(world.nodes[1].ledger.point > point, "its numbers are fresh");
    world.meet(1, 0);
    world.meet(1, 0);
    assert!(!world.nodes[1].ledger.counted, "the first node remembers");
    world.heal_and_judge();
}

#[test]
fn a_joiner_whose_bootstrap_was_cut_compares_again() {
    for source in [0, 1] {
        let mut world = World::new(2, 1);
        world.write(0, Kind::Value);
        world.meet(0, 1);
        world.open(2, 0);
        world.step(0, false);
        world.step(0, false);
        assert!(world.nodes[2].held.is_some());
        world.sessions.clear();
        world.write(0, Kind::Delete);
        for _ in 0..3 {
            world.meet(0, 1);
        }
        assert!(world.nodes[0].held.is_none() && world.nodes[1].held.is_none());
        world.meet(2, source);
        assert!(world.nodes[2].ledger.counted);
        assert!(world.nodes[2].held.is_none(), "what it took before the cut is set aside");
        world.heal_and_judge();
    }
}

#[test]
fn a_newcomer_is_bounded_by_what_its_source_told() {
    let mut world = World::new(3, 0);
    world.save(1);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.meet(a, b);
    }
    let (source, third) = (&world.nodes[0].ledger, &world.nodes[2].ledger);
    assert!(source.told.0 > source.floor.0, "the source told more than its floor");
    assert_eq!(third.floor.0, source.told.0, "a floor was reached by it");
    assert!(world.set_back(1));
    assert!(world.write(1, Kind::Value), "stamped as if nothing had been told");
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.nodes[1].ledger.counted);
    assert!(world.nodes[1].held.is_none(), "it is set aside and reported");
    world.heal_and_judge();
}

#[test]
fn a_newcomer_inherits_what_its_source_told() {
    let mut world = World::new(2, 1);
    world.now += 5;
    for _ in 0..3 {
        world.meet(0, 1);
    }
    world.nodes[2].ahead = -4;
    world.meet(2, 0);
    assert!(world.nodes[2].ledger.counted);
    world.write(2, Kind::Value);
    world.meet(2, 1);
    assert!(world.nodes[1].held.is_some(), "its stamp lies above the floor of the others");
    world.heal_and_judge();
}

#[test]
fn a_newcomer_gives_nothing_before_it_is_counted() {
    let mut world = a_dead_value_held_by_a_newcomer();
    world.open(1, 0);
    world.step(0, false);
    world.step(0, false);
    assert!(world.nodes[0].held.is_none());
    world.heal_and_judge();
}

#[test]
fn a_push_of_before_a_node_began_anew_is_refused() {
    let mut world = World::new(2, 0);
    world.write(1, Kind::Value);
    world.meet(0, 1);
    world.save(1);
    world.write(1, Kind::Delete);
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.set_back(1));
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.nodes[1].ledger.counted);
    for i in 0..world.pushes.len() {
        assert!(world.deliver(i).is_none_or(|arrival| arrival == Arrival::BelowFloor));
    }
    world.heal_and_judge();
}

#[test]
fn a_floor_stays_when_its_node_starts_again() {
    let mut world = World::new(2, 0);
    deleted_and_collected(&mut world);
    for n in [0, 1, 0] {
        // judges that the floor stays
        world.restart(n);
        world.meet(0, 1);
    }
    world.heal_and_judge();
}

#[test]
fn what_a_forgotten_node_wrote_reaches_nobody() {
    let mut world = World::new(3, 0);
    world.forget(0, 1);
    world.meet(0, 2);
    world.write(1, Kind::Value);
    world.meet(1, 0);
    for i in 0..world.pushes.len() {
        assert_eq!(world.deliver(i), None);
    }
    world.meet(1, 2);
    assert!(world.nodes[0].held.is_none() && world.nodes[2].held.is_none());
    world.heal_and_judge();
}

#[test]
fn the_smaller_of_two_sets_gives_way_whatever_the_floors_say() {
    let mut world = World::new(2, 0);
    deleted_and_collected(&mut world);
    world.write(0, Kind::Value);
    let lone = world.add_founder(false);
    world.now += 50;
    world.alone(lone);
    assert!(world.nodes[lone].ledger.floor > world.nodes[0].ledger.floor);
    let sets = [0, 1].map(|n| world.nodes[n].ledger.set.clone());
    world.open(0, lone);
    world.step(0, false);
    assert_eq!([0, 1].map(|n| world.nodes[n].ledger.set.clone()), sets);
    assert!(!world.nodes[lone].ledger.counted);
    world.heal_and_judge();
}

#[test]
fn an_expired_value_goes_when_the_floor_has_passed_its_end() {
    let mut world = World::new(2, 0);
    world.write(0, Kind::Expiring);
    let (written, ends) = (Floor(at(world.now)), Floor(at(world.now + 3)));
    let held = world.nodes[0].held.clone().unwrap();
    assert_eq!(super::floor::goes_at(&held), Some(ends));
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.nodes[0].ledger.floor >= written, "the floor has passed the write alone");
    assert!(world.nodes[0].held.is_some() && world.nodes[1].held.is_some());
    world.now += 3;
    for _ in 0..3 {
        world.meet(0, 1);
    }
    assert!(world.nodes[0].held.is_none() && world.nodes[1].held.is_none());
    world.heal_and_judge();
}

#[test]
fn whoever_was_entered_by_a_node_that_is_gone_begins_anew() {
    let mut world = World::new(3, 1);
    for _ in 0..2 {
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            world.meet(a, b);
        }
    }
    world.forget(1, 0);
    world.meet(1, 2);
    // one of the two that go on has told more than its floor, which the other has reached
    world.now += 5;
    for (a, b) in [(1, 2), (2, 1)] {
        world.open(a, b);
        while world.step(0, true) {}
    }
    world.tell(2, 0);
    world.report(1, 2);
    let [one, other] = [1, 2].map(|n| world.nodes[n].ledger.clone());
    assert!(one.told.0 > one.floor.0 && other.floor.0 == one.told.0);
    // the one that is gone does not know of it
    world.nodes[0].ahead = -4;
    assert!(world.write(0, Kind::Value));
    world.meet(3, 0);
    assert!(world.nodes[3].ledger.counted && world.nodes[3].held.is_some());
    world.meet(3, 1);
    assert!(!world.nodes[3].ledger.counted, "nobody who is a member entered it");
    assert!(world.nodes[1].held.is_none());
    world.heal_and_judge();
}

#[test]
fn a_disk_set_back_under_a_clock_that_is_behind_is_noticed() {
    let mut world = World::new(3, 0);
    world.save(1);
    // its last start has a time that the clock reaches only later
    world.nodes[1].ahead = 9;
    world.restart(1);
    world.nodes[1].ahead = 0;
    for (a, b) in [(0, 1), (0, 2)] {
        world.open(a, b);
        world.step(0, false);
        world.sessions.clear();
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.meet(a, b);
    }
    let (source, third) = (&world.nodes[0].ledger, &world.nodes[2].ledger);
    assert!(source.told.0 > source.floor.0 && third.floor.0 == source.told.0);
    assert!(world.set_back(1));
    let known = world.nodes[0].ledger.set.as_ref().unwrap().joined[&world.nodes[1].ledger.id];
    assert!(world.nodes[1].ledger.start < known.start);
    assert!(world.write(1, Kind::Value), "stamped as if nothing had been told");
    world.meet(0, 1);
    assert!(world.nodes[0].held.is_none(), "nothing is taken from a life before the latest");
    world.heal_and_judge();
}

#[test]
fn a_node_whose_copy_ran_for_a_moment_is_heard_again() {
    let mut world = World::new(2, 0);
    let (id, mut set) = (world.nodes[1].ledger.id, world.nodes[0].ledger.set.clone().unwrap());
    set.joined.get_mut(&id).unwrap().start = Start { at: at(500), random: u64::MAX };
    world.nodes[0].ledger.learn(&set);
    world.write(1, Kind::Value);
    assert_eq!(world.deliver(0), None, "it is no push of the latest start");
    world.meet(0, 1);
    world.meet(0, 1);
    world.write(1, Kind::Value);
    assert_eq!(world.deliver(1), Some(Arrival::Taken));
    assert_eq!(world.nodes[1].ledger.id, id, "nothing was told that it does not know");
    world.heal_and_judge();
}
