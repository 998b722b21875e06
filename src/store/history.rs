//! What a key was before: the revisions that this node saw.
//!
//! A record that is replaced becomes a revision as it stands, under the key and a number that only
//! grows; the entry of the current record says which numbers there are. So keeping one is one
//! write, dropping the oldest one deletion, and nothing is ever searched for.

use bytes::Bytes;
use uuid::Uuid;

use super::engine::Family;
use super::group::{Group, Held};
use super::layout::{self, Body, Stored};
use super::{Outcome, ReadError, Revision, Shared, Store, WriteError};
use crate::model::{Key, Timestamp};

/// How often a history is read anew because the key was written meanwhile.
const ATTEMPTS_MAX: u32 = 8;

impl Group<'_> {
    /// Makes a revision of what the key has, and drops those beyond the depth; gives the numbers
    /// that are left.
    pub(super) fn keep_revision(
        &mut self,
        key: &Key,
        held: Held,
    ) -> Result<(u64, u64), WriteError> {
        let Held { stored, raw } = held;
        let (mut first, mut next) = stored.revisions;
        if let Some(at) = stored.header.expires_at.filter(|_| stored.body != Body::Swept) {
            let entry = layout::expiry_key(at, key);
            self.change(|transaction| transaction.delete(Family::Expiry, &entry))?;
        }
        if self.rules.history_depth == 0 {
            self.free_body(key, &stored)?;
        } else {
            let at = layout::revision_key(key, next);
            self.put_entry(Family::History, &at, &raw)?;
            next += 1;
        }
        while next - first > self.rules.history_depth {
            self.drop_revision(key, first)?;
            first += 1;
        }
        Ok((first, next))
    }

    fn drop_revision(&mut self, key: &Key, number: u64) -> Result<(), WriteError> {
        match self.revision(key, number) {
            Ok(Some(stored)) => self.free_body(key, &stored)?,
            Ok(None) => {}
            // nothing needs it any more; a large value of it stays
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::error!(%error, number, "a damaged revision is dropped");
            }
            Err(error) => return Err(self.spoil(error)),
        }
        let at = layout::revision_key(key, number);
        self.change(|transaction| transaction.delete(Family::History, &at))
    }

    /// A revision as this group sees it.
    pub(super) fn revision(&mut self, key: &Key, number: u64) -> Result<Option<Stored>, ReadError> {
        let at = layout::revision_key(key, number);
        let raw = self.transaction.get_for_update(Family::History, &at)?;
        raw.map(|raw| Stored::decode_for(key.as_bytes(), &raw)).transpose()
    }

    /// Frees the value of a record that is kept apart from its header.
    pub(super) fn free_body(&mut self, key: &Key, stored: &Stored) -> Result<(), WriteError> {
        if stored.body != Body::Apart {
            return Ok(());
        }
        let at = layout::blob_key(key, &stored.hash);
        self.change(|transaction| transaction.delete(Family::Values, &at))
    }
}

/// The revisions of a key, newest first, and its entry when they were read.
struct Read {
    current: Stored,
    older: Vec<Stored>,
}

impl Store {
    /// The revisions of `key` that this node keeps, newest first, at most `limit` of them; bytes up
    /// to `content_bytes_max` each. Empty: nothing was ever written here.
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub async fn history(
        &self,
        key: &Key,
        limit: usize,
        content_bytes_max: u64,
    ) -> Result<Vec<Revision>, ReadError> {
        let small = move |stored: &Stored| stored.header.content.size() <= content_bytes_max;
        self.revisions(key, limit, small).await
    }

    /// The revision of `key` with this uuid, the newest if there are several, with its bytes unless
    /// they were freed when it expired.
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub async fn revision(&self, key: &Key, uuid: Uuid) -> Result<Option<Revision>, ReadError> {
        let is_it = move |stored: &Stored| stored.header.version.uuid == uuid;
        let all = self.revisions(key, usize::MAX, is_it).await?;
        Ok(all.into_iter().find(|revision| revision.header.version.uuid == uuid))
    }

    async fn revisions(
        &self,
        key: &Key,
        limit: usize,
        with_body: impl Fn(&Stored) -> bool + Send + 'static,
    ) -> Result<Vec<Revision>, ReadError> {
        let key = key.clone();
        let read = move |store: &Self| store.shared.history(&key, limit, with_body);
        let (revisions, died) = self.blocking(read).await?;
        self.keep_death(died).await;
        Ok(revisions)
    }
}

impl Shared {
    /// The revisions, and when the newest died if its time alone says so; of the others, those that
    /// replaced them tell.
    fn history(
        &self,
        key: &Key,
        limit: usize,
        with_body: impl Fn(&Stored) -> bool,
    ) -> Result<(Vec<Revision>, Option<Timestamp>), ReadError> {
        let mut attempts = 0;
        loop {
            let Some(read) = self.read_history(key, limit)? else { return Ok((Vec::new(), None)) };
            let now = self.now();
            let revisions = self.revisions(key, &read, now, &with_body)?;
            attempts += 1;
            // written meanwhile: something may have been dropped while it was read
            let same = self.stored(key)?.is_some_and(|now| now == read.current);
            if same || attempts == ATTEMPTS_MAX {
                return Ok((revisions, read.current.died(now)));
            }
        }
    }

    fn read_history(&self, key: &Key, limit: usize) -> Result<Option<Read>, ReadError> {
        let Some(current) = self.stored(key)? else { return Ok(None) };
        let (first, next) = current.revisions;
        let mut older = Vec::new();
        for number in (first..next).rev().take(limit.saturating_sub(1)) {
            let raw = self.engine.get(Family::History, &layout::revision_key(key, number))?;
            let Some(raw) = raw else { break };
            older.push(Stored::decode_for(key.as_bytes(), &raw)?);
        }
        Ok(Some(Read { current, older }))
    }

    fn revisions(
        &self,
        key: &Key,
        read: &Read,
        now: Timestamp,
        with_body: &impl Fn(&Stored) -> bool,
    ) -> Result<Vec<Revision>, ReadError> {
        let mut successor: Option<&Stored> = None;
        let mut revisions = Vec::with_capacity(read.older.len() + 1);
        for stored in std::iter::once(&read.current).chain(&read.older) {
            let body = if with_body(stored) { self.revision_body(key, stored)? } else { None };
            // what a value's time was over for by then did not replace it
            let ended = successor.map_or(now, |next: &Stored| next.header.version.timestamp);
            let outcome = match (stored.header.expires_at, successor) {
                (Some(at), _) if at <= ended => Outcome::Expired,
                (Some(_), None) if stored.body == Body::Swept => Outcome::Expired,
                (_, Some(_)) => Outcome::Replaced,
                (_, None) => Outcome::Current,
            };
            let by = successor.map(|next| next.header.version.uuid);
            revisions.push(Revision { header: stored.header.clone(), body, outcome, by });
            successor = Some(stored);
        }
        Ok(revisions)
    }

    fn revision_body(&self, key: &Key, stored: &Stored) -> Result<Option<Bytes>, ReadError> {
        match &stored.body {
            Body::Inline(body) => Ok(Some(body.clone())),
            Body::Apart => {
                let at = layout::blob_key(key, &stored.hash);
                Ok(self.engine.get(Family::Values, &at)?)
            }
            Body::Swept => Ok(None),
        }
    }
}
