//! The single values of the meta family: each must be there in its form.

use serde::de::DeserializeOwned;

use super::{Check, RESTORE, problem_of};
use crate::model::{Member, NodeId, Timestamp};
use crate::proto::stability::Ledger;
use crate::store::disk::engine::Family;
use crate::store::disk::identity::Identity;
use crate::store::disk::layout;
use crate::store::mode::{self, NodeMode};
use crate::store::write::reports::Reports;
use crate::store::{ReadError, meta};

/// What the other passes compare with.
pub(super) struct MetaEntries {
    pub identity: Option<Identity>,
    pub ledger: Option<Ledger>,
    pub requests_bytes: u64,
    pub reports: Reports,
    /// The first position of the feed's epoch.
    pub epoch: Option<u64>,
    /// Whether records were ever set aside.
    pub has_set_aside: bool,
}

impl Check<'_> {
    /// Verifies the single values.
    pub(super) fn meta(&mut self) -> MetaEntries {
        let identity: Option<Identity> = self.entry(layout::IDENTITY);
        let ledger: Option<Ledger> = self.entry(layout::STABILITY);
        if let (Some(identity), Some(ledger)) = (identity, &ledger)
            && identity.node != ledger.id
        {
            let problem = "it is the ledger of another node".to_owned();
            self.found(Family::Meta, layout::STABILITY, problem, RESTORE);
        }
        if let Some(what) = ledger.as_ref().and_then(Ledger::contradiction) {
            let problem = format!("the ledger of stability contradicts itself: {what}");
            self.found(Family::Meta, layout::STABILITY, problem, RESTORE);
        }
        let _: Option<()> = self.entry(layout::BOOTSTRAPPED);
        let _: Option<Vec<Member>> = self.entry(layout::MEMBERS);
        let _: Option<Timestamp> = self.entry(layout::WATERMARK);
        let _: Option<Vec<NodeId>> = self.entry(layout::FORMER_IDS);
        let _: Option<NodeMode> = self.entry(mode::MODE);
        let _: Option<i64> = self.entry(layout::REQUESTS_DISTANCE);
        let epoch: Option<(u64, u64, Option<String>)> = self.entry(layout::FEED_EPOCH);
        MetaEntries {
            identity,
            ledger,
            requests_bytes: self.entry(layout::REQUESTS_BYTES).unwrap_or_default(),
            reports: self.entry(layout::REPORTS).unwrap_or_default(),
            epoch: epoch.map(|(_, begin, _)| begin),
            has_set_aside: self.entry::<()>(layout::SET_ASIDE).is_some(),
        }
    }

    fn entry<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        self.count();
        let read: Result<Option<T>, ReadError> = meta(self.engine, name);
        match read {
            Ok(Some(entry)) => Some(entry),
            Ok(None) if name == layout::IDENTITY => {
                let problem = "the data are of no node".to_owned();
                self.found(Family::Meta, name, problem, RESTORE);
                None
            }
            Ok(None) => None,
            Err(error) => {
                self.found(Family::Meta, name, problem_of(&error), RESTORE);
                None
            }
        }
    }
}
