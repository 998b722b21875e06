//! Tells in the log what becomes of the other members: who comes, goes, and whose clock is wrong;
//! and that this node is alone although it has seeds.
//!
//! Promises one line for each change, at a bounded rate: a member that comes and goes within
//! seconds is told of once, and a crowd in one line. Must not know how the members are found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::views::Views;
use crate::clock::Clock;
use crate::config::Config;
use crate::model::member::{ClockOff, PeerStatus, SeedAnswer};
use crate::model::{Member, MemberState, NodeId, Timestamp};
use crate::telemetry::Metrics;

/// How often to look for news.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The least time between two lines about one member.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Lines at a time; further ones are counted.
const LINES_MAX: usize = 20;
/// How often to repeat that this node is alone.
const ALONE_SAID_EVERY: Duration = Duration::from_secs(600);

/// What there is to tell of.
pub(super) struct News {
    /// This node.
    me: NodeId,
    members: watch::Receiver<Vec<(Member, MemberState)>>,
    peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    seeds: watch::Receiver<Vec<SeedAnswer>>,
    clock: Clock,
    /// A clock that is off by more is worth a line.
    clock_drift_max: Duration,
    /// How long a node may be alone before it says so.
    alone_max: Duration,
    metrics: Arc<Metrics>,
}

/// What was told of a member.
struct ToldMember {
    standing: Standing,
    started_at: Timestamp,
    /// Since when it stands so; `None` when that was before the start of this node.
    since: Option<Instant>,
    said_at: Option<Instant>,
    is_skewed: bool,
}

/// How a member stands, for people. A suspicion is no news before it ends in a death.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Up,
    Down,
    Left,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum NewsLine {
    Good(String),
    Bad(String),
}

/// What was told so far.
#[derive(Default)]
struct Teller {
    told: BTreeMap<NodeId, ToldMember>,
    alone_since: Option<Instant>,
    alone_said_at: Option<Instant>,
    /// Whether it was told that this node's clock disagrees with most.
    clock_off: bool,
    /// The skews that the metric shows, by the names of the members.
    shown_skews: BTreeMap<String, i64>,
}

impl News {
    pub(super) fn new(
        config: &Config,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        me: NodeId,
        views: &Views,
    ) -> Self {
        Self {
            me,
            members: views.members.clone(),
            peers: views.peers.clone(),
            seeds: views.outlook.seeds.clone(),
            clock: clock.clone(),
            clock_drift_max: config.sync.clock_drift_max,
            alone_max: config.sync.bootstrap_wait,
            metrics: metrics.clone(),
        }
    }

    /// Looks for news until `stop`.
    pub(super) async fn tell(self, stop: CancellationToken) {
        let mut teller = Teller::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let mut lines = teller.look(&self, self.clock.instant());
            let further = lines.len().saturating_sub(LINES_MAX);
            lines.truncate(LINES_MAX);
            for line in lines {
                match line {
                    NewsLine::Good(text) => tracing::info!("{text}"),
                    NewsLine::Bad(text) => tracing::warn!("{text}"),
                }
            }
            if further > 0 {
                tracing::info!("{further} more changes of members; `kvs members` shows them all");
            }
        }
    }
}

impl Teller {
    /// What has changed since the last look.
    fn look(&mut self, news: &News, now: Instant) -> Vec<NewsLine> {
        let members = news.members.borrow().clone();
        let others = || members.iter().filter(|(member, _)| member.id != news.me);
        let off = {
            let peers = news.peers.borrow();
            let alive = others().filter(|(_, state)| *state == MemberState::Alive);
            let alive = alive.map(|(member, _)| peers.get(&member.id));
            ClockOff::judge(alive, news.clock_drift_max)
        };
        news.metrics.clock_skewed.set(i64::from(off.is_some()));
        let mut lines = Vec::from_iter(self.disagrees(off));
        let mut skews = BTreeMap::new();
        for (member, state) in others() {
            let skew_ms = news.peers.borrow().get(&member.id).and_then(|peer| peer.clock_skew_ms);
            lines.extend(self.changed(member, Standing::of(*state), now));
            lines.extend(self.skewed(member, skew_ms, news.clock_drift_max));
            let shown = skew_ms.filter(|_| state.is_up());
            skews.extend(shown.map(|skew_ms| (member.name.clone(), skew_ms)));
        }
        self.show_skews(&news.metrics, skews);
        let alone = !others().any(|(_, state)| state.is_up());
        lines.extend(self.alone(alone, &news.seeds.borrow(), news.alone_max, now));
        lines
    }

