//! Membership under stress: many nodes, much loss, and the known traps of such protocols.
//!
//! `KVS_SIM_MEMBERS` is the number of nodes in tests without a number of their own; without it each
//! test has its default, so that all take a few seconds. `KVS_SIM_MEMBERS_FIRST` (0) is the first
//! seed, `KVS_SIM_MEMBERS_SEEDS` (1) the number of seeds of each test, and `KVS_SIM_MEMBERS_LOSS`
//! (20) the loss in percent. `tests/long.sh members` plays 200 nodes.

mod net;

use kvs::model::Member;

use self::net::{EPOCH, Net, member};
use crate::number;

/// The number of nodes: `default` unless the environment has one.
fn nodes(usual: u16) -> u16 {
    u16::try_from(number("KVS_SIM_MEMBERS").unwrap_or(usual.into()))
        .expect("ports are numbered by nodes")
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = number("KVS_SIM_MEMBERS_FIRST").unwrap_or(0);
    let count = number("KVS_SIM_MEMBERS_SEEDS").unwrap_or(1);
    assert!(count > 0, "without a seed the test proves nothing");
    first..first + count
}

/// How many seconds a node that hears nobody needs to find out: it probes one member in a period.
fn until_alone(nodes: u16) -> u64 {
    u64::from(nodes) + 100
}

/// The share of datagrams that get lost.
fn loss() -> f64 {
    let percent =
        u32::try_from(number("KVS_SIM_MEMBERS_LOSS").unwrap_or(20)).expect("a percentage");
    f64::from(percent) / 100.0
}

/// All members that ever were in `net`, as a node stores them for its next start.
fn all_of(net: &Net) -> Vec<Member> {
    net.machine(1).members().into_iter().map(|(member, _)| member).collect()
}

#[test]
fn slow_presets_two_hundred_nodes_know_each_other_in_15_seconds() {
    for seed in seeds() {
        let mut net = Net::new(seed, loss());
        for port in 1..=200 {
            net.start(port, port, &[1, 2, 3], &[]);
        }
        let took = net.run_until(15, "all are members to all", Net::is_full);
        println!("seed {seed}: full after {took:?}");
    }
}

#[test]
fn no_healthy_node_is_declared_down_in_ten_minutes() {
    for seed in seeds() {
        let mut net = Net::cluster(nodes(40), seed, loss());
        net.all_must_stay();
        net.run(600);
    }
}

#[test]
fn slow_presets_a_killed_node_is_down_to_all_in_20_probe_periods() {
    for (seed, loss) in seeds().flat_map(|seed| [(seed, 0.0), (seed, loss())]) {
        let mut net = Net::cluster(nodes(50), seed, loss);
        net.all_must_stay();
        net.kill(7);
        let took = net.run_until(20, "the killed node is down to all", Net::is_full);
        println!("seed {seed}, loss {loss}: down after {took:?}");
        net.run(20);
        assert!(net.is_full(), "it stays down");
    }
}

#[test]
fn slow_presets_halves_find_together_in_30_seconds() {
    for seed in seeds() {
        let count = nodes(30);
        let mut net = Net::cluster(count, seed, loss());
        let half: Vec<u16> = (1..=count / 2).collect();
        net.part(&half);
        net.run(60);
        assert_eq!(net.active_at(1).len(), half.len(), "each half is alone");
        net.heal();
        let took = net.run_until(30, "all are members to all", Net::is_full);
        println!("seed {seed}: healed after {took:?}");
    }
}

#[test]
fn total_isolation_and_return_of_one_node() {
    let long = until_alone(nodes(20));
    for (seed, cut) in seeds().flat_map(|seed| [(seed, 10), (seed, long)]) {
        let mut net = Net::cluster(nodes(20), seed, loss());
        net.part(&[9]);
        net.run(cut);
        assert!(cut < long || net.active_at(9).len() == 1, "it is alone");
        net.heal();
        let took = net.run_until(30, "all are members to all", Net::is_full);
        println!("seed {seed}, {cut} s away: back after {took:?}");
    }
}

#[test]
fn total_isolation_and_return_of_all_nodes() {
    for seed in seeds() {
        let mut net = Net::cluster(nodes(30), seed, loss());
        for port in net.ports() {
            net.part(&[port]);
        }
        net.run(until_alone(nodes(30)));
        assert!(net.ports().iter().all(|port| net.active_at(*port).len() == 1), "all are alone");
        net.heal();
        let took = net.run_until(30, "all are members to all", Net::is_full);
        println!("seed {seed}: full after {took:?}");
    }
}

/// The other nodes reach each other around the cut, so none may be declared down.
#[test]
fn a_one_way_cut_between_two_nodes_kills_neither() {
    for seed in seeds() {
        let mut net = Net::cluster(nodes(20), seed, loss());
        net.all_must_stay();
        net.cut(1, 2);
        net.cut(4, 3);
        net.run(120);
    }
}

#[test]
fn a_node_that_hears_nobody_or_that_nobody_hears_comes_back() {
    for (seed, deaf) in seeds().flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut net = Net::cluster(nodes(20), seed, loss());
        for other in net.ports().into_iter().filter(|port| *port != 5) {
            if deaf { net.cut(other, 5) } else { net.cut(5, other) }
        }
        let before = net.incarnations();
        net.run(60);
        // The deaf node holds the others for down and tells them, and each renews itself; then it
        // is alone and does them no more harm.
        let renewed = net.incarnations().iter().zip(&before).map(|(now, then)| now - then).max();
        assert!(renewed <= Some(1), "{renewed:?} renewals");
        let others = net.ports().into_iter().filter(|port| *port != 5);
        let lacking: Vec<u16> =
            others.filter(|port| net.active_at(*port).len() + 1 < net.ports().len()).collect();
        assert!(lacking.is_empty(), "the nodes at {lacking:?} lost more than the one");
        net.heal();
        let took = net.run_until(30, "all are members to all", Net::is_full);
        println!("seed {seed}, deaf {deaf}: back after {took:?}");
    }
}

