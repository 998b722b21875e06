//! Refuses to run on a copy of the data directory of a process that runs.
//!
//! Promises to find that process if it is up, has another address and answers, and either this node
//! knows its address or one of the members that it met answers and knows it; and to wait at most
//! twice [`ANSWER_MAX`]. Two processes that it does not find out begin anew as two members when
//! they meet the others, which loses nothing. Must not know what a session is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::NodeError;
use crate::model::Member;
use crate::peer::{Dialer, PeerError};

/// How long to wait for the answers of members, and then for that of another process.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How many members to ask.
const ASKED_MAX: usize = 8;

/// Looks for a process that runs under the id of `me`: it answers at an address of before, or one
/// of the members of earlier runs, `known`, knows it.
///
/// # Errors
/// [`NodeError::Copied`] when there is one.
pub(super) async fn refuse(
    dialer: &dyn Dialer,
    me: &Member,
    known: &[Member],
    data_dir: &Path,
) -> Result<(), NodeError> {
    let is_here = |member: &Member| member.shares_address(me);
    let asked = known.iter().filter(|member| member.id != me.id && !is_here(member));
    let told = join_all(asked.take(ASKED_MAX).map(|member| double(dialer, member))).await;
    let before = known.iter().find(|member| member.id == me.id).cloned();
    let doubles: BTreeMap<_, _> = told
        .into_iter()
        .flatten()
        .chain(before)
        .filter(|double| double.id == me.id && !is_here(double))
        .map(|double| (double.peer, double))
        .collect();
    let answers = join_all(doubles.values().map(|member| double(dialer, member))).await;
    let Some(double) = answers.into_iter().flatten().next() else { return Ok(()) };
    Err(NodeError::Copied { double: Box::new(double), data_dir: data_dir.display().to_string() })
}

/// The process under this node's id that `member` knows, or is.
async fn double(dialer: &dyn Dialer, member: &Member) -> Option<Member> {
    match timeout(ANSWER_MAX, dialer.dial(member)).await {
        Ok(Err(PeerError::Copy(double))) => Some(*double),
        _ => None,
    }
}