    fn changed(&mut self, member: &Member, standing: Standing, now: Instant) -> Option<NewsLine> {
        let Member { name, id, gossip, started_at, .. } = member;
        let is_new = !self.told.contains_key(id);
        let told = self.told.entry(*id).or_insert(ToldMember {
            standing,
            started_at: *started_at,
            since: None,
            said_at: None,
            is_skewed: false,
        });
        let restarted = standing == Standing::Up && told.started_at != *started_at;
        if !is_new && told.standing == standing && !restarted {
            return None;
        }
        let too_soon = |at: Instant| now.saturating_duration_since(at) < SAY_EVERY;
        if told.said_at.is_some_and(too_soon) {
            return None;
        }
        let who = format!("member {name} ({id}) at {gossip}");
        let lasted = told.since.map(|since| now.saturating_duration_since(since).as_secs());
        let lasted = |of: &str| lasted.map(|s| format!("; it was {of} for {s} s"));
        let (was_up, was_away) =
            (lasted("up").unwrap_or_default(), lasted("away").unwrap_or_default());
        let line = match (standing, told.standing) {
            (Standing::Up, _) if is_new => NewsLine::Good(format!("{who} is up")),
            // known from an earlier run, and not heard of in this one
            _ if is_new => return None,
            (Standing::Up, Standing::Up) => NewsLine::Good(format!("{who} has restarted")),
            (Standing::Up, _) => NewsLine::Good(format!("{who} is back{was_away}")),
            (Standing::Left, _) => NewsLine::Good(format!("{who} has stopped in order{was_up}")),
            (Standing::Down, _) => {
                NewsLine::Bad(format!("{who} is down: it does not answer{was_up}"))
            }
        };
        (told.standing, told.started_at) = (standing, *started_at);
        (told.since, told.said_at) = (Some(now), Some(now));
        Some(line)
    }

    /// The line that tells that this node's clock has come to disagree with most, or no longer
    /// does.
    fn disagrees(&mut self, off: Option<ClockOff>) -> Option<NewsLine> {
        if std::mem::replace(&mut self.clock_off, off.is_some()) == off.is_some() {
            return None;
        }
        let agrees = "this node's clock no longer disagrees with those of most alive peers";
        Some(off.map_or_else(
            || NewsLine::Good(agrees.to_owned()),
            |off| NewsLine::Bad(format!("not ready (clock_skewed): {off}")),
        ))
    }

    /// Shows the skews of the members' clocks in the metric, by their names; none of those that are
    /// not reached.
    fn show_skews(&mut self, metrics: &Metrics, skews: BTreeMap<String, i64>) {
        let shown = &metrics.peer_clock_skew_ms;
        for gone in self.shown_skews.keys().filter(|name| !skews.contains_key(*name)) {
            shown.remove(&[("peer", gone.clone())]);
        }
        for (name, skew_ms) in &skews {
            shown.get_or_create(&[("peer", name.clone())]).set(*skew_ms);
        }
        self.shown_skews = skews;
    }

    fn skewed(
        &mut self,
        member: &Member,
        skew_ms: Option<i64>,
        most: Duration,
    ) -> Option<NewsLine> {
        let told = self.told.get_mut(&member.id)?;
        let skew_ms = skew_ms?;
        let is_skewed = Duration::from_millis(skew_ms.unsigned_abs()) > most;
        if told.is_skewed == is_skewed {
            return None;
        }
        told.is_skewed = is_skewed;
        let (name, id) = (&member.name, &member.id);
        if !is_skewed {
            let text = format!("the clock of member {name} ({id}) agrees with this node's again");
            return Some(NewsLine::Good(text));
        }
        let way = if skew_ms > 0 { "ahead of" } else { "behind" };
        let seconds = skew_ms.unsigned_abs() / 1000;
        Some(NewsLine::Bad(format!(
            "the clock of member {name} ({id}) is {seconds} s {way} this node's; set the wrong one \
             right (NTP), because the later write wins"
        )))
    }

