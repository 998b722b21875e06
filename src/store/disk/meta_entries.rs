//! The names of the entries in the meta family, each with what it holds.
//!
//! [`layout`](super::layout) shows them as its own: whoever reads or writes an entry names it as
//! `layout::NAME`, beside the functions that encode and decode it.

/// The format version of the whole disk, four bytes in little endian. The one entry that is not
/// encoded like the others, so that every release can read it.
pub const FORMAT: &str = "format";
/// The [`Identity`](super::identity::Identity) of the node, under which the data was opened.
pub const IDENTITY: &str = "identity";
/// Present once this node has had its first data, so that it no longer waits for a source.
pub const BOOTSTRAPPED: &str = "bootstrapped";
/// The members that this node has ever met, to find them again after a restart.
pub const MEMBERS: &str = "members";
/// The watermark of the expiry clock: what was judged as expired by then stays so, even when the
/// wall clock is set back.
pub const WATERMARK: &str = "judged";
/// Present once records were set aside: they left the store whole, and changes in the feed may
/// still name them.
pub const SET_ASIDE: &str = "set_aside";
/// The ids that this node had before it began anew, in the order in which it had them. Writes of
/// these origins are its own, too.
pub const FORMER_IDS: &str = "former_ids";
/// The [`Ledger`](crate::proto::stability::Ledger): what this node knows of stability.
pub const STABILITY: &str = "stability";
/// How many bytes all remembered requests take.
pub const REQUESTS_BYTES: &str = "requests_bytes";
/// Wall time minus the steady time that requests are remembered by, in microseconds; it may be
/// negative.
pub const REQUESTS_DISTANCE: &str = "requests_distance";
/// Which reports of superseded writes there are, and how many bytes they take.
pub const REPORTS: &str = "superseded";
/// The epoch of the feed, the first position of it, and the boot of the machine in which it began.
pub const FEED_EPOCH: &str = "feed_epoch";
