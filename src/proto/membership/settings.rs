//! What may be set, and how foca's many periods follow from it.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use super::DATAGRAM_BYTES_MAX;

/// How long a down identity is remembered. Long, because whoever forgets it may be told by the late
/// that it is alive; bounded, so that announcements to the down do not go to the long gone.
const REMOVE_DOWN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What may be set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often a member is probed; every other period is a multiple or a part of it.
    pub probe_period: Duration,
}

/// Fast enough to join in about a second and to heal a partition in half a minute at the default
/// probe period; foca's presets take minutes. `tests/sim/membership.rs` holds them to it, and
/// prints what they cost.
pub(super) fn foca_config(period: Duration) -> foca::Config {
    let every = |frequency: Duration, members: usize| {
        Some(PeriodicParams { frequency, num_members: at_least_one(members) })
    };
    foca::Config {
        probe_period: period,
        probe_rtt: period * 2 / 5,
        // at 20 % loss three others leave 7 % of the probes of healthy nodes without an answer; the
        // suspicions and refutations of 200 nodes then crowd each other out, and some kill. Eight
        // leave 0.5 %, and the datagrams that they cost are less than those of the suspicions
        num_indirect_probes: at_least_one(8),
        // enough that a refuted suspicion reaches everybody at 20 % loss
        max_transmissions: NonZeroU8::MIN.saturating_add(19),
        suspect_to_down_after: period * 5,
        remove_down_after: Some(REMOVE_DOWN_AFTER),
        max_packet_size: at_least_one(DATAGRAM_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: every(period, 1),
        periodic_announce_to_down_members: every(period * 5, 3),
        // nothing is sent while there is no news. Four and not three: of 200 nodes that join at
        // once at 20 % loss, the last is then known to all after 9 periods instead of 11
        periodic_gossip: every(period / 5, 4),
    }
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}
