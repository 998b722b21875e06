//! The identity of a node: made with its data directory, and stored in it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::engine::{Engine, EngineError, Family};
use super::layout::{self, FORMAT, FORMAT_VERSION, IDENTITY};
use super::migrate;
use crate::clock::Clock;
use crate::model::{NodeId, Timestamp};
use crate::store::ReadError;

/// The persistent identity of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The id of the node.
    pub node: NodeId,
    /// When the data directory was made; ranks versions of equal timestamps.
    pub joined_at: Timestamp,
    /// The cluster that the data belongs to, once the node has been part of one.
    #[serde(with = "cluster")]
    pub cluster: Option<Uuid>,
}

/// The cluster id as 16 bytes.
mod cluster {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` demands")]
    pub fn serialize<S: Serializer>(uuid: &Option<Uuid>, to: S) -> Result<S::Ok, S::Error> {
        uuid.as_ref().map(Uuid::as_bytes).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uuid>, D::Error> {
        Ok(Option::<[u8; 16]>::deserialize(from)?.map(Uuid::from_bytes))
    }
}

/// Why a data directory was not opened. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An entry is damaged.
    #[error(transparent)]
    Damaged(#[from] ReadError),
    /// A newer version of kvs wrote it.
    #[error(
        "the data directory has format {found}, and this kvs reads formats up to {FORMAT_VERSION}; \
         run the newer kvs that wrote it"
    )]
    TooNew {
        /// The format of the directory.
        found: u32,
    },
    /// An older version of kvs wrote it, in a format that this one does not read.
    #[error(
        "the data directory has format {found}, and this kvs reads formats from {} on; run the \
         older kvs that wrote it, `kvs export` there, and `kvs import` here",
        migrate::FROM
    )]
    TooOld {
        /// The format of the directory.
        found: u32,
    },
    /// It could not be brought to the present format. A part of the new index may be written; the
    /// older kvs still opens the directory, and the next attempt begins again.
    #[error(
        "the data directory has format {found}, and bringing it to format {FORMAT_VERSION} failed: \
         {why}; free space on the disk if it is full, and start again"
    )]
    NotMigrated {
        /// The format of the directory.
        found: u32,
        /// What failed.
        why: ReadError,
    },
    /// It holds the data of another cluster.
    #[error(
        "the data directory belongs to cluster {found}, and gossip.key_file is that of cluster \
         {configured}; use the right secret, or an empty node.data_dir"
    )]
    OtherCluster {
        /// The cluster of the data.
        found: Uuid,
        /// The cluster of the configured secret.
        configured: Uuid,
    },
}

/// Reads the identity, or makes one in an empty store, checks format and cluster, and brings data
/// of an older format to the present one.
///
/// # Errors
/// See [`OpenError`].
pub fn open(
    engine: &dyn Engine,
    clock: &Clock,
    cluster: Option<Uuid>,
) -> Result<Identity, OpenError> {
    let format = check_format(engine)?;
    let held = match engine.get(Family::Meta, IDENTITY.as_bytes())? {
        Some(bytes) => Some(layout::decode_meta::<Identity>(IDENTITY, &bytes)?),
        None => None,
    };
    let identity = match held {
        Some(identity) => match (identity.cluster, cluster) {
            (Some(found), Some(configured)) if found != configured => {
                return Err(OpenError::OtherCluster { found, configured });
            }
            (None, Some(_)) => Identity { cluster, ..identity },
            _ => identity,
        },
        None => Identity {
            node: NodeId::from_bytes(*clock.uuid().as_bytes()),
            joined_at: clock.now(),
            cluster,
        },
    };
    if held != Some(identity) {
        let opened = engine.opened()?;
        let mut transaction = opened.begin();
        if format.is_none() {
            transaction.put(Family::Meta, FORMAT.as_bytes(), &FORMAT_VERSION.to_le_bytes())?;
        }
        transaction.put(Family::Meta, IDENTITY.as_bytes(), &layout::encode_meta(&identity))?;
        transaction.commit()?;
    }
    if let Some(found) = format.filter(|found| *found < FORMAT_VERSION) {
        migrate::run(engine, found).map_err(|why| OpenError::NotMigrated { found, why })?;
    }
    Ok(identity)
}

/// The format of the data, if there is any; one that this kvs reads.
///
/// # Errors
/// When it does not read it.
pub fn check_format(engine: &dyn Engine) -> Result<Option<u32>, OpenError> {
    let Some(bytes) = engine.get(Family::Meta, FORMAT.as_bytes())? else { return Ok(None) };
    let Ok(bytes) = <[u8; 4]>::try_from(&*bytes) else {
        let problem = "the format version is not four bytes".to_owned();
        return Err(ReadError::Damaged { key: "meta/format".to_owned(), problem }.into());
    };
    match u32::from_le_bytes(bytes) {
        found if found < migrate::FROM => Err(OpenError::TooOld { found }),
        found if found > FORMAT_VERSION => Err(OpenError::TooNew { found }),
        found => Ok(Some(found)),
    }
}