#[test]
fn rolling_partitions_heal_in_30_seconds() {
    for seed in seeds() {
        let mut net = Net::cluster(nodes(20), seed, loss());
        let ports = net.ports();
        for away in ports.chunks(ports.len().div_ceil(6)) {
            net.heal();
            net.part(away);
            net.run(15);
        }
        net.heal();
        let took = net.run_until(30, "all are members to all", Net::is_full);
        println!("seed {seed}: healed after {took:?}");
    }
}

/// memberlist's pull request 345: all nodes know each other from before, in earlier lives.
#[test]
fn a_mass_restart_of_all_nodes_at_once() {
    for (seed, back) in seeds().flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut net = Net::cluster(nodes(50), seed, loss());
        let (ports, known) = (net.ports(), all_of(&net));
        ports.iter().for_each(|port| net.kill(*port));
        for port in ports {
            // Half of the nodes can have had their clocks set back.
            let wall = if back && port % 2 == 0 { EPOCH - 7 } else { net.wall() };
            net.start_at(port, port, &[1, 2, 3], &known, wall);
        }
        let took = net.run_until(15, "all are members to all", Net::is_full);
        println!("seed {seed}, clocks set back {back}: full after {took:?}");
        // A node whose clock was set back renews itself when a late datagram names its earlier
        // life.
        net.run(if back { 20 } else { 0 });
        net.all_must_stay();
        net.run(30);
    }
}

/// foca's issues 19, 31 and 32: the others hold the latest life of a node and nothing else.
#[test]
fn members_do_not_grow_and_no_stale_identity_stays() {
    for seed in seeds() {
        let count = nodes(20);
        let mut net = Net::cluster(count, seed, loss());
        for round in 0..10 {
            for port in 4..=count {
                if (port + round) % 3 == 0 {
                    net.kill(port);
                    // Every second node must renew itself, because the others know a later life of
                    // it.
                    let wall = if port % 2 == 0 { EPOCH - 7 } else { net.wall() };
                    net.start_at(port, port, &[1, 2, 3], &[], wall);
                }
            }
            net.run(5);
        }
        net.run_until(30, "all are members to all", Net::is_full);
        net.run(20);
        net.all_must_stay();
        for port in net.ports() {
            let members: Vec<Member> =
                net.machine(port).members().into_iter().map(|(member, _)| member).collect();
            assert_eq!(members, net.latest(), "to the node at {port}");
        }
    }
}

#[test]
fn a_replaced_node_with_the_old_address() {
    for seed in seeds() {
        let mut net = Net::cluster(nodes(30), seed, loss());
        net.kill(7);
        net.all_must_stay();
        net.start(1007, 7, &[1, 2, 3], &[]);
        let took = net.run_until(20, "the old one is down, the new one is a member", Net::is_full);
        println!("seed {seed}: replaced after {took:?}");
        net.all_must_stay();
        net.run(60);
        assert!(net.is_full(), "it stays so");
    }
}

/// All nodes get new addresses, each of which another node had.
#[test]
fn all_nodes_swap_their_addresses_and_know_the_old_ones() {
    for seed in seeds() {
        let count = nodes(20);
        let mut net = Net::cluster(count, seed, loss());
        let (ports, known) = (net.ports(), all_of(&net));
        ports.iter().for_each(|port| net.kill(*port));
        for port in ports {
            net.start(port % count + 1, port, &[1, 2, 3], &known);
        }
        let took = net.run_until(30, "all are members to all", Net::is_full);
        println!("seed {seed}: full after {took:?}");
        net.all_must_stay();
        net.run(30);
    }
}

/// They know each other by one old address, which is tried now and then, and whose answers can get
/// lost.
#[test]
fn two_clusters_with_old_peer_lists_become_one() {
    for seed in seeds() {
        let count = nodes(30);
        let half: Vec<u16> = (1..=count / 2).collect();
        let mut net = Net::new(seed, loss());
        for port in 1..=count {
            // One node of the second half once knew a node of the first half.
            let known = if port == count { vec![member(2, 2, net.now)] } else { Vec::new() };
            let seed = if half.contains(&port) { 1 } else { count - 1 };
            net.start(port, port, &[seed], &known);
        }
        net.part(&half);
        net.run(60);
        assert_eq!(net.active_at(1).len(), half.len(), "each half is alone");
        net.heal();
        let took = net.run_until(60, "all are members to all", Net::is_full);
        println!("seed {seed}: one cluster after {took:?}");
    }
}

/// Counts sealed bytes, without the headers of IP and UDP.
#[test]
fn the_traffic_of_a_node_is_bounded() {
    for count in [3, nodes(50)] {
        for (loss, bytes_max) in [(0.0, 4_000), (loss(), 20_000)] {
            let mut net = Net::cluster(count, 0, loss);
            let before = net.sent;
            net.run(60);
            let node_seconds = u64::from(count) * 60;
            let datagrams = (net.sent.datagrams - before.datagrams) / node_seconds;
            let bytes = (net.sent.bytes - before.bytes) / node_seconds;
            println!("{count} nodes, loss {loss}: {datagrams} datagrams, {bytes} B a second");
            assert!(bytes <= bytes_max, "{bytes} B a second from each of {count} nodes");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let trace = |seed| Net::cluster(10, seed, 0.2).trace();
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
