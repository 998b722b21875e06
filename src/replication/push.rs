//! Sends fresh commits to one peer as they become durable, and reports what this node holds.
//!
//! The feed's ring is the queue: a peer that is too slow misses commits and gets a session instead.
//! Must not know how frames travel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::context::{Context, SEND_SILENCE_MAX};
use crate::model::{NodeId, Record};
use crate::peer::{Link, PeerError, Receiver, Sender, StreamKind};
use crate::proto::stability::Introduction;
use crate::proto::wire::{self, Push, PushAnswer, WireRecord};
use crate::store::ReadError;
use crate::store::feed::{Cause, FeedEntry, FeedReader, Missed};

/// A frame is closed once its records reach this size, so it exceeds this by at most one record.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Delay of the report after a commit, so that one report covers a burst.
const REPORT_AFTER: Duration = Duration::from_millis(20);
/// How often to look for changes that the loop does not push, such as merges from other peers.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The longest time between two reports; with a shorter `sync.interval` that one, so that the peer
/// never holds an old report while all is well.
const REPORT_AGAIN_MAX: Duration = Duration::from_secs(5);

/// Runs until the stream breaks, and returns the reason. Signals `lost` when the peer missed
/// commits.
pub(super) async fn push(
    context: Context,
    link: Arc<dyn Link>,
    id: NodeId,
    mut feed: FeedReader,
    lost: mpsc::Sender<()>,
) -> PeerError {
    let me = context.introduce();
    let start = me.start;
    let (mut sender, mut receiver) = match open(&context, link.as_ref(), id, me).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let (mut reported, mut reported_at) = ([0; 32], context.clock.instant());
    let mut told = None;
    let mut report_at = reported_at;
    let report_again = context.settings.interval.min(REPORT_AGAIN_MAX);
    loop {
        let mut message = None;
        tokio::select! {
            biased;
            answer = receiver.receive() => match read_answer(answer) {
                Ok(durable) => context.status.lags(id, |lag| lag.answered(durable)),
                Err(error) => return error,
            },
            first = feed.next(), if context.settings.push => {
                match batch(&context, id, first, &mut feed).await {
                    Ok(records) if records.is_empty() => {}
                    Ok(records) => message = Some(Push::Records(records)),
                    Err(Missed { entries: missed }) => {
                        context.metrics.push_dropped.inc_by(missed);
                        tracing::info!(
                            peer = %id, missed, "the peer missed pushes; a session will follow"
                        );
                        let now = context.clock.instant().into_std();
                        context.status.lags(id, |lag| lag.missed(now));
                        // a full channel: a session is due already
                        let _ = lost.try_send(());
                    }
                }
                report_at = report_at.min(context.clock.instant() + REPORT_AFTER);
            }
            () = tokio::time::sleep_until(report_at) => {
                if context.store.ledger().start != start {
                    return PeerError::Unreachable("this node names a later start".to_owned());
                }
                let (report, word) = (context.report(), context.store.ledger().word());
                let now = context.clock.instant();
                let again = now >= reported_at + report_again;
                report_at = now + LOOK_AGAIN;
                if let Some(word) = word.filter(|_| word != told || again) {
                    told = Some(word);
                    if let Err(error) = send(&context, id, &mut sender, &Push::Stable(word)).await {
                        return error;
                    }
                }
                if report.fingerprint != reported || again {
                    (reported, reported_at) = (report.fingerprint, now);
                    message = Some(Push::Report(report));
                }
            }
        }
        if let Some(message) = message
            && let Err(error) = send(&context, id, &mut sender, &message).await
        {
            return error;
        }
    }
}

/// Whether the peer says that a frame of records is durable.
fn read_answer(frame: Result<Option<Bytes>, PeerError>) -> Result<bool, PeerError> {
    let ended = || PeerError::Unreachable("the peer ended the stream of pushes".to_owned());
    let answer = wire::decode(&frame?.ok_or_else(ended)?);
    let answer: PushAnswer = answer.map_err(|error| PeerError::Malformed(error.to_string()))?;
    Ok(answer == PushAnswer::Durable)
}

/// Opens a stream, and says on it who this node is.
async fn open(
    context: &Context,
    link: &dyn Link,
    id: NodeId,
    me: Introduction,
) -> Result<(Sender, Receiver), PeerError> {
    let (mut sender, receiver) = link.open(StreamKind::Push).await?.split();
    // what went over an earlier stream is answered no more
    let now = context.clock.instant().into_std();
    context.status.lags(id, |lag| lag.cut(now));
    send(context, id, &mut sender, &Push::Hello(me)).await?;
    Ok((sender, receiver))
}

async fn send(
    context: &Context,
    id: NodeId,
    sender: &mut Sender,
    message: &Push,
) -> Result<(), PeerError> {
    if let Push::Records(records) = message {
        let counter = context.metrics.push_records.get_or_create(&[("direction", "sent")]);
        counter.inc_by(records.len() as u64);
        let now = context.clock.instant().into_std();
        context.status.lags(id, |lag| lag.sent(now));
    }
    sender.send_within(&wire::encode(message), SEND_SILENCE_MAX).await
}

/// The records of the client writes among `first` and the changes behind it, up to one frame.
/// Leaves out records from peers, because the node that took such a write pushes it to all, and
/// those beyond the horizon of the peer `id`, which would hold them back: a session brings them in
/// time.
///
/// # Errors
/// When the peer missed changes, because the feed overran or a record cannot be read.
async fn batch(
    context: &Context,
    id: NodeId,
    first: Result<Arc<FeedEntry>, Missed>,
    feed: &mut FeedReader,
) -> Result<Vec<WireRecord>, Missed> {
    let horizon = context.status.horizon(id, &context.clock);
    let mut next = Some(first?);
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(entry) = next {
        let is_held = entry.header.version.timestamp > horizon;
        if entry.cause == Cause::Client && !is_held {
            match load(context, &entry).await {
                Ok(Some(record)) => {
                    bytes += record.size();
                    records.push(record);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(key = %entry.key, %error, "cannot read a record to push it");
                    // give up those before it too: the session brings all of them
                    return Err(Missed { entries: 1 + records.len() as u64 });
                }
            }
        }
        next = if bytes < BATCH_BYTES_MAX { feed.try_next() } else { None };
    }
    Ok(records)
}

/// The record of a change. The feed leaves out large values: reads the record from the store then,
/// which gives a newer one if a later write has replaced it.
async fn load(context: &Context, entry: &FeedEntry) -> Result<Option<WireRecord>, ReadError> {
    let record = match &entry.body {
        Some(body) => Some(Record { header: entry.header.clone(), body: body.clone() }),
        None => context.store.record(&entry.key).await?,
    };
    Ok(record.map(|record| WireRecord::new(entry.key.clone(), record)))
}
