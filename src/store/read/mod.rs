//! The read wing: one key here, ranges in [`scan`], earlier revisions in [`history`], reports of
//! lost writes in [`superseded`], and the [`digest`] beside the data.
//!
//! Reads go to the engine and never wait for the writer, with one exception: before a client learns
//! that a value has expired, the watermark must cover that.

pub(super) mod digest;
mod history;
pub(super) mod large;
mod scan;
mod superseded;

use std::ops::ControlFlow;

use bytes::Bytes;

use super::disk::engine::Family;
use super::disk::layout::{self, Body, Stored};
use super::{Entry, ReadError, Shared, Store, missing_value};
use crate::model::{Header, Key, Record, Timestamp};

impl Store {
    /// Whether it holds a record with a timestamp at or below `end`, dead or alive. May read all.
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub fn holds_up_to(&self, end: Timestamp) -> Result<bool, ReadError> {
        let mut found = false;
        digest::visit_headers(self.shared.engine.as_ref(), &[], None, |_, summary| {
            found = summary.header.version.timestamp <= end;
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// The live value of `key` with its bytes. A value kept apart from its header is read on a
    /// thread that may block.
    ///
    /// # Errors
    /// When storage fails or the record is damaged.
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        while let Some(stored) = self.living(key).await? {
            if let Body::Inline(body) = stored.body {
                return Ok(Some(Entry { header: stored.header, body: Some(body) }));
            }
            let again = key.clone();
            let found = self.blocking(move |store| store.get_now(&again)).await?;
            if found.is_some() {
                return Ok(found);
            }
            // it expired or was deleted between the two reads
        }
        Ok(None)
    }

    /// The entry of `key`, if there is a live value.
    async fn living(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        let Some(stored) = self.shared.stored(key)? else { return Ok(None) };
        let now = self.shared.now();
        if stored.is_live(now) {
            return Ok(Some(stored));
        }
        self.cover_expiry(stored.expired_at(now)).await;
        Ok(None)
    }

    /// As [`Self::get`], on a thread that may block, and without covering an expiry.
    pub(super) fn get_now(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        let live = self.shared.live(key)?;
        Ok(live.map(|(stored, body)| Entry { header: stored.header, body: Some(body) }))
    }

    /// The live value of `key`, with its bytes where they lie behind the header.
    ///
    /// # Errors
    /// When storage fails or the record is damaged.
    pub async fn peek(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        Ok(self.living(key).await?.map(|stored| {
            let body = match stored.body {
                Body::Inline(body) => Some(body),
                Body::Apart | Body::Swept => None,
            };
            Entry { header: stored.header, body }
        }))
    }

    /// The header of the live value of `key`.
    ///
    /// # Errors
    /// When storage fails or the record is damaged.
    pub async fn head(&self, key: &Key) -> Result<Option<Header>, ReadError> {
        Ok(self.peek(key).await?.map(|entry| entry.header))
    }

    /// The record of `key`, dead or alive, as replication sends it; without bytes when they were
    /// swept.
    ///
    /// # Errors
    /// When storage fails or the record is damaged.
    pub async fn record(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        let Some(stored) = self.shared.stored(key)? else { return Ok(None) };
        if let Body::Inline(body) = stored.body {
            return Ok(Some(Record { header: stored.header, body }));
        }
        let key = key.clone();
        self.blocking(move |store| store.record_now(&key)).await
    }

    /// As [`Self::record`], on a thread that may block.
    ///
    /// # Errors
    /// When storage fails or the record is damaged.
    pub fn record_now(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        let found = self.shared.whole(key)?;
        Ok(found.map(|(stored, body)| Record { header: stored.header, body }))
    }
}

impl Shared {
    /// The entry of `key`.
    pub(super) fn stored(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        let bytes = self.engine.get(Family::Records, key.as_bytes())?;
        bytes.map(|bytes| Stored::decode_for(key.as_bytes(), &bytes)).transpose()
    }

    /// The entry of `key` with its bytes, which are empty when they were swept.
    pub(super) fn whole(&self, key: &Key) -> Result<Option<(Stored, Bytes)>, ReadError> {
        let mut found = self.stored(key)?;
        while let Some(stored) = found {
            let body = match &stored.body {
                Body::Inline(body) => Some(body.clone()),
                Body::Swept => Some(Bytes::new()),
                Body::Apart => self.value(key, &stored)?,
            };
            if let Some(body) = body {
                return Ok(Some((stored, body)));
            }
            // its record was replaced or swept between the two reads, or is damaged
            found = self.stored(key)?;
            if found.as_ref().is_some_and(|now| *now == stored) {
                return Err(missing_value(key));
            }
        }
        Ok(None)
    }

    /// The value that lies apart from `stored`, its entry; `None` if it is gone.
    fn value(&self, key: &Key, stored: &Stored) -> Result<Option<Bytes>, ReadError> {
        let at = layout::blob_key(key, &stored.hash);
        let read = || self.engine.get(Family::Values, &at);
        Ok(self.large_reads.run(stored.header.content.size(), read)?)
    }

    /// As [`Self::whole`], if there is a live value.
    pub(super) fn live(&self, key: &Key) -> Result<Option<(Stored, Bytes)>, ReadError> {
        Ok(self.whole(key)?.filter(|(stored, _)| stored.is_live(self.now())))
    }
}
