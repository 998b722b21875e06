//! Sends fresh commits to one peer as they become durable, and tells it what this node has.
//!
//! The queue is the feed's ring: a peer that is too slow misses commits, is told nothing, and gets
//! a session instead.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Context, pull};
use crate::model::{NodeId, Record};
use crate::peer::{Link, PeerError, StreamKind};
use crate::proto::wire::{self, Push, WireRecord};
use crate::store::ReadError;
use crate::store::feed::{Cause, FeedEntry, FeedReader, Missed};

/// Records in a frame add up to about this, or are one larger record.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long after a change the peer is told the new fingerprint: changes in between cost nothing.
const REPORT_AFTER: Duration = Duration::from_millis(20);
/// How often a change that did not come from a client is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a peer may take for one frame. One that takes longer is connected to anew.
const SEND_WAIT: Duration = Duration::from_secs(30);
/// How long a report stays good without a change.
const REPORT_AGAIN: Duration = Duration::from_secs(5);

/// Runs until the stream breaks; gives the reason. `lost` is told when commits were missed.
pub(super) async fn push(
    context: Context,
    link: Arc<dyn Link>,
    id: NodeId,
    mut feed: FeedReader,
    lost: mpsc::Sender<()>,
) -> PeerError {
    let mut stream = match link.open(StreamKind::Push).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let (mut told, mut told_at) = ([0; 32], context.clock.instant());
    let mut report_at = told_at;
    loop {
        let mut message = None;
        tokio::select! {
            biased;
            first = feed.next(), if context.settings.push => {
                match batch(&context, first, &mut feed).await {
                    Ok(records) if records.is_empty() => {}
                    Ok(records) => message = Some(Push::Records(records)),
                    Err(Missed { entries: missed }) => {
                        context.metrics.push_dropped.inc_by(missed);
                        tracing::info!(peer = %id, missed, "missed pushes; a session is due");
                        // one that is already told is enough
                        let _ = lost.try_send(());
                    }
                }
                report_at = report_at.min(context.clock.instant() + REPORT_AFTER);
            }
            () = tokio::time::sleep_until(report_at) => {
                let report = pull::report(&context);
                let now = context.clock.instant();
                if report.fingerprint != told || now >= told_at + REPORT_AGAIN {
                    (told, told_at) = (report.fingerprint, now);
                    message = Some(Push::Report(report));
                }
                report_at = now + LOOK_AGAIN;
            }
        }
        if let Some(message) = message
            && let Err(error) = send(&context, &mut stream, &message).await
        {
            return error;
        }
    }
}

async fn send(
    context: &Context,
    stream: &mut crate::peer::Stream,
    message: &Push,
) -> Result<(), PeerError> {
    if let Push::Records(records) = message {
        let counter = context.metrics.push_records.get_or_create(&[("direction", "sent")]);
        counter.inc_by(records.len() as u64);
    }
    let frame = wire::encode(message);
    let sent = tokio::time::timeout(SEND_WAIT, stream.send(&frame));
    sent.await.unwrap_or_else(|_| Err(PeerError::Unreachable("it does not take pushes".to_owned())))
}

/// Records of the client writes among `first` and the changes behind it, as much as a frame holds.
/// What came from peers is not forwarded: they push it themselves.
async fn batch(
    context: &Context,
    first: Result<Arc<FeedEntry>, Missed>,
    feed: &mut FeedReader,
) -> Result<Vec<WireRecord>, Missed> {
    let mut next = Some(first?);
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(entry) = next {
        if entry.cause == Cause::Client {
            match load(context, &entry).await {
                Ok(Some(record)) => {
                    bytes += record.size();
                    records.push(record);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(key = %entry.key, %error, "cannot read a record to push it");
                    // a session sends it, and those before it
                    return Err(Missed { entries: 1 + records.len() as u64 });
                }
            }
        }
        next = if bytes < BATCH_BYTES_MAX { feed.try_next() } else { None };
    }
    Ok(records)
}

/// The record of a change. A value that the feed does not carry is read from the store; when the
/// record was replaced meanwhile, the newer one is sent instead.
async fn load(context: &Context, entry: &FeedEntry) -> Result<Option<WireRecord>, ReadError> {
    let record = match &entry.body {
        Some(body) => Some(Record { header: entry.header.clone(), body: body.clone() }),
        None => context.store.record(&entry.key).await?,
    };
    Ok(record.map(|record| WireRecord::new(entry.key.clone(), record)))
}
