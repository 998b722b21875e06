//! The settings and bounds of the machine, and foca's many periods, which follow from one setting.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use super::wire::DATAGRAM_BYTES_MAX;

/// The most members that are remembered, down ones included. Far more than a full mesh serves well.
pub const MEMBERS_MAX: usize = 1024;

/// How long foca remembers a down identity. Long, because old news could revive a forgotten one;
/// bounded, so that announcements to down members stop some day.
const REMOVE_DOWN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The settings of a node's membership.
#[derive(Clone, Copy, Debug)]
pub struct MembershipSettings {
    /// How often this node probes a member; all other periods are multiples or parts of it. Shorter
    /// finds failures sooner and costs more datagrams.
    pub probe_period: Duration,
}

/// Periods with which a node joins in about a second and a partition heals in half a minute at the
/// default probe period; with foca's presets it takes minutes. `tests/sim/membership.rs` checks
/// both and prints the cost.
pub(super) fn foca_config(period: Duration) -> foca::Config {
    let every = |frequency: Duration, members: usize| {
        Some(PeriodicParams { frequency, num_members: at_least_one(members) })
    };
    foca::Config {
        probe_period: period,
        probe_rtt: period * 2 / 5,
        // At 20 % loss, three helpers leave 7 % of the probes of healthy nodes unanswered. With 200
        // nodes the suspicions and refutations then crowd each other out, and some healthy nodes
        // are declared down. Eight helpers leave 0.5 % and cost fewer datagrams than suspicions.
        num_indirect_probes: at_least_one(8),
        // Enough for a refutation to reach all nodes at 20 % loss.
        max_transmissions: NonZeroU8::MIN.saturating_add(19),
        suspect_to_down_after: period * 5,
        remove_down_after: Some(REMOVE_DOWN_AFTER),
        max_packet_size: at_least_one(DATAGRAM_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: every(period, 1),
        periodic_announce_to_down_members: every(period * 5, 3),
        // Sends nothing while there is no news. With four instead of three, the last of 200 nodes
        // that join at once at 20 % loss is known to all after 9 periods instead of 11.
        periodic_gossip: every(period / 5, 4),
    }
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}
