//! Removing records that were set aside, whole: the record, its value, its revisions and all that
//! indexes know of it.
//!
//! No change in the feed says so. A `delete` would name a version that nobody wrote and that no
//! node holds, and the key may have another node's value a moment later. Instead the feed begins a
//! new epoch in the same transaction: whoever followed it before is told to read the keys anew.

use super::effects::{Effect, Effects};
use super::job::Job;
use super::replace;
use super::superseded;
use super::view::View;
use crate::model::{Header, Key};
use crate::store::disk::layout;
use crate::store::{ReadError, Store, WriteError};

impl Store {
    /// Removes the records that these keys have, where they are still the ones with these headers.
    /// The caller has kept them elsewhere: this is for what a node sets aside when it begins anew.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn set_aside(&self, records: Vec<(Key, Header)>) -> Result<(), WriteError> {
        self.submit(|reply| Job::SetAside { records, reply }).await
    }
}

/// Removes what `key` has, if it is still the record with this header.
pub(super) fn decide(
    view: &mut View<'_>,
    key: &Key,
    header: &Header,
) -> Result<((), Effects), WriteError> {
    let mut effects = Effects::default();
    if remove(view, key, header, &mut effects).map_err(WriteError::Failed)? {
        effects.push(Effect::PutMeta { name: layout::SET_ASIDE, value: layout::encode_meta(&()) });
        effects.push(Effect::BeginEpoch);
    }
    Ok(((), effects))
}

/// Returns whether it was still there.
fn remove(
    view: &mut View<'_>,
    key: &Key,
    header: &Header,
    effects: &mut Effects,
) -> Result<bool, ReadError> {
    let Some(mut current) = view.current(key)?.filter(|current| current.stored.header == *header)
    else {
        return Ok(false);
    };
    superseded::set_aside(view, key, &mut current, effects)?;
    replace::drop_record(view, key, &current.stored, effects)?;
    Ok(true)
}
