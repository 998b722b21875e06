//! Reading ranges: pages of live values for clients, pieces and listings for reconcile sessions.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::digest;
use crate::model::{Key, Prefix, Record, Timestamp};
use crate::proto::digest::{Piece, Place, ShortId, Sum};
use crate::proto::reconcile::{Listed, Replica};
use crate::store::disk::engine::Family;
use crate::store::disk::layout::{Body, Stored};
use crate::store::{Entry, Page, ReadError, Store, checked_key};

impl Store {
    /// Live values below `prefix` and after the key `after`, at most `limit` of them. With
    /// `content_bytes_max` the items carry their bytes, and the page ends early once these add up
    /// to that (but never before one item); without it they carry none. The scan continues after
    /// [`Page::next`], and ends where that is `None`.
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub async fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        content_bytes_max: Option<usize>,
    ) -> Result<Page, ReadError> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        let scan =
            move |store: &Self| store.scan_now(&prefix, after.as_ref(), limit, content_bytes_max);
        let (page, expired_at) = self.blocking(scan).await?;
        self.cover_expiry(expired_at).await;
        Ok(page)
    }

    /// The page, and the latest expiry among the values that it leaves out.
    fn scan_now(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        content_bytes_max: Option<usize>,
    ) -> Result<(Page, Option<Timestamp>), ReadError> {
        let mut from = prefix.first();
        if let Some(after) = after {
            let mut successor = after.as_bytes().to_vec();
            successor.push(0);
            from = from.max(successor);
        }
        let now = self.shared.now();
        let mut latest_expiry = None;
        let (mut found, mut content_bytes) = (Vec::new(), 0_u64);
        let (mut more, mut damaged) = (false, Ok(()));
        let bytes_max = content_bytes_max.map_or(u64::MAX, |max| max as u64);
        let end = prefix.end();
        self.shared.engine.scan(Family::Records, &from, end.as_deref(), &mut |key, bytes| {
            let stored = Stored::decode_for(key, &Bytes::copy_from_slice(bytes));
            let stored = match stored.and_then(|s| Ok((checked_key(key)?, s))) {
                Ok((_, stored)) if !stored.is_live(now) => {
                    latest_expiry = latest_expiry.max(stored.expired_at(now));
                    return ControlFlow::Continue(());
                }
                Ok(stored) => stored,
                Err(error) => {
                    damaged = Err(error);
                    return ControlFlow::Break(());
                }
            };
            if content_bytes_max.is_some() {
                content_bytes += stored.1.header.content.size();
            }
            if found.len() >= limit || (!found.is_empty() && content_bytes > bytes_max) {
                more = true;
                return ControlFlow::Break(());
            }
            found.push(stored);
            ControlFlow::Continue(())
        })?;
        damaged?;
        let (page, expired_meanwhile) = self.page(found, more, content_bytes_max)?;
        Ok((page, latest_expiry.max(expired_meanwhile)))
    }

    /// Reads the bytes of the found values. One that grew since ends the page early. Those that
    /// expired since are left out, and the latest of their expiries is given.
    fn page(
        &self,
        found: Vec<(Key, Stored)>,
        more: bool,
        content_bytes_max: Option<usize>,
    ) -> Result<(Page, Option<Timestamp>), ReadError> {
        let last = found.len().saturating_sub(1);
        let mut items = Vec::with_capacity(found.len());
        let (mut next, mut content_bytes, mut latest_expiry) = (None, 0, None);
        for (at, (key, stored)) in found.into_iter().enumerate() {
            let expires_at = stored.header.expires_at;
            let entry = self.entry(&key, stored, content_bytes_max.is_some())?;
            let bytes = entry.as_ref().map_or(0, Entry::content_bytes);
            content_bytes += bytes;
            let full = content_bytes_max.is_some_and(|max| content_bytes >= max);
            next = (more || at < last).then(|| key.clone());
            match entry {
                Some(entry) => items.push((key, entry)),
                None => latest_expiry = latest_expiry.max(expires_at),
            }
            if full {
                break;
            }
        }
        Ok((Page { items, next }, latest_expiry))
    }

    /// The entry, with its bytes if `with_body`; `None` when a large value expired meanwhile.
    fn entry(
        &self,
        key: &Key,
        stored: Stored,
        with_body: bool,
    ) -> Result<Option<Entry>, ReadError> {
        if !with_body {
            return Ok(Some(Entry { header: stored.header, body: None }));
        }
        if let Body::Inline(body) = stored.body {
            return Ok(Some(Entry { header: stored.header, body: Some(body) }));
        }
        self.get_now(key)
    }
}

impl Replica for Store {
    type Error = ReadError;

    fn root(&self) -> Sum {
        self.shared.tree().digest.root()
    }

    fn place(&self, key: &[u8]) -> Place {
        self.shared.tree().digest.place(key)
    }

    fn height(&self) -> u8 {
        self.shared.tree().digest.height()
    }

    fn boundaries(&self, level: u8, from: &[u8], to: Option<&[u8]>, most: usize) -> usize {
        self.shared.tree().digest.boundaries(level, from, to, most)
    }

    fn sum(&self, from: &[u8], to: Option<&[u8]>) -> Result<Sum, ReadError> {
        let tree = self.shared.tree();
        let key = tree.element_key();
        tree.digest.sum(from, to, &mut |from, to| {
            digest::leaf_sum(self.shared.engine.as_ref(), &key, from, to)
        })
    }

    fn pieces(&self, level: u8, from: &[u8], to: Option<&[u8]>) -> Result<Vec<Piece>, ReadError> {
        let tree = self.shared.tree();
        let key = tree.element_key();
        tree.digest.pieces(level, from, to, &mut |from, to| {
            digest::leaf_sum(self.shared.engine.as_ref(), &key, from, to)
        })
    }

    fn list(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let element_key = self.shared.tree().element_key();
        digest::visit_headers(self.shared.engine.as_ref(), from, to, |key, summary| {
            let id: ShortId = element_key.element(key, &summary.hash).short();
            let header = &summary.header;
            let bytes = header.content.size();
            let (timestamp, due) =
                (header.version.timestamp, header.due(summary.is_dead && bytes > 0));
            visit(Listed { key, id, bytes, timestamp, due })
        })
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        self.record_now(key)
    }

    fn id(&self, key: &Key, record: &Record) -> ShortId {
        let tree = self.shared.tree();
        tree.digest.element(key.as_bytes(), &record.header.hash()).short()
    }
}
