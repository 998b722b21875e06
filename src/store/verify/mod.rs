//! Verifies data that no node uses: computes again all that can be computed, and names what
//! disagrees.
//!
//! Reads alone. One pass in key order covers records, revisions and large values; each index and
//! each log has a pass of its own. What is held in memory is bounded, however much data there is.

mod feed;
mod meta;
mod records;
mod reports;
mod requests;
mod times;

#[cfg(test)]
pub(super) mod tests;

use uuid::Uuid;

use super::disk::engine::{Engine, Family};
use super::disk::identity::{self, Identity, OpenError};
use super::disk::layout::FORMAT_VERSION;
use super::{Counts, ReadError};
use crate::proto::digest::ElementKey;
use crate::proto::stability::Floor;

/// After how many entries the progress is told again.
const PROGRESS_ENTRIES: u64 = 1000;

/// What to do about an entry that the node needs to start or to answer.
const RESTORE: &str = "restore the data directory from a backup; in a cluster, start the node with \
                       an empty one instead, and the other members fill it";

/// What a cluster's secret says of its data.
#[derive(Clone, Copy, Debug)]
pub struct ClusterKeys {
    /// The id of the cluster.
    pub cluster: Uuid,
    /// The key of its digests.
    pub digest_key: [u8; 32],
}

/// Something that disagrees with what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Where it lies.
    pub family: Family,
    /// The key of the record, or another name of the entry; empty for the family as a whole.
    pub key: String,
    /// What disagrees.
    pub problem: String,
    /// What to do.
    pub advice: &'static str,
}

/// News of a verification.
#[derive(Debug)]
pub enum VerifyNews {
    /// So many entries have been read.
    Progress(u64),
    /// One of them disagrees.
    Found(Disagreement),
}

/// What was verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified {
    /// Records, live and dead.
    pub counts: Counts,
    /// Earlier revisions.
    pub revisions: u64,
    /// Values that lie apart from their records.
    pub values: u64,
    /// Values that expire and were not swept.
    pub expiring: u64,
    /// Remembered requests.
    pub requests: u64,
    /// Changes in the feed's window.
    pub changes: u64,
    /// Reports of superseded writes.
    pub reports: u64,
    /// The fingerprint of all records; `None` without the keys of the cluster that they belong to.
    pub fingerprint: Option<[u8; 32]>,
    /// How many entries disagree.
    pub found: u64,
}

/// A verification in progress.
struct Check<'a> {
    engine: &'a dyn Engine,
    tell: &'a mut dyn FnMut(VerifyNews),
    /// Whether the format has an index of the dead: a node makes it when it opens older data.
    indexes_dead: bool,
    /// The floor of a counted node: it has dropped every dead record up to there.
    floor: Floor,
    read: u64,
    done: Verified,
}

/// Verifies everything in `engine`. Tells of each thing that disagrees, in the order in which it is
/// met.
///
/// # Errors
/// When the data has another format, or belongs to another cluster than `keys`.
pub fn verify(
    engine: &dyn Engine,
    keys: Option<&ClusterKeys>,
    tell: &mut dyn FnMut(VerifyNews),
) -> Result<Verified, OpenError> {
    let format = identity::check_format(engine)?;
    let indexes_dead = format.is_none_or(|format| format >= FORMAT_VERSION);
    let (floor, done) = (Floor::default(), Verified::default());
    let mut check = Check { engine, tell, indexes_dead, floor, read: 0, done };
    let meta = check.meta();
    let counted = meta.ledger.as_ref().filter(|ledger| ledger.counted);
    check.floor = counted.map_or(floor, |ledger| ledger.floor);
    let key = digest_key(meta.identity.as_ref(), keys)?;
    for (family, pass) in [
        (Family::Records, check.records(key)),
        (Family::Expiry, check.expiry()),
        (Family::Dead, check.dead()),
        (Family::Requests, check.requests(meta.requests_bytes)),
        (Family::Feed, check.feed(&meta)),
        (Family::Superseded, check.reports(meta.reports)),
    ] {
        if let Err(error) = pass {
            let problem = format!("not all of it can be read: {error}");
            check.found(family, "", problem, RESTORE);
        }
    }
    assert!(check.indexes_dead || check.floor == Floor::default(), "an old format has a floor");
    (check.tell)(VerifyNews::Progress(check.read));
    Ok(check.done)
}

/// The key of the digest of these data, if it is known.
fn digest_key(
    identity: Option<&Identity>,
    keys: Option<&ClusterKeys>,
) -> Result<Option<ElementKey>, OpenError> {
    let key = match (identity.and_then(|identity| identity.cluster), keys) {
        (Some(found), Some(keys)) if found != keys.cluster => {
            return Err(OpenError::OtherCluster { found, configured: keys.cluster });
        }
        (_, Some(keys)) => Some(keys.digest_key),
        (None, None) => Some([0; 32]),
        (Some(_), None) => None,
    };
    Ok(key.map(|key| ElementKey::new(&key)))
}

impl Check<'_> {
    fn found(&mut self, family: Family, key: &str, problem: String, advice: &'static str) {
        self.done.found += 1;
        let key = key.to_owned();
        (self.tell)(VerifyNews::Found(Disagreement { family, key, problem, advice }));
    }

    /// Counts an entry that was read.
    fn count(&mut self) {
        self.read += 1;
        if self.read.is_multiple_of(PROGRESS_ENTRIES) {
            (self.tell)(VerifyNews::Progress(self.read));
        }
    }
}

/// What is meant by an error of decoding, without the key, which stands beside it.
fn problem_of(error: &ReadError) -> String {
    match error {
        ReadError::Damaged { problem, .. } => format!("it cannot be decoded: {problem}"),
        other => other.to_string(),
    }
}

/// The key of a record for people, as far as it is readable.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
