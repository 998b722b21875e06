//! The opening of a session and of a push stream: who each side is, and what follows from it.
//!
//! Promises that whatever the peer says of itself is judged, and the judgement durable, before
//! anything of it is adopted or anything is told. The rules are in `proto::stability`; this is how
//! they reach the store and the wire.

use super::context::Context;
use crate::model::{NodeId, Timestamp};
use crate::proto::stability::{
    AfterPersist, Anew, Claim, Introduction, Judgement, LastWord, Ledger, NoOpening, SessionBegin,
    WhyGone,
};
use crate::store::{ReadError, WriteError};

/// Why a node of a set that was founded apart does not join by itself.
const APART: &str = "this node stands apart: its data was written while the cluster of the peer \
                     had already settled what was written then; `kvs join --own set_aside` joins \
                     it and keeps that data in a file, `--own rewrite` writes it anew as well";

/// Why a node could not begin anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeginAnewError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// How many nodes may ever have joined a durable set: more would not fit the ledger.
const JOINED_MAX: usize = 8192;

impl Context {
    /// What this node says of itself.
    pub(super) fn introduce(&self) -> Introduction {
        self.store.ledger().introduce(self.clock.now())
    }

    /// Whether two newcomers leave each other alone for now: this one follows a source, which an
    /// exchange would end.
    pub(super) fn is_busy_with(&self, them: &Introduction) -> bool {
        !them.counted && !self.store.ledger().counted && self.intake.is_following()
    }

    /// Judges what a peer says of itself; the judgement is durable.
    pub(super) async fn judge(&self, them: &Introduction) -> Result<Judgement, WriteError> {
        let (them, drift) = (them.clone(), self.settings.clock_drift_max);
        self.change_ledger_if_news(move |ledger, now| ledger.judge(&them, now, drift)).await
    }

    /// Changes the ledger; a change that is none needs no turn of the writer, and most are none.
    pub(super) async fn change_ledger_if_news<T: Send + 'static>(
        &self,
        change: impl Fn(&mut Ledger, Timestamp) -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let known = self.store.ledger();
        let mut ledger = (*known).clone();
        let answer = change(&mut ledger, self.clock.now());
        if ledger == *known {
            return Ok(answer);
        }
        self.store.change_ledger(change).await
    }

    /// Unites the durable sets and begins the comparison of two counted nodes; `None` when the set
    /// shows meanwhile that one of them is gone. `claims` says whether the clocks agreed when the
    /// two were judged; no point is told by a clock that was set since.
    pub(super) async fn begin(
        &self,
        them: &Introduction,
        claims: bool,
    ) -> Result<Option<SessionBegin>, WriteError> {
        let (united, theirs) = (them.clone(), them.clock);
        let (clock, judged, drift) =
            (self.clock.clone(), self.clock.instant(), self.settings.clock_drift_max);
        let floor = self.store.change_ledger(move |ledger, _| ledger.unite(&united)).await?;
        let Some(floor) = floor else { return Ok(None) };
        self.store.adopt_floor(floor).await?;
        let begin = move |ledger: &mut Ledger, now: Timestamp| {
            let theirs = theirs.plus(clock.instant().saturating_duration_since(judged));
            let agree = now.since(theirs) <= drift && theirs.since(now) <= drift;
            ledger.begin(claims && agree, now)
        };
        let begin = self.store.change_ledger(begin).await?;
        Ok(begin.map(AfterPersist::ledger_is_durable))
    }

    /// Begins anew, as far as this node does so by itself; the text says why not.
    pub(super) async fn begin_anew(
        &self,
        why: Anew,
        them: &Introduction,
    ) -> Result<Result<(), String>, BeginAnewError> {
        let told = them.told.0;
        if matches!(why, Anew::Apart { .. })
            && !*self.may_join.borrow()
            && self.store.blocking(move |store| store.holds_up_to(told)).await?
        {
            self.status.stands_apart(them.id, true);
            return Ok(Err(APART.to_owned()));
        }
        self.status.stands_apart(them.id, false);
        tracing::warn!("this node begins anew as a new member: {}", because(why));
        self.store.begin_anew(why, them.clone()).await?;
        self.status.wait_again();
        Ok(Ok(()))
    }

    /// Keeps what the peer told at its begin.
    pub(super) async fn hear_begin(&self, theirs: SessionBegin) -> Result<Claim, WriteError> {
        let own = self.store.identity().node;
        self.status.holds_of_this(theirs.id, theirs.have.get(&own).map(|point| point.0));
        self.store.change_ledger(move |ledger, _| ledger.hear_begin(theirs)).await
    }

    /// Claims what a finished comparison proves.
    pub(super) async fn finish(&self, claim: Claim, word: LastWord) -> Result<(), WriteError> {
        let finish = move |ledger: &mut Ledger, _| {
            ledger.finish(&claim, word);
            // told with the next report
            _ = ledger.tell();
        };
        self.store.change_ledger(finish).await
    }
}

/// Checks the bounds of what a peer says of itself.
pub(super) fn check(them: &Introduction, from: NodeId) -> Result<(), String> {
    let joined = them.set.as_ref().map_or(0, |set| set.joined.len().max(set.gone.len()));
    if them.id != from {
        return Err(format!("it introduces itself as {}, and is {from}", them.id));
    }
    if joined > JOINED_MAX {
        return Err(format!("its durable set names {joined} nodes, more than {JOINED_MAX}"));
    }
    Ok(())
}

/// Why no session follows, for people.
pub(super) fn in_words(why: NoOpening) -> String {
    let gone = |why| match why {
        WhyGone::Forgotten => "was forgotten",
        WhyGone::Left => "left the cluster",
        WhyGone::SetBack => "had its disk set back",
        WhyGone::BegunAnew => "began anew under another id",
    };
    match why {
        NoOpening::OtherSet => "the newcomer belongs to another durable set".to_owned(),
        NoOpening::LaterStart => "a later start of one of the two nodes is known; another session \
                                  will follow"
            .to_owned(),
        NoOpening::Clocks => "the clocks are further apart than sync.clock_drift_max; a node \
                              receives its first data only from one whose clock agrees"
            .to_owned(),
        NoOpening::Gone(why) => format!("the peer {}", gone(why)),
        NoOpening::Removed(why) => {
            format!("this node {}; `kvs join` lets it begin anew as a new member", gone(why))
        }
    }
}

/// Why a node begins anew, for people.
pub(super) fn because(why: Anew) -> &'static str {
    match why {
        Anew::NotCounted => "the others went on without it",
        Anew::SetBack => "its disk was set back to an earlier state",
        Anew::Unknown => "none of the members that knew it is left",
        Anew::Left => "it had left the cluster",
        Anew::Apart { .. } => "it was founded apart from the cluster that it met",
    }
}
