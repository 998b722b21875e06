//! `serve`: turns arguments, environment and file into a configuration and runs a node.
//!
//! Decides where the configuration comes from and which runtime the node gets. `crate::node` does
//! the rest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::error::CliError;
use super::note;
use super::output::Output;
use crate::clock::Clock;
use crate::config::Config;
use crate::node;
use crate::telemetry::{self, LogFormat};

/// How long uninterruptible work may delay the exit after an orderly shutdown.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// How many reads that may block run at once. Each has a thread; others wait.
const BLOCKING_THREADS_MAX: usize = 128;

/// Keys that `--dev` sets, so `--set` must not.
const DEV_KEYS: [&str; 2] = ["clustering_enabled", "node.data_dir"];

/// `kvs serve`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true))]
pub struct Serve {
    /// Configuration file; start from the output of `kvs config default`
    #[arg(long, value_name = "FILE", group = "source")]
    config: Option<PathBuf>,
    /// Override one configuration key, as in --set http.listen=127.0.0.1:8081; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Run one node without a file or a cluster, on temporary data that is deleted at exit
    #[arg(long, group = "source")]
    dev: bool,
    /// Format of the log on standard error; `KVS_LOG` sets its level: trace, debug, info (the
    /// default), warn, error or off
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log: LogFormat,
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// What is missing, for the user.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected KEY=VALUE, for example node.name=n2".to_owned()),
    }
}

/// The `KVS_` variables. Skips all others, which need not be UTF-8.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("KVS_"))
        .collect()
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// Why the node did not start, or which part of it failed.
pub fn serve(args: Serve, out: &mut Output<'_>) -> Result<(), CliError> {
    let temporary = if args.dev { Some(Temporary::make()?) } else { None };
    let file = args.config.as_deref();
    let (config, warnings) = configure(file, args.set, temporary.as_ref(), &environment())?;
    let level = std::env::var_os("KVS_LOG").map(|level| level.to_string_lossy().into_owned());
    telemetry::start_logging(args.log, level.as_deref())
        .map_err(|error| CliError::Usage(error.to_string()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(Temporary(dir)) = &temporary {
        note(&format!("development node; its data is in {}, deleted at exit", dir.display()));
    }
    // from here on the node prints for itself
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("kvs")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|e| CliError::Usage(format!("cannot start the runtime: {e}")))?;
    let ended = run_node(&runtime, config);
    runtime.shutdown_timeout(EXIT_WAIT);
    telemetry::log::flush();
    ended
}

fn run_node(runtime: &tokio::runtime::Runtime, config: Config) -> Result<(), CliError> {
    runtime.block_on(node::run(config)).map_err(CliError::Node)
}

/// The configuration, and what is suspicious about it.
fn configure(
    file: Option<&Path>,
    mut sets: Vec<(String, String)>,
    temporary: Option<&Temporary>,
    env: &BTreeMap<String, String>,
) -> Result<(Config, Vec<String>), CliError> {
    if temporary.is_some() {
        if let Some((key, _)) = sets.iter().find(|(key, _)| DEV_KEYS.contains(&key.as_str())) {
            return Err(CliError::Usage(format!(
                "--dev sets {key} itself; drop --set {key}, or use --config instead of --dev"
            )));
        }
        sets.push(("clustering_enabled".to_owned(), "false".to_owned()));
    }
    let mut examined = Config::examine(file, env, &sets)?;
    let warnings = std::mem::take(&mut examined.warnings);
    let mut config = examined.valid()?;
    if let Some(Temporary(dir)) = temporary {
        config.node.data_dir.clone_from(dir);
    }
    Ok((config, warnings))
}

/// A fresh directory, private to its owner; deleted on drop.
struct Temporary(PathBuf);

impl Temporary {
    fn make() -> Result<Self, CliError> {
        let path = std::env::temp_dir().join(format!("kvs-dev-{}", Clock::system().uuid()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(CliError::File { verb: "create the directory", path, error }),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // best effort: the system cleans its temporary directory anyway
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn dev_needs_no_file_and_leaves_none() {
        let temporary = Temporary::make().unwrap();
        let dir = temporary.0.clone();
        let env = owned(&[("KVS_NODE__DATA_DIR", "/elsewhere")]).into_iter().collect();
        let sets = owned(&[("http.listen", "127.0.0.1:0")]);
        let (config, _) = configure(None, sets, Some(&temporary), &env).unwrap();
        assert_eq!((config.node.data_dir.as_path(), config.http.listen.port()), (dir.as_path(), 0));
        assert!(!config.clustering_enabled);
        fs::write(dir.join("data"), "x").unwrap();
        drop(temporary);
        assert!(!dir.exists());
    }

    #[test]
    fn dev_refuses_settings_that_it_makes_itself() {
        let temporary = Temporary::make().unwrap();
        for key in DEV_KEYS {
            let sets = owned(&[(key, "true")]);
            let error = configure(None, sets, Some(&temporary), &BTreeMap::new());
            let error = error.expect_err("--dev sets it");
            assert!(error.to_string().contains(key) && error.exit_code() == 2, "{error}");
        }
    }

    #[test]
    fn a_setting_needs_a_key_and_an_equals_sign() {
        assert_eq!(pair("a.b = c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn a_variable_that_looks_like_a_misspelt_key_is_named() {
        let temporary = Temporary::make().unwrap();
        let env = owned(&[("KVS_HTTP_LISTEN", "127.0.0.1:1")]).into_iter().collect();
        let (config, warnings) = configure(None, Vec::new(), Some(&temporary), &env).unwrap();
        assert_eq!(config.http.listen.port(), 8080);
        assert!(warnings[0].contains("KVS_HTTP_LISTEN") && warnings[0].contains("HTTP__LISTEN?"));
    }
}
