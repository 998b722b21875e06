//! What a node needs of the process that it runs in: private modes of what it writes, and enough
//! file descriptors for what must not fail.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use super::NodeError;
use crate::clock::Clock;
use crate::http;

/// Descriptors for all but the files of the data and HTTP connections: standard streams, the
/// runtime, listening and peer sockets, name resolution, logs of the database, and the files that a
/// flush and a merge of files write at a time; and the connections that are only refused.
const OTHER_FILES: u64 = 40 + http::SURPLUS_MAX as u64;
/// How many data files are held open at least and at most. What is not open is opened when it is
/// read, so fewer only cost time; each takes about 10 kB of memory.
const DATA_FILES_MIN: u64 = 32;
const DATA_FILES_MAX: u64 = 1024;
/// How many connections are served at least.
const CONNECTIONS_MIN: u64 = 8;

/// How a node shares the file descriptors of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// How many data files the database may hold open.
    pub(super) data_files_max: u32,
    /// How many HTTP connections are served at once.
    pub(super) connections_max: usize,
}

/// Identifies this boot of the machine, or this start of the node if the system does not tell.
pub(super) fn boot_id(clock: &Clock) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or_else(|_| clock.uuid().to_string(), |id| id.trim().to_owned())
}

/// Keeps new files and directories, those of the database included, from all but their owner.
pub(super) fn keep_private() {
    let others = Mode::RWXG | Mode::RWXO;
    // the only way to read the mask is to set it
    let before = umask(others);
    umask(before | others);
}

/// Warns when others than the owner may get at `path`, which holds `what`.
pub(super) fn warn_if_open(path: &Path, what: &str) {
    let Ok(found) = std::fs::metadata(path) else { return };
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!(
            "{path}: its mode {mode:04o} lets other users get at {what}; run `chmod -R go= {path}`"
        );
    }
}

/// Raises the limit of open files as far as the system lets it, and shares it out.
///
/// # Errors
/// When the limit is too low for any node.
pub(super) fn share_descriptors(connections_wanted: usize) -> Result<Descriptors, NodeError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let shared = share(limit.unwrap_or(u64::MAX), connections_wanted)?;
    if shared.connections_max < connections_wanted {
        tracing::warn!(
            "limits.connections_max is {connections_wanted}, and this process may open {} files: \
             it serves at most {} connections at once; raise the limit to {} (`ulimit -Hn`, \
             LimitNOFILE of systemd, `--ulimit nofile` of Docker), or lower limits.connections_max",
            limit.unwrap_or(u64::MAX),
            shared.connections_max,
            needed(connections_wanted),
        );
    }
    Ok(shared)
}

/// Gives data files a third of the descriptors, within bounds, and connections the rest.
fn share(limit: u64, connections_wanted: usize) -> Result<Descriptors, NodeError> {
    let needed = OTHER_FILES + DATA_FILES_MIN + CONNECTIONS_MIN;
    let Some(rest) = limit.checked_sub(OTHER_FILES).filter(|_| limit >= needed) else {
        let text = format!(
            "it lets this process open {limit} files, and a node needs {needed}; raise the limit \
             (`ulimit -n`, LimitNOFILE of systemd, `--ulimit nofile` of Docker)"
        );
        return Err(NodeError::System(io::Error::other(text)));
    };
    let data_files = (rest / 3).clamp(DATA_FILES_MIN, DATA_FILES_MAX);
    let connections = usize::try_from(rest - data_files).unwrap_or(usize::MAX);
    Ok(Descriptors {
        data_files_max: u32::try_from(data_files).unwrap_or(u32::MAX),
        connections_max: connections.min(connections_wanted),
    })
}

/// A limit at which [`share`] serves `connections`; at most one more than the lowest.
fn needed(connections: usize) -> u64 {
    let connections = connections as u64;
    let data_files = connections.div_ceil(2).clamp(DATA_FILES_MIN, DATA_FILES_MAX);
    OTHER_FILES + connections + data_files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_data_leaves() {
        let shared = |limit, wanted| {
            let shared = share(limit, wanted).unwrap();
            (shared.data_files_max, shared.connections_max)
        };
        assert_eq!(shared(u64::MAX, 16_384), (1024, 16_384));
        assert_eq!(shared(1024, 16_384), (306, 614));
        assert_eq!(shared(1024, 100), (306, 100));
        assert_eq!(shared(256, 1024), (50, 102));
        assert_eq!(shared(144, 1024), (32, 8));
        let refused = share(143, 1).unwrap_err().to_string();
        assert!(refused.contains("143") && refused.contains("144"), "{refused}");
    }

    #[test]
    fn the_limit_that_a_warning_names_is_enough_and_hardly_more() {
        for wanted in [16, 17, 64, 65, 100, 1024, 2048, 2049, 16_384] {
            let limit = needed(wanted);
            assert_eq!(share(limit, wanted).unwrap().connections_max, wanted);
            let less = share(limit - 2, wanted).map_or(0, |shared| shared.connections_max);
            assert!(less < wanted, "{wanted}");
        }
    }
}
