//! WHAT the data is: keys, versions, records and the rules that decide between them.
//!
//! Pure: no input or output, no clock, no randomness, no async. A rule takes all that it depends on
//! as arguments, so that every node, the simulator and the tests decide alike. Must not know how
//! data is stored, sent or served.

pub mod condition;
pub mod duration;
pub mod held;
pub mod json;
pub mod key;
pub mod member;
pub mod merge;
pub mod record;
pub mod seen;
pub mod timestamp;
pub mod version;

pub use condition::{Condition, Expected, Tags};
pub use held::HeldBack;
pub use key::{Key, KeyError, Prefix};
pub use member::{Member, MemberError, MemberState, NodeId};
pub use merge::{Merged, merge};
pub use record::{Content, ContentType, Header, Record};
pub use seen::Seen;
pub use timestamp::Timestamp;
pub use version::Version;

/// The first 64 characters of a text from outside, for an error message.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
