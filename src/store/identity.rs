//! Who this node is: made together with its data directory, and kept with it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ReadError;
use super::engine::{Engine, EngineError, Family};
use super::layout::{self, FORMAT, FORMAT_VERSION, IDENTITY};
use crate::clock::Clock;
use crate::model::{NodeId, Timestamp};

/// The persistent identity of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// When the data directory was made.
    pub joined_at: Timestamp,
    /// The cluster that the data belongs to, once the node took part in one.
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

/// Why a data directory cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine cannot open it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something in it is damaged.
    #[error(transparent)]
    Damaged(#[from] ReadError),
    /// It was written by a newer version.
    #[error(
        "the data directory has format {found}, and this kvs reads formats up to {FORMAT_VERSION}; \
         run the newer kvs that wrote it"
    )]
    TooNew {
        /// Its format.
        found: u32,
    },
    /// It was written before the first release of this format.
    #[error(
        "the data directory has format {found}, and this kvs reads format {FORMAT_VERSION}; run \
         the older kvs that wrote it, `kvs export` there, and `kvs import` here"
    )]
    TooOld {
        /// Its format.
        found: u32,
    },
    /// It belongs to another cluster.
    #[error(
        "the data directory belongs to cluster {found}, and gossip.key_file is that of cluster \
         {configured}; use the right secret, or an empty node.data_dir"
    )]
    OtherCluster {
        /// The cluster it belongs to.
        found: Uuid,
        /// The cluster of the configured secret.
        configured: Uuid,
    },
}

/// Reads the identity, or makes it where there is none, and checks format and cluster.
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
