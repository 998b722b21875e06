//! A small world of real ledgers and one key: what the stories and the exploration play in.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use uuid::Uuid;

use super::floor::{Arrival, arrive, may_go};
use super::*;
use crate::model::{Content, ContentType, Header, NodeId, Seen, Timestamp, Version};

pub(super) const DRIFT: Duration = Duration::from_micros(10);

pub(super) fn at(micros: u64) -> Timestamp {
    Timestamp::saturating(micros)
}

/// A value that copies of a world share until one of them changes it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Shared<T>(Rc<T>);

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Rc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Rc::new(value))
    }
}

/// A disk as it was saved: ledger, record, the greatest record, and how many writes were accepted.
type Saved = (Ledger, Option<Header>, Option<Header>, usize);

/// A node: its ledger, what it holds for the key, and the greatest that it held in this life.
#[derive(Clone, Debug, Hash)]
pub(super) struct Node {
    pub ledger: Ledger,
    pub held: Option<Header>,
    /// How far its clock is ahead of the right time.
    pub ahead: i64,
    best: Option<Header>,
    saved: Option<Box<Saved>>,
    /// How often it started or got a new id: names of starts and ids are made of it, so that
    /// schedules in which nodes do the same in another order meet in one state.
    lives: u8,
}

impl Node {
    fn new(ledger: Ledger) -> Self {
        Self { ledger, held: None, ahead: 0, best: None, saved: None, lives: 0 }
    }

