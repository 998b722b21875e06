//! Reading the reports of superseded writes, in the order of the merges.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::model::{Content, Header, Key, Prefix};
use crate::store::disk::engine::Family;
use crate::store::disk::layout;
use crate::store::feed::FeedPosition;
use crate::store::write::reports::StoredReport;
use crate::store::{
    CURRENT_BYTES_MAX, Entry, ReadError, Shared, Store, Superseded, SupersededPage,
};

/// Reports as a scan finds them, without values.
struct Found {
    reports: Vec<(u64, StoredReport)>,
    /// The number of the last report that was visited.
    last: u64,
    /// Whether reports are missing that were there once.
    truncated: bool,
}

impl Store {
    /// Reports of superseded writes below `prefix` after `since`, at most `limit` of them. The page
    /// ends early once their contents add up to `content_bytes_max`, but never before one item.
    /// A position of another epoch begins with the oldest report. There are no more for now when a
    /// page has none.
    ///
    /// # Errors
    /// When storage fails or a report is damaged.
    pub async fn superseded(
        &self,
        prefix: &Prefix,
        since: Option<FeedPosition>,
        limit: usize,
        content_bytes_max: usize,
    ) -> Result<SupersededPage, ReadError> {
        let prefix = prefix.clone();
        let read =
            move |store: &Self| store.superseded_now(&prefix, since, limit, content_bytes_max);
        self.blocking(read).await
    }

    /// How many reports of superseded writes this node holds.
    #[must_use]
    pub fn superseded_count(&self) -> u64 {
        let reports = self.shared.reports();
        reports.next.saturating_sub(reports.first)
    }

    /// As [`Self::superseded`], on a thread that may block.
    ///
    /// # Errors
    /// When storage fails or a report is damaged.
    pub fn superseded_now(
        &self,
        prefix: &Prefix,
        since: Option<FeedPosition>,
        limit: usize,
        content_bytes_max: usize,
    ) -> Result<SupersededPage, ReadError> {
        let epoch = self.feed_position().epoch;
        let next = self.shared.reports().next;
        // numbers of another epoch may have been given twice
        let is_ours = |since: &FeedPosition| since.epoch == epoch && since.position < next;
        let from = since.filter(is_ours).map_or(1, |since| since.position + 1);
        let found = self.shared.find_reports(prefix, from, limit, content_bytes_max)?;
        let mut items = Vec::with_capacity(found.reports.len());
        let mut truncated = found.truncated || since.is_some_and(|since| !is_ours(&since));
        for (number, report) in found.reports {
            match self.shared.superseded(number, report)? {
                Some(item) => items.push(item),
                None => truncated = true,
            }
        }
        let next = FeedPosition { epoch, position: found.last };
        Ok(SupersededPage { items, next, truncated })
    }
}

impl Shared {
    fn find_reports(
        &self,
        prefix: &Prefix,
        from: u64,
        limit: usize,
        content_bytes_max: usize,
    ) -> Result<Found, ReadError> {
        let (mut reports, mut content_bytes) = (Vec::new(), 0_u64);
        let (mut expected, mut truncated, mut damaged) = (from, false, Ok(()));
        let (begin, end) = (layout::report_key(from), layout::report_key(u64::MAX));
        self.engine.scan(Family::Superseded, &begin, Some(&end), &mut |at, raw| {
            let (number, report) = match decode(at, raw) {
                Ok(found) => found,
                Err(error) => {
                    damaged = Err(error);
                    return ControlFlow::Break(());
                }
            };
            if prefix.covers(&report.key) {
                content_bytes += shown_bytes(&report);
                let is_full = !reports.is_empty() && content_bytes > content_bytes_max as u64;
                if reports.len() >= limit || is_full {
                    return ControlFlow::Break(());
                }
                reports.push((number, report));
            }
            truncated |= number != expected;
            expected = number + 1;
            ControlFlow::Continue(())
        })?;
        damaged?;
        Ok(Found { reports, last: expected.saturating_sub(1), truncated })
    }

    /// The report with its contents; `None` when it was dropped meanwhile.
    fn superseded(
        &self,
        number: u64,
        report: StoredReport,
    ) -> Result<Option<Superseded>, ReadError> {
        let StoredReport { key, at, causal, in_txn, lost, winner, has_value } = report;
        let mut body = (lost.content.size() == 0).then(Bytes::new);
        if has_value {
            let at = layout::report_value_key(number);
            let read = || self.engine.get(Family::Superseded, &at);
            body = self.large_reads.run(lost.content.size(), read)?;
            if body.is_none() {
                return Ok(None);
            }
        }
        let txn = in_txn.then_some(lost.version.uuid);
        let lost = Entry { header: lost, body };
        let winner = match winner {
            Some(header) => {
                let body = self.winning_value(&key, &header)?;
                Some(Entry { header, body })
            }
            None => None,
        };
        Ok(Some(Superseded { key, at, causal, txn, lost, winner }))
    }

    /// The value of the winner, where it is small and this node still keeps that version.
    fn winning_value(&self, key: &Key, winner: &Header) -> Result<Option<Bytes>, ReadError> {
        if winner.content == Content::Tombstone {
            return Ok(Some(Bytes::new()));
        }
        if winner.content.size() > CURRENT_BYTES_MAX {
            return Ok(None);
        }
        let (revisions, _) = match self.history(key, usize::MAX, |stored| stored.header == *winner)
        {
            Ok(found) => found,
            // the report itself is whole
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::error!(%error, "the winner of a superseded write is shown without value");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let kept = revisions.into_iter().find(|revision| revision.header == *winner);
        Ok(kept.and_then(|revision| revision.body))
    }

    /// Checks that memory knows which reports the disk holds, and what they take.
    ///
    /// # Panics
    /// When it does not: a bug.
    pub(in crate::store) fn check_reports(&self) -> Result<(), ReadError> {
        let known = self.reports();
        let (mut found, mut bytes, mut values) = (Vec::new(), 0, 0);
        let mut damaged = Ok(());
        self.engine.scan(Family::Superseded, &[], None, &mut |at, raw| {
            bytes += (at.len() + raw.len()) as u64;
            if layout::report_number(at).is_none() {
                values += 1;
                return ControlFlow::Continue(());
            }
            match decode(at, raw) {
                Ok(report) => found.push(report),
                Err(error) => damaged = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        damaged?;
        let numbers: Vec<_> = found.iter().map(|(number, _)| *number).collect();
        let expected: Vec<_> = (known.first..known.next).collect();
        assert_eq!(numbers, expected, "the disk holds the reports that memory knows");
        assert_eq!(bytes, known.bytes, "the reports take what memory knows");
        let with_value = found.iter().filter(|(_, report)| report.has_value).count();
        assert_eq!(values, with_value, "each report has its value");
        Ok(())
    }
}

fn decode(at: &[u8], raw: &[u8]) -> Result<(u64, StoredReport), ReadError> {
    let number = layout::report_number(at).ok_or_else(|| ReadError::Damaged {
        key: layout::REPORTS.to_owned(),
        problem: "the number of a report is not eight bytes".to_owned(),
    })?;
    Ok((number, layout::decode_meta(layout::REPORTS, raw)?))
}

/// How much content a report shows at most.
fn shown_bytes(report: &StoredReport) -> u64 {
    let winner = report.winner.as_ref().map_or(0, |winner| winner.content.size());
    let winner = if winner > CURRENT_BYTES_MAX { 0 } else { winner };
    winner + if report.has_value { report.lost.content.size() } else { 0 }
}
