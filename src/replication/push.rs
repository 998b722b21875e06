//! Sends fresh commits to one peer as they become durable, and tells it what this node has.
//!
//! The queue is the feed's ring: a peer that is too slow misses commits, is told nothing, and gets
//! a session instead.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};

use super::{Context, pull};
use crate::model::{NodeId, Record};
use crate::peer::{Link, PeerError, StreamKind};
use crate::proto::wire::{self, Push, WireRecord};
use crate::store::ReadError;
use crate::store::feed::Commit;

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
    mut feed: broadcast::Receiver<Arc<Commit>>,
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
            commit = feed.recv(), if context.settings.push => {
                match batch(&context, commit, &mut feed).await {
                    Ok(records) => message = Some(Push::Records(records)),
                    Err(missed) => {
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

/// The commit and those that wait behind it, as much as a frame holds; or how many were missed.
async fn batch(
    context: &Context,
    first: Result<Arc<Commit>, broadcast::error::RecvError>,
    feed: &mut broadcast::Receiver<Arc<Commit>>,
) -> Result<Vec<WireRecord>, u64> {
    use broadcast::error::{RecvError, TryRecvError};
    let mut commit = match first {
        Ok(commit) => commit,
        Err(RecvError::Lagged(missed)) => return Err(missed),
        // the store holds the sending side as long as anybody can write
        Err(RecvError::Closed) => return std::future::pending().await,
    };
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        match load(context, &commit).await {
            Ok(Some(record)) => {
                bytes += record.size();
                records.push(record);
            }
            Ok(None) => {}
            // with those before it: the session brings all
            Err(error) => {
                tracing::warn!(key = %commit.key, %error, "cannot read a record to push it");
                return Err(1 + records.len() as u64);
            }
        }
        if bytes >= BATCH_BYTES_MAX {
            return Ok(records);
        }
        commit = match feed.try_recv() {
            Ok(commit) => commit,
            Err(TryRecvError::Lagged(missed)) => return Err(missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(records),
        };
    }
}

/// The record of a commit. A large value is read now; when it was replaced meanwhile, the newer
/// record goes instead.
async fn load(context: &Context, commit: &Commit) -> Result<Option<WireRecord>, ReadError> {
    let record = match &commit.body {
        Some(body) => Some(Record { header: commit.header.clone(), body: body.clone() }),
        None => context.store.record(&commit.key).await?,
    };
    Ok(record.map(|record| WireRecord::new(commit.key.clone(), record)))
}