    fn fresh(&mut self, slot: usize) -> u64 {
        self.lives += 1;
        u64::from(self.lives) * 16 + slot as u64 + 1
    }
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Push {
    from: NodeId,
    start: Start,
    to: usize,
    header: Header,
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    Opened(Box<(Introduction, Introduction)>),
    Compared { claims: Box<(Claim, Claim)>, listed: Option<Header>, step: u8 },
    Followed { follow: Box<Follow>, offer: Box<Offer>, life: Life, compared: bool },
    Exchanged { lives: (Life, Life), step: u8 },
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Session {
    a: usize,
    b: usize,
    ids: (NodeId, NodeId),
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    Expiring,
    Delete,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct World {
    pub now: u64,
    pub nodes: Vec<Shared<Node>>,
    pub pushes: Shared<Vec<Push>>,
    pub sessions: Vec<Session>,
    /// What was told, to be heard late, again or never: who hears it, and the word.
    pub words: Vec<(usize, StableTold)>,
    accepted: Shared<Vec<(Header, usize)>>,
    /// Writes that were reported, or lost with a disk or with a node that is gone.
    excused: Shared<BTreeSet<Uuid>>,
    pub seen: Sights,
}

/// What happened in a schedule, for the statistics: no part of the state.
#[expect(clippy::struct_excessive_bools, reason = "what was seen, each apart")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sights {
    pub floor_moved: bool,
    pub collected: bool,
    pub began_anew: bool,
    pub set_back: bool,
}

impl Hash for Sights {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl World {
    /// `counted` nodes of one set, and `empty` newcomers.
    pub(super) fn new(counted: usize, empty: usize) -> Self {
        let ids = |n: usize| NodeId::from_u128(n as u128 + 1);
        let first = Start { at: at(1), random: 0 };
        let founding = Founding { at: at(1), id: Uuid::from_u128(1) };
        let mut founder = Ledger::founder(ids(0), first, founding, false);
        let mut nodes = Vec::new();
        for n in 1..counted {
            let offer = founder.offer().unwrap().ledger_is_durable();
            let mut ledger = Ledger::empty(ids(n), first);
            let follow = ledger.follow(offer.clone()).unwrap();
            let set = founder.enter(ids(n), first, &offer).unwrap().ledger_is_durable();
            assert!(ledger.count(&follow, set));
            nodes.push(ledger);
        }
        let set = founder.set.clone().unwrap();
        for ledger in &mut nodes {
            ledger.learn(&set);
        }
        nodes.insert(0, founder);
        nodes.extend((0..empty).map(|n| Ledger::empty(ids(counted + n), first)));
        Self {
            now: 100,
            nodes: nodes.into_iter().map(|ledger| Node::new(ledger).into()).collect(),
            pushes: Vec::new().into(),
            sessions: Vec::new(),
            words: Vec::new(),
            accepted: Vec::new().into(),
            excused: BTreeSet::new().into(),
            seen: Sights::default(),
        }
    }

    /// Adds a node that founded a set of its own.
    pub(super) fn add_founder(&mut self, lone: bool) -> usize {
        let slot = self.nodes.len();
        let start = Start { at: at(self.now), random: 0 };
        let founding = Founding { at: at(self.now), id: Uuid::from_u128(slot as u128 + 1) };
        let id = NodeId::from_u128(slot as u128 + 1);
        self.nodes.push(Node::new(Ledger::founder(id, start, founding, lone)).into());
        slot
    }

    /// The wall clock of a node.
    fn wall(&self, n: usize) -> Timestamp {
        at(self.now.saturating_add_signed(self.nodes[n].ahead))
    }

    pub(super) fn serves(&self, n: usize) -> bool {
        let ledger = &self.nodes[n].ledger;
        ledger.counted && ledger.gone().is_none()
    }

    /// A client writes; a push goes to every other node. None of them is lost or used up, so that
    /// delivering one late, twice or never is a choice of the story.
    pub(super) fn write(&mut self, n: usize, kind: Kind) -> bool {
        let header = self.commit(n, kind);
        if let Some(header) = header.clone() {
            self.put(n, header);
        }
        header.is_some()
    }

    /// A write that is acknowledged and not yet in the digest: no session sees it before
    /// [`World::put`].
    pub(super) fn commit(&mut self, n: usize, kind: Kind) -> Option<Header> {
        let node = &self.nodes[n];
        if !self.serves(n) || (kind == Kind::Delete && node.held.is_none()) {
            return None;
        }
        let (wall, replaced) = (self.wall(n), node.held.as_ref());
        let timestamp =
            node.ledger.next_timestamp(wall, replaced.map(|held| held.version.timestamp));
        if timestamp > wall.plus(DRIFT) {
            return None;
        }
        let origin = node.ledger.id;
        let header = Header {
            version: Version {
                timestamp,
                origin_joined_at: at(1),
                uuid: Uuid::from_u128(self.accepted.len() as u128 + 1),
            },
            origin,
            parent: replaced.map(|held| held.version.uuid),
            seen: Seen::default(),
            expires_at: (kind == Kind::Expiring).then(|| wall.plus(Duration::from_micros(3))),
            content: match kind {
                Kind::Delete => Content::Tombstone,
                Kind::Value | Kind::Expiring => Content::value(ContentType::octet_stream(), b"v"),
            },
        };
        let start = node.ledger.start;
        assert!(timestamp > node.ledger.point.0, "a timestamp at or below a confirmed point");
        // time goes on only as far as something needs it: so schedules that differ in the order of
        // what does not touch each other meet in one state
        let ahead = node.ahead;
        self.now = self.now.max(timestamp.micros().saturating_add_signed(-ahead));
        self.accepted.push((header.clone(), n));
        for to in (0..self.nodes.len()).filter(|to| *to != n) {
            self.pushes.push(Push { from: origin, start, to, header: header.clone() });
        }
        Some(header)
    }

    pub(super) fn put(&mut self, n: usize, header: Header) {
        let live = header.is_live(at(self.now));
        let node = &mut self.nodes[n];
        if let Some(best) = node.best.as_ref().filter(|_| node.ledger.counted) {
            let older = header.version < best.version;
            assert!(!(older && live), "came back on node {n}: {header:?} after {best:?}");
        }
        if node.best.as_ref().is_none_or(|best| best.version < header.version) {
            node.best = Some(header.clone());
        }
        node.held = Some(header);
    }

    fn take(&mut self, n: usize, header: Header, floor: Floor) -> Arrival {
        let latest = self.wall(n).plus(DRIFT);
        // what is equal is the same: no need to compare hashes
        if self.nodes[n].held.as_ref() == Some(&header) {
            return Arrival::Same;
        }
        let arrival = arrive(self.nodes[n].held.as_ref(), &header, floor, latest);
        if arrival == Arrival::Taken {
            self.put(n, header);
        }
        arrival
    }

    pub(super) fn deliver(&mut self, i: usize) -> Option<Arrival> {
        let Push { from, start, to, header } = self.pushes[i].clone();
        let ledger = &self.nodes[to].ledger;
        if !self.serves(to) || !ledger.takes_from(from, start) {
            return None;
        }
        let floor = ledger.floor;
        Some(self.take(to, header, floor))
    }

    fn raise(&mut self, n: usize, floor: Floor) {
        let node = &mut self.nodes[n];
        let before = node.ledger.floor;
        node.ledger.raise_floor(floor);
        assert!(node.ledger.floor >= before, "a floor fell");
        self.seen.floor_moved |= node.ledger.floor > before;
        if node.held.as_ref().is_some_and(|held| may_go(held, node.ledger.floor)) {
            node.held = None;
            self.seen.collected = true;
        }
    }

    fn refloor(&mut self, n: usize) {
        if let Some(floor) = self.nodes[n].ledger.next_floor() {
            self.raise(n, floor);
        }
    }

    fn alone_at(&mut self, n: usize) -> Option<AfterPersist<Floor>> {
        let wall = self.wall(n);
        self.nodes[n].ledger.alone(wall)
    }

    pub(super) fn alone(&mut self, n: usize) -> bool {
        let floor = self.alone_at(n).map(AfterPersist::ledger_is_durable);
        if let Some(floor) = floor {
            self.raise(n, floor);
        }
        floor.is_some()
    }

    pub(super) fn restart(&mut self, n: usize) {
        let wall = self.wall(n);
        let node = &mut self.nodes[n];
        // a start lies above the one before, whatever the clock says
        let random = node.fresh(n);
        let start = Start { at: wall.max(node.ledger.start.at), random };
        let floor = node.ledger.floor;
        node.ledger = node.ledger.clone().start(start);
        assert!(node.ledger.floor >= floor, "a floor fell after a restart");
        self.sessions.retain(|session| session.a != n && session.b != n);
    }

    pub(super) fn save(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let copy = (node.ledger.clone(), node.held.clone(), node.best.clone());
        node.saved = Some(Box::new((copy.0, copy.1, copy.2, self.accepted.len())));
    }

    /// The disk is set back to what was saved, and the process starts on it. What was accepted
    /// meanwhile is lost with the disk.
    pub(super) fn set_back(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        let Some(saved) = node.saved.take() else { return false };
        if saved.0.id != node.ledger.id || !node.ledger.counted {
            return false;
        }
        (node.ledger, node.held, node.best) = (saved.0, saved.1, saved.2);
        self.seen.set_back = true;
        let lost = self.accepted[saved.3..].iter().filter(|(_, slot)| *slot == n);
        self.excused.extend(lost.map(|(header, _)| header.version.uuid));
        self.restart(n);
        true
    }

    pub(super) fn forget(&mut self, by: usize, n: usize) -> bool {
        let (id, ledger) = (self.nodes[n].ledger.id, &mut self.nodes[by].ledger);
        let known = ledger.set.as_ref().is_some_and(|set| set.is_member(id));
        ledger.remove(id, WhyGone::Forgotten);
        known
    }

    pub(super) fn has_copy(&self, n: usize) -> bool {
        self.nodes[n].saved.is_some()
    }

    /// Whether the next step of session `i` is the last of a comparison, which may get lost.
    pub(super) fn at_last_word(&self, i: usize) -> bool {
        let phase = &self.sessions[i].phase;
        matches!(phase, Phase::Compared { step: 2, .. } | Phase::Followed { compared: true, .. })
    }

    /// Opens a session: both have introduced themselves, neither has judged.
    pub(super) fn open(&mut self, a: usize, b: usize) {
        let (x, y) = (&self.nodes[a].ledger, &self.nodes[b].ledger);
        let intros = (x.introduce(self.wall(a)), y.introduce(self.wall(b)));
        let phase = Phase::Opened(Box::new(intros));
        self.sessions.push(Session { a, b, ids: (x.id, y.id), phase });
    }

    /// Plays a step of session `i`. With `cut` the last word of the comparison gets lost one way.
    /// Returns whether the session goes on; an ended one is removed.
    pub(super) fn step(&mut self, i: usize, cut: bool) -> bool {
        let session = self.sessions.remove(i);
        let (a, b) = (session.a, session.b);
        let (x, y) = (&self.nodes[a].ledger, &self.nodes[b].ledger);
        let lives = match &session.phase {
            Phase::Opened(_) => None,
            Phase::Compared { claims, .. } => Some((claims.0.life(), claims.1.life())),
            Phase::Followed { follow, life, .. } => Some((follow.life(), *life)),
            Phase::Exchanged { lives, .. } => Some(*lives),
        };
        let goes_on =
            lives.is_none_or(|(one, other)| x.goes_on(y.id, one) && y.goes_on(x.id, other));
        if (x.id, y.id) != session.ids || !goes_on {
            return false;
        }
        let next = match session.phase {
            Phase::Opened(intros) => self.opening(a, b, &intros),
            Phase::Compared { claims, step: 2, .. } => {
                self.finish(a, b, &claims, cut);
                None
            }
            Phase::Compared { mut claims, listed, step: 0 } => {
                self.ask_for(a, b, &mut claims.0, listed.as_ref());
                Some(Phase::Compared { claims, listed: None, step: 1 })
            }
            Phase::Compared { mut claims, .. } => {
                self.give(a, b, &mut claims.1);
                Some(Phase::Compared { claims, listed: None, step: 2 })
            }
            Phase::Followed { follow, offer, life, compared: false } => {
                let compared = self.set_aside_and_take(a, b, &follow);
                compared.then_some(Phase::Followed { follow, offer, life, compared })
            }
            Phase::Followed { follow, offer, .. } => {
                self.count(a, b, &follow, &offer, cut);
                None
            }
            Phase::Exchanged { lives, step } => {
                let (from, to) = if step == 0 { (b, a) } else { (a, b) };
                if let Some(header) = self.nodes[from].held.clone() {
                    self.take(to, header, Floor::default());
                }
                (step == 0).then_some(Phase::Exchanged { lives, step: 1 })
            }
        };
        let Some(phase) = next else { return false };
        // a follow turns the session round, so that the newcomer drives
        let flip = matches!(phase, Phase::Followed { .. }) && self.nodes[a].ledger.counted;
        let (a, b) = if flip { (b, a) } else { (a, b) };
        let ids = (self.nodes[a].ledger.id, self.nodes[b].ledger.id);
        self.sessions.insert(i, Session { a, b, ids, phase });
        true
    }

    fn opening(
        &mut self,
        a: usize,
        b: usize,
        intros: &(Introduction, Introduction),
    ) -> Option<Phase> {
        let walls = (self.wall(a), self.wall(b));
        let for_a = self.nodes[a].ledger.judge(&intros.1, walls.0, DRIFT);
        let for_b = self.nodes[b].ledger.judge(&intros.0, walls.1, DRIFT);
        match (for_a, for_b) {
            (Judgement::Compare { claims: one }, Judgement::Compare { claims: other }) => {
                let floor_a = self.nodes[a].ledger.unite(&intros.1);
                let floor_b = self.nodes[b].ledger.unite(&intros.0);
                self.raise(a, floor_a?);
                self.raise(b, floor_b?);
                let begin_a = self.nodes[a].ledger.begin(one && other, walls.0)?;
                let begin_b = self.nodes[b].ledger.begin(one && other, walls.1)?;
                let (from_a, from_b) = (begin_a.ledger_is_durable(), begin_b.ledger_is_durable());
                let claim_a = self.nodes[a].ledger.hear_begin(from_b);
                let claim_b = self.nodes[b].ledger.hear_begin(from_a);
                let claims = Box::new((claim_a, claim_b));
                Some(Phase::Compared { claims, listed: self.nodes[b].held.clone(), step: 0 })
            }
            (Judgement::Exchange, Judgement::Exchange) => {
                let lives = (self.nodes[a].ledger.life(), self.nodes[b].ledger.life());
                Some(Phase::Exchanged { lives, step: 0 })
            }
            (Judgement::Follow, Judgement::Serve) => self.offered(a, b),
            (Judgement::Serve, Judgement::Follow) => self.offered(b, a),
            _ => {
                for (n, judged, them) in [(a, for_a, &intros.1), (b, for_b, &intros.0)] {
                    self.act(n, judged, them);
                }
                None
            }
        }
    }

    fn act(&mut self, n: usize, judged: Judgement, them: &Introduction) {
        match judged {
            Judgement::BeginAnew(why) => {
                self.seen.began_anew = true;
                let fresh = NodeId::from_u128(u128::from(self.nodes[n].fresh(n)));
                if matches!(why, Anew::Apart { .. }) {
                    // what went in its own set before they met
                    let (id, floor) = (self.nodes[n].ledger.id, self.nodes[n].ledger.floor);
                    let went = self.accepted.iter().filter(|(header, _)| {
                        header.origin == id && header.version.timestamp <= floor.0
                    });
                    self.excused.extend(went.map(|(header, _)| header.version.uuid));
                }
                let node = &mut self.nodes[n];
                node.ledger.begin_anew(why, fresh, them);
                (node.best, node.saved) = (None, None);
            }
            Judgement::Refuse(NoOpening::Removed(why)) => {
                let id = self.nodes[n].ledger.id;
                self.nodes[n].ledger.remove(id, why);
            }
            _ => {}
        }
    }

    fn offered(&mut self, newcomer: usize, source: usize) -> Option<Phase> {
        let offer = self.nodes[source].ledger.offer()?.ledger_is_durable();
        let follow = Box::new(self.nodes[newcomer].ledger.follow(offer.clone())?);
        let life = self.nodes[source].ledger.life();
        Some(Phase::Followed { follow, offer: Box::new(offer), life, compared: false })
    }

    /// `a` asks for what `b` listed; what is no longer there is not asked for again.
    fn ask_for(&mut self, a: usize, b: usize, claim: &mut Claim, listed: Option<&Header>) {
        let Some(listed) = listed else { return };
        if self.nodes[a].held.as_ref() == Some(listed) {
            return;
        }
        if self.nodes[b].held.as_ref() != Some(listed) {
            claim.bar(Bar::Replaced);
            return;
        }
        let floor = self.nodes[a].ledger.floor;
        if self.take(a, listed.clone(), floor) == Arrival::TooEarly {
            claim.bar(Bar::HeldBack);
        }
    }

    /// `a` gives what it holds.
    fn give(&mut self, a: usize, b: usize, claim: &mut Claim) {
        let Some(header) = self.nodes[a].held.clone() else { return };
        let floor = self.nodes[b].ledger.floor;
        if self.take(b, header, floor) == Arrival::TooEarly {
            claim.bar(Bar::HeldBack);
        }
    }

    fn finish(&mut self, a: usize, b: usize, claims: &(Claim, Claim), cut: bool) {
        let word_a = self.nodes[a].ledger.last_word(&claims.0);
        let word_b = self.nodes[b].ledger.last_word(&claims.1);
        self.nodes[b].ledger.finish(&claims.1, word_a);
        if cut {
            return;
        }
        self.nodes[a].ledger.finish(&claims.0, word_b);
        for (from, to) in [(a, b), (b, a)] {
            if let Some(told) = self.nodes[from].ledger.tell() {
                let told = told.ledger_is_durable();
                self.nodes[to].ledger.hear(&told);
            }
        }
        self.refloor(a);
        self.refloor(b);
    }

    fn set_aside_and_take(&mut self, a: usize, b: usize, follow: &Follow) -> bool {
        let theirs = self.nodes[b].held.clone();
        let mine = self.nodes[a].held.clone();
        if let Some(mine) = mine.filter(|mine| follow.sets_aside(mine, theirs.as_ref())) {
            let own = self
                .accepted
                .iter()
                .filter(|(header, slot)| *slot == a && header.version <= mine.version);
            self.excused.extend(own.map(|(header, _)| header.version.uuid));
            self.nodes[a].held = None;
        }
        let early = |header| self.take(a, header, Floor::default()) == Arrival::TooEarly;
        !theirs.is_some_and(early)
    }

    fn count(&mut self, a: usize, b: usize, follow: &Follow, offer: &Offer, cut: bool) {
        let (id, start) = (self.nodes[a].ledger.id, self.nodes[a].ledger.start);
        let Some(set) = self.nodes[b].ledger.enter(id, start, offer) else { return };
        if !cut && self.nodes[a].ledger.count(follow, set.ledger_is_durable()) {
            self.nodes[a].best = self.nodes[a].held.clone();
            let floor = self.nodes[a].ledger.floor;
            self.raise(a, floor);
        }
    }

    /// A node tells its stable in a report of a push stream; it is heard later, again or never.
    pub(super) fn tell(&mut self, from: usize, to: usize) -> bool {
        let Some(told) = self.nodes[from].ledger.tell() else { return false };
        let word = (to, told.ledger_is_durable());
        let is_new = !self.words.contains(&word);
        self.words.push(word);
        is_new
    }

    /// A report that is heard at once.
    pub(super) fn report(&mut self, from: usize, to: usize) {
        self.tell(from, to);
        self.hear(self.words.len() - 1);
    }

    /// A word arrives, for the first time or once more.
    pub(super) fn hear(&mut self, i: usize) {
        let (to, told) = self.words[i];
        self.nodes[to].ledger.hear(&told);
        self.refloor(to);
    }

    /// The oldest of some newcomers that hold the same founds a set: none of them is counted.
    pub(super) fn found(&mut self, n: usize) {
        let (now, node) = (self.now, &mut self.nodes[n]);
        let id = Uuid::from_u128(u128::from(node.fresh(n)));
        let founding = Founding { at: at(now), id };
        node.ledger = Ledger::founder(node.ledger.id, node.ledger.start, founding, false);
        node.best = node.held.clone();
    }

    /// A whole session.
    pub(super) fn meet(&mut self, a: usize, b: usize) {
        self.open(a, b);
        let i = self.sessions.len() - 1;
        while self.step(i, false) {}
    }

    /// Hashes what healing starts from.
    pub(super) fn hash_healed<H: Hasher>(&self, state: &mut H) {
        for node in &self.nodes {
            (&node.ledger, &node.held, &node.best).hash(state);
        }
        (self.now, &self.accepted, &self.excused).hash(state);
    }

    /// Heals everything, and judges what clients may rely on.
    pub(super) fn heal_and_judge(mut self) {
        self.sessions.clear();
        self.pushes.clear();
        self.words.clear();
        self.nodes.iter_mut().for_each(|node| node.ahead = 0);
        self.now += 60;
        let healed_at = self.now;
        for round in 0..16 {
            self.now += 5;
            for a in 0..self.nodes.len() {
                for b in a + 1..self.nodes.len() {
                    self.meet(a, b);
                }
                self.alone(a);
            }
            let counted = self.nodes.iter().any(|node| node.ledger.counted);
            if !counted && round == 3 {
                self.found(0);
            }
            if self.has_settled(healed_at) {
                break;
            }
        }
        self.judge(healed_at);
    }

    /// Whether another round of sessions could not change anything but the numbers.
    fn has_settled(&self, healed_at: u64) -> bool {
        let mut serving = self.nodes.iter().filter(|node| node.ledger.gone().is_none());
        let Some(one) = serving.next() else { return true };
        std::iter::once(one).chain(serving).all(|node| {
            node.ledger.counted
                && node.ledger.set == one.ledger.set
                && node.held == one.held
                && node.ledger.floor.0 >= at(healed_at)
        })
    }

    fn judge(&mut self, healed_at: u64) {
        let serving: Vec<_> = (0..self.nodes.len()).filter(|n| self.serves(*n)).collect();
        let lost = self.accepted.iter().filter(|(_, slot)| !serving.contains(slot));
        self.excused.extend(lost.map(|(header, _)| header.version.uuid));
        let now = at(self.now);
        let live = |held: &Option<Header>| held.clone().filter(|held| held.is_live(now));
        let Some(first) = serving.first().map(|n| &self.nodes[*n]) else { return };
        let view = live(&first.held);
        for n in &serving {
            let node = &self.nodes[*n];
            assert_eq!(live(&node.held), view, "nodes disagree after healing");
            assert_eq!(node.ledger.set, first.ledger.set, "sets differ after healing");
            let waits = node.ledger.floor.0 < at(healed_at);
            let absent = node
                .ledger
                .set
                .iter()
                .flat_map(DurableSet::members)
                .any(|id| !serving.iter().any(|n| self.nodes[*n].ledger.id == id));
            assert!(!waits || absent, "the floor waits for nobody: {:?}", node.ledger);
            if node.ledger.floor == first.ledger.floor {
                assert_eq!(node.held, first.held, "equal floors, different records");
            }
            node.ledger.check_invariants();
        }
        let kept = self.accepted.iter().filter(|(h, _)| !self.excused.contains(&h.version.uuid));
        let Some((best, _)) = kept.max_by_key(|(header, _)| header.version) else { return };
        if let Some(view) = &view {
            assert!(view.version >= best.version, "a dead value came back: {view:?}, {best:?}");
        }
        let stray = self.accepted.iter().any(|(header, _)| {
            self.excused.contains(&header.version.uuid) && header.version > best.version
        });
        let shown = view.is_some_and(|view| view.version >= best.version);
        assert!(!best.is_live(now) || shown || stray, "lost without a report: {best:?}");
    }
}
