//! Requests with a request id, and the answers that retries must get.
//!
//! On the node and the disk that accepted it, within the window, a retry gets the first answer.
//! Elsewhere, or later, the request can be done anew. How long a node waits for its disk is unknown
//! beforehand, so where the window is short nothing depends on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kvs::store::WriteError;
use uuid::Uuid;

use super::Audit;
use super::asked::{Answer, Asked, Attempt, Request};

/// How many requests of one node are remembered for retries.
const RECENT_MAX: usize = 200;

/// A request id, and the slot of the node where it was used.
pub type Name = (Uuid, usize);

/// What a repeated request must lead to.
#[derive(Clone, Debug)]
pub enum Ticket {
    /// The outcome is decided, now or before, and no client has learned it yet.
    Attempt(u64),
    /// The first answer.
    Again { name: Name, first: Box<Answer> },
    /// A refusal: another request with this request id was accepted.
    Other { name: Name },
}

struct Named {
    request: Request,
    /// How many disks the node had lost.
    disk: u32,
    number: u64,
    answer: Option<Answer>,
    /// All answers that it ever got.
    answers: Vec<Answer>,
}

#[derive(Default)]
pub struct Retries {
    by_name: BTreeMap<Name, Named>,
    by_attempt: BTreeMap<u64, Name>,
    recent: BTreeMap<usize, VecDeque<Uuid>>,
    /// Requests whose outcome no client learned.
    unheard: BTreeMap<usize, VecDeque<Uuid>>,
    used: BTreeSet<Uuid>,
    /// Request ids used for several attempts: on several nodes or disks, or after a refusal.
    shared: BTreeSet<Uuid>,
}

impl Retries {
    /// Whether several writes can legitimately have this uuid.
    pub fn is_shared(&self, uuid: Uuid) -> bool {
        self.shared.contains(&uuid)
    }

    fn begin(&mut self, slot: usize, request: &Request, attempt: &Attempt, number: u64) {
        let Some(uuid) = request.uuid() else { return };
        let name = (uuid, slot);
        let before = self.by_name.remove(&name);
        if !self.used.insert(uuid) {
            self.shared.insert(uuid);
        }
        self.by_attempt.insert(number, name);
        let recent = self.recent.entry(slot).or_default();
        if before.is_none() {
            recent.push_back(uuid);
        }
        if recent.len() > RECENT_MAX {
            recent.pop_front();
        }
        let (disk, answers) = (attempt.disk, before.map(|before| before.answers));
        let request = request.clone();
        let answers = answers.unwrap_or_default();
        self.by_name.insert(name, Named { request, disk, number, answer: None, answers });
    }

    /// Notes that no client learned the outcome of an attempt.
    pub fn is_unheard(&mut self, number: u64) {
        if let Some((uuid, slot)) = self.by_attempt.get(&number) {
            self.unheard.entry(*slot).or_default().push_back(*uuid);
        }
    }

    fn of(&mut self, number: u64) -> Option<&mut Named> {
        self.by_name.get_mut(self.by_attempt.get(&number)?)
    }
}

impl Audit {
    /// A request to retry, and whether another request with its request id will certainly be
    /// refused. Number zero is the latest.
    pub fn asked_before(&self, slot: usize, latest: usize) -> Option<(Request, bool)> {
        let recent = self.retries.recent.get(&slot)?;
        let uuid = recent.iter().rev().nth(latest)?;
        let named = self.retries.by_name.get(&(*uuid, slot))?;
        let is_sure = named.answer.is_some() && self.remembers(slot, named);
        Some((named.request.clone(), is_sure))
    }

    /// A request whose outcome no client learned.
    pub fn unheard(&mut self, slot: usize) -> Option<Request> {
        let uuid = self.retries.unheard.get_mut(&slot)?.pop_front()?;
        Some(self.retries.by_name.get(&(uuid, slot))?.request.clone())
    }

    /// How many of them there are.
    pub fn asked_before_count(&self, slot: usize) -> usize {
        self.retries.recent.get(&slot).map_or(0, VecDeque::len)
    }

    /// Whether the node must remember the request.
    fn remembers(&self, slot: usize, named: &Named) -> bool {
        self.rules.remembers && named.disk == self.disk(slot)
    }

