//! Reading the history of a key: the revisions that this node has seen.
//!
//! A replaced record becomes a revision, unchanged, under the key and a number that only grows. The
//! entry of the current record says which numbers there are, so keeping a revision is one write,
//! dropping the oldest one deletion, and reading them searches for nothing. They leave with the
//! current record, when the floor passes it.

use bytes::Bytes;
use uuid::Uuid;

use crate::model::{Key, Timestamp};
use crate::store::disk::engine::Family;
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::{Outcome, ReadError, Revision, Shared, Store};

/// How often a history is read again because the key was written meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// The entry of a key and its earlier revisions, newest first, as they were read one by one.
struct ReadHistory {
    current: Stored,
    older: Vec<Stored>,
}

impl Store {
    /// The newest revisions of `key`, newest first, at most `limit` of them, with their values up
    /// to
    /// `content_bytes_max` bytes each. Empty when this node has never held the key.
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

    /// The newest revision of `key` with this uuid, with its value unless that was freed after it
    /// expired.
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
        let (revisions, expired_at) = self.blocking(read).await?;
        self.cover_expiry(expired_at).await;
        Ok(revisions)
    }
}

impl Shared {
    /// The revisions, and when the newest one expired if it has. (Whether an older one expired
    /// follows from the timestamp of the one that replaced it, and from no clock.)
    pub(super) fn history(
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
            // if it was written meanwhile, a revision may have been dropped before it was read
            let same = self.stored(key)?.is_some_and(|now| now == read.current);
            if same || attempts == ATTEMPTS_MAX {
                return Ok((revisions, read.current.expired_at(now)));
            }
        }
    }

    fn read_history(&self, key: &Key, limit: usize) -> Result<Option<ReadHistory>, ReadError> {
        let Some(current) = self.stored(key)? else { return Ok(None) };
        let (first, next) = current.revisions;
        let mut older = Vec::new();
        for number in (first..next).rev().take(limit.saturating_sub(1)) {
            let raw = self.engine.get(Family::History, &layout::revision_key(key, number))?;
            let Some(raw) = raw else { break };
            older.push(Stored::decode_for(key.as_bytes(), &raw)?);
        }
        Ok(Some(ReadHistory { current, older }))
    }

    fn revisions(
        &self,
        key: &Key,
        read: &ReadHistory,
        now: Timestamp,
        with_body: &impl Fn(&Stored) -> bool,
    ) -> Result<Vec<Revision>, ReadError> {
        let mut successor: Option<&Stored> = None;
        let mut revisions = Vec::with_capacity(read.older.len() + 1);
        for stored in std::iter::once(&read.current).chain(&read.older) {
            let body = if with_body(stored) { self.revision_body(key, stored)? } else { None };
            // already expired when the next write came: it expired, it was not replaced
            let ended = successor.map_or(now, |next: &Stored| next.header.version.timestamp);
            let outcome = match (stored.header.expires_at, successor) {
                _ if stored.marks.superseded => Outcome::Superseded,
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
            Body::Apart => self.value(key, stored),
            Body::Swept => Ok(None),
        }
    }
}
