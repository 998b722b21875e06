//! The identity of a node: made with its data directory, and stored in it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::engine::{Engine, EngineError, Family};
use super::layout::{self, FORMAT, FORMAT_VERSION, IDENTITY};
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

/// Why a data directory was not opened. Nothing was changed.
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
        "the data directory has format {found}, and this kvs reads format {FORMAT_VERSION}; run \
         the older kvs that wrote it, `kvs export` there, and `kvs import` here"
    )]
    TooOld {
        /// The format of the directory.
        found: u32,
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

/// Reads the identity, or makes one in an empty store, and checks format and cluster.
///
/// # Errors
/// See [`OpenError`].
pub fn open(
    engine: &dyn Engine,
    clock: &Clock,
    cluster: Option<Uuid>,
) -> Result<Identity, OpenError> {
    check_format(engine)?;
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
            _ => return Ok(identity),
        },
        None => Identity {
            node: NodeId::from_bytes(*clock.uuid().as_bytes()),
            joined_at: clock.now(),
            cluster,
        },
    };
    let opened = engine.opened()?;
    let mut transaction = opened.begin();
    transaction.put(Family::Meta, FORMAT.as_bytes(), &FORMAT_VERSION.to_le_bytes())?;
    transaction.put(Family::Meta, IDENTITY.as_bytes(), &layout::encode_meta(&identity))?;
    transaction.commit()?;
    Ok(identity)
}

fn check_format(engine: &dyn Engine) -> Result<(), OpenError> {
    let Some(bytes) = engine.get(Family::Meta, FORMAT.as_bytes())? else { return Ok(()) };
    let Ok(bytes) = <[u8; 4]>::try_from(&*bytes) else {
        let problem = "the format version is not four bytes".to_owned();
        return Err(ReadError::Damaged { key: "meta/format".to_owned(), problem }.into());
    };
    match u32::from_le_bytes(bytes) {
        FORMAT_VERSION => Ok(()),
        found if found < FORMAT_VERSION => Err(OpenError::TooOld { found }),
        found => Err(OpenError::TooNew { found }),
    }
}