    /// What a request that is not asked for the first time must lead to.
    pub(super) fn retry(&mut self, asked: Asked, request: &Request) -> Option<Ticket> {
        let name = (request.uuid()?, asked.slot);
        let named = self.retries.by_name.get(&name)?;
        if !self.remembers(asked.slot, named) {
            return None;
        }
        if !named.request.is(request) {
            assert!(named.answer.is_some(), "a client altered a request that was not accepted");
            return Some(Ticket::Other { name });
        }
        if let Some(first) = &named.answer {
            return Some(Ticket::Again { name, first: Box::new(first.clone()) });
        }
        let number = named.number;
        // A refused request is not remembered.
        let attempt = self.attempts.get_mut(&number)?;
        attempt.waiting += 1;
        attempt.was_repeated = true;
        Some(Ticket::Attempt(number))
    }

    pub(super) fn begin_named(&mut self, number: u64) {
        self.follow_earlier(number);
        if let Some(attempt) = self.attempts.get(&number) {
            self.retries.begin(attempt.asked.slot, &attempt.request, attempt, number);
        }
    }

    /// Makes an attempt begin where an earlier one of the same request began whose outcome is
    /// unknown: the node may have done that one, may remember it still, and then answers as it did
    /// then.
    fn follow_earlier(&mut self, number: u64) {
        let Some(attempt) = self.attempts.get(&number) else { return };
        let name = attempt.request.uuid().map(|uuid| (uuid, attempt.asked.slot));
        let named = name.and_then(|name| self.retries.by_name.get(&name));
        let named = named.filter(|named| named.request.is(&attempt.request));
        let earlier = named.and_then(|named| self.attempts.get(&named.number));
        let Some(earlier) = earlier.map(|earlier| (earlier.before.clone(), earlier.began)) else {
            return;
        };
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        (attempt.before, attempt.began) = earlier;
        attempt.was_repeated = true;
    }

    /// Whether an earlier attempt got this answer, so that this attempt wrote nothing.
    pub(super) fn is_answered_before(&mut self, number: u64, answer: &Answer) -> bool {
        let Some(named) = self.retries.of(number) else { return false };
        let first = named.answer.clone().filter(|_| named.number == number);
        let was_given = named.answers.iter().any(|given| answer.repeats(given));
        if let Some(first) = first.filter(|first| !answer.repeats(first)) {
            let name = self.retries.by_attempt[&number];
            self.differs(&name, &first, answer);
        }
        if was_given {
            self.tally.repeated += 1;
            if self.attempts.get(&number).is_some_and(|attempt| attempt.branch.is_none()) {
                self.settle(number, &[]);
                self.close(number);
            }
        }
        was_given
    }

    /// Checks an accepted request.
    pub(super) fn answered_named(&mut self, number: u64, answer: &Answer, was_unknown: bool) {
        let Some(named) = self.retries.of(number) else { return };
        named.answers.push(answer.clone());
        if named.number == number {
            named.answer = Some(answer.clone());
        }
        self.tally.resolved += u64::from(was_unknown);
    }

    pub(super) fn answered_again(
        &mut self,
        name: &Name,
        first: &Answer,
        outcome: Result<Answer, WriteError>,
    ) {
        match outcome {
            Ok(answer) if answer.repeats(first) => self.tally.repeated += 1,
            Ok(answer) => self.differs(name, first, &answer),
            Err(error) if says_nothing(&error) => {}
            Err(error) => {
                let what = format!("a retry of an accepted request was refused with {error:?}");
                self.violated_by(name, &what);
            }
        }
    }

    pub(super) fn answered_other(&mut self, name: &Name, outcome: Result<Answer, WriteError>) {
        match outcome {
            Err(WriteError::OtherRequest) => self.tally.mismatched += 1,
            Err(error) if says_nothing(&error) => {}
            outcome => {
                let what =
                    format!("another request with a used request id was answered {outcome:?}");
                self.violated_by(name, &what);
            }
        }
    }

    fn differs(&self, name: &Name, first: &Answer, answer: &Answer) -> ! {
        let (first, now) = (first.brief(), answer.brief());
        self.violated_by(
            name,
            &format!("a retry was answered {now}, but the first attempt {first}"),
        )
    }

    fn violated_by(&self, name: &Name, what: &str) -> ! {
        let request = self.retries.by_name.get(name).map(|named| &named.request);
        let key = request.and_then(|request| request.keys().pop_first());
        self.violated(key.as_ref(), &format!("{what}; the request is {request:?}"))
    }
}

/// Whether an error is about the node and not about the request.
pub(super) fn says_nothing(error: &WriteError) -> bool {
    matches!(
        error,
        WriteError::OutcomeUnknown(_)
            | WriteError::ShuttingDown
            | WriteError::StorageFull(_)
            | WriteError::Failed(_)
    )
}
