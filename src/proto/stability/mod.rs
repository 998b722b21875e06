//! When the dead may go: the four numbers of a node, and what two nodes may conclude of each other.
//!
//! All is state in, decisions out: no clock, no entropy, no disk. The caller drives it so:
//!
//! 1. A process opens its [`Ledger`], calls [`Ledger::start`] once, and stores the result before it
//!    talks to anybody.
//! 2. A session opens with an [`Introduction`] from each side. Each calls [`Ledger::judge`] on the
//!    other's, before it adopts a floor, tells anything or takes a push, and acts by the
//!    [`Judgement`]. Both go on to compare only when both judged [`Judgement::Compare`].
//! 3. Sides that compare call [`Ledger::unite`], raise the floor of their store to what it returns,
//!    tell [`Ledger::begin`] and keep the [`Claim`]. They bar the claim with what happens, and at
//!    the end call [`Ledger::finish`] with the other's last word, then tell [`Ledger::tell`].
//! 4. After each [`Ledger::hear`] the caller asks [`Ledger::next_floor`], collects in bounded steps
//!    what [`floor::may_go`] allows, and calls [`Ledger::raise_floor`] with each step.
//! 5. A newcomer follows one source through [`newcomer::Follow`].
//! 6. What a session brings is merged only while [`Ledger::goes_on`] says so, what a push brings
//!    only while [`Ledger::takes_from`] does, both asked in the transaction that merges.
//!
//! What others may come to rely on is wrapped in [`AfterPersist`]: the ledger must be durable
//! before the value is sent.

pub mod floor;
pub mod ledger;
pub mod newcomer;
pub mod opening;
pub mod session;
pub mod set;

pub use ledger::{AfterPersist, Bearer, Ledger, Life};
pub use newcomer::{Follow, Offer};
pub use opening::{Anew, Introduction, Judgement, NoOpening};
pub use session::{Bar, Claim, LastWord, SessionBegin, StableTold};
pub use set::{DurableSet, Floor, Founding, Point, SetName, Stable, Start, WhyGone};

#[cfg(test)]
mod explore_tests;
#[cfg(test)]
#[expect(clippy::similar_names, reason = "a word of a world")]
mod stories_tests;
#[cfg(test)]
#[expect(clippy::many_single_char_names, reason = "the two sides of a session, and what they have")]
mod world_tests;