    fn alone(
        &mut self,
        alone: bool,
        seeds: &[SeedAnswer],
        alone_max: Duration,
        now: Instant,
    ) -> Option<NewsLine> {
        if !alone || seeds.is_empty() {
            self.alone_since = None;
            let was_said = self.alone_said_at.take().is_some();
            return was_said.then(|| NewsLine::Good("this node is no longer alone".to_owned()));
        }
        let since = *self.alone_since.get_or_insert(now);
        let is_due = |at: Instant, wait| now.saturating_duration_since(at) >= wait;
        let said = self.alone_said_at.is_some_and(|at| !is_due(at, ALONE_SAID_EVERY));
        let silent = seeds.iter().filter_map(|answer| {
            answer.error.as_ref().map(|error| format!("{} ({error})", answer.seed))
        });
        let silent: Vec<_> = silent.collect();
        if said || !is_due(since, alone_max) || silent.is_empty() {
            return None;
        }
        self.alone_said_at = Some(now);
        let answers = match seeds.len() - silent.len() {
            0 => format!("none of {} seeds answers", seeds.len()),
            some => format!("only {some} of {} seeds answer", seeds.len()),
        };
        Some(NewsLine::Bad(format!(
            "this node is alone; {answers}: {}; correct gossip.seeds, or start these nodes",
            silent.join(", ")
        )))
    }
}

impl Standing {
    fn of(state: MemberState) -> Self {
        match state {
            MemberState::Alive | MemberState::Suspect => Self::Up,
            MemberState::Down => Self::Down,
            MemberState::Left => Self::Left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(started: u64) -> Member {
        let at = std::net::SocketAddr::from(([10, 0, 0, 1], 7946));
        Member {
            id: NodeId::from_u128(2),
            name: "n2".to_owned(),
            joined_at: Timestamp::ZERO,
            started_at: Timestamp::saturating(started),
            gossip: at,
            peer: at,
            http: at,
            software: String::new(),
        }
    }

    fn text(line: Option<NewsLine>) -> String {
        match line {
            Some(NewsLine::Good(text)) => text,
            Some(NewsLine::Bad(text)) => format!("warning: {text}"),
            None => String::new(),
        }
    }

    #[test]
    fn each_change_of_a_member_has_a_line_with_its_duration() {
        let mut teller = Teller::default();
        let mut now = Clock::system().instant();
        let mut say = |started, standing, after_s| {
            now += Duration::from_secs(after_s);
            text(teller.changed(&member(started), standing, now))
                .replace(" (00000000-0000-0000-0000-000000000002) at 10.0.0.1:7946", "")
        };
        assert_eq!(say(1, Standing::Up, 0), "member n2 is up");
        assert_eq!(say(1, Standing::Up, 10), "");
        assert_eq!(
            say(1, Standing::Down, 60),
            "warning: member n2 is down: it does not answer; it was up for 70 s"
        );
        assert_eq!(say(1, Standing::Up, 1), "", "a line so soon would be the second");
        assert_eq!(say(1, Standing::Up, 9), "member n2 is back; it was away for 10 s");
        assert_eq!(say(2, Standing::Up, 9), "member n2 has restarted");
        assert_eq!(say(2, Standing::Left, 9), "member n2 has stopped in order; it was up for 9 s");
    }

    #[test]
    fn a_clock_that_is_off_is_told_of_once_and_when_it_is_right_again() {
        let mut teller = Teller::default();
        let (n2, most) = (member(1), Duration::from_secs(60));
        teller.changed(&n2, Standing::Up, Clock::system().instant());
        let mut say = |skew| text(teller.skewed(&n2, skew, most));
        assert_eq!(say(Some(59_000)), "");
        assert!(say(Some(-3_600_000)).contains("is 3600 s behind this node's"));
        assert_eq!((say(Some(-3_600_000)), say(None)), (String::new(), String::new()));
        assert!(say(Some(10)).contains("agrees"));
    }

    #[test]
    fn a_node_alone_names_its_seeds_when_the_wait_ends_and_now_and_then() {
        let mut teller = Teller::default();
        let start = Clock::system().instant();
        let seed = |error: &str| SeedAnswer { seed: "a:1".to_owned(), error: Some(error.into()) };
        let seeds = [seed("no answer"), seed("its name cannot be resolved")];
        let wait = Duration::from_secs(10);
        let mut say = |alone, seconds| {
            let now = start + Duration::from_secs(seconds);
            text(teller.alone(alone, &seeds, wait, now))
        };
        assert_eq!(say(true, 0), "");
        let line = say(true, 10);
        assert!(line.contains("alone; none of 2 seeds answers: a:1 (no answer), a:1 ("), "{line}");
        assert_eq!(say(true, 300), "");
        assert!(!say(true, 611).is_empty());
        assert!(say(false, 612).contains("no longer alone"));
        assert_eq!(say(false, 613), "");
    }
}
