//! `config`: prints the default configuration, checks one with the files that it names, and shows
//! what is in force.
//!
//! Lists all faults at once. Changes nothing and starts nothing. The parts that use the files say
//! what is wrong with them; this file asks each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::error::CliError;
use super::note;
use super::output::{Output, printable};
use super::serve::{environment, pair};
use crate::clock::Clock;
use crate::config::{Config, DEFAULT_TOML, Examined, KeyInForce};
use crate::{node, peer};

/// The column at which `show` says where a value comes from.
const SOURCE_COLUMN: usize = 40;

/// `kvs config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its default, effect and range
    Default,
    /// Check a file and the files that it names, with the environment applied, as `serve` would
    ///
    /// Lists all faults: unknown keys, values, and whether the cluster's secret, the certificates
    /// and the key can be read, are valid and belong together. Starts nothing.
    Check(Check),
    /// Show the value of every key that is in force, and where it comes from
    Show(Show),
}

/// `kvs config check`
#[derive(Debug, Args)]
pub struct Check {
    /// Configuration file
    file: PathBuf,
    /// Override one configuration key, as for `serve`; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

/// `kvs config show`
#[derive(Debug, Args)]
pub struct Show {
    /// Configuration file; default: none, so that defaults and environment are shown
    file: Option<PathBuf>,
    /// Override one configuration key, as for `serve`; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

/// Prints, checks or shows a configuration.
///
/// # Errors
/// [`CliError::Config`] if the file cannot be read; [`CliError::Faults`] says what is wrong.
pub fn config(command: &ConfigCommand, out: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        ConfigCommand::Default => out.raw(DEFAULT_TOML.as_bytes()),
        ConfigCommand::Check(Check { file, set }) => check(file, set, out),
        ConfigCommand::Show(Show { file, set }) => show(file.as_deref(), set, out),
    }
}

fn check(file: &Path, sets: &[(String, String)], out: &mut Output<'_>) -> Result<(), CliError> {
    let examined = Config::examine(Some(file), &environment(), sets)?;
    let (faults, warnings) = findings(&examined, &Clock::system());
    warn(&warnings);
    if !faults.is_empty() {
        return Err(CliError::Faults(faults));
    }
    if out.is_json() {
        let file = file.display().to_string();
        return out.line(&json!({"file": file, "ok": true, "warnings": warnings}).to_string());
    }
    out.line(&format!("{}: ok", file.display()))
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// All faults and all warnings: of the values, then of the files that they name.
fn findings(examined: &Examined, clock: &Clock) -> (Vec<String>, Vec<String>) {
    let config = &examined.config;
    let mut faults: Vec<_> = examined.faults.iter().map(ToString::to_string).collect();
    let mut warnings = examined.warnings.clone();
    let bad_name = faults.iter().any(|fault| fault.starts_with("node.name"));
    if let Err(problem) = check_data_dir(&config.node.data_dir) {
        faults.push(format!("node.data_dir {}: {problem}", config.node.data_dir.display()));
    }
    if !config.http.listen.ip().is_loopback() && config.http.insecure {
        warnings.push(format!(
            "http.insecure lets everybody who reaches {} read, write and delete all data",
            config.http.listen
        ));
    }
    if config.clustering_enabled {
        if let Some(file) = &config.gossip.key_file {
            match node::read_secret(config) {
                Ok(_) => warnings.extend(readable_by_others(file)),
                Err(error) => faults.push(error.to_string()),
            }
        }
        // the certificate is checked for the node's name
        if !bad_name {
            let found = peer::check_files(&config.peer, &config.node.name, clock);
            faults.extend(found.faults);
            warnings.extend(found.warnings);
        }
    }
    (faults, warnings)
}

/// A missing directory is made at the start.
fn check_data_dir(dir: &Path) -> Result<(), String> {
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Err("is not a directory; name one".to_owned()),
        Ok(_) => fs::read_dir(dir).map(drop).map_err(|e| {
            format!("cannot read it: {e}; let the user that runs this node own it (`chown`)")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("cannot look at it: {error}; correct the path")),
    }
}

fn readable_by_others(file: &Path) -> Option<String> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    let shown = file.display();
    let problem = format!("{shown}: others can read the cluster's secret; run `chmod 600 {shown}`");
    (mode & 0o077 != 0).then_some(problem)
}

fn show(
    file: Option<&Path>,
    sets: &[(String, String)],
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let examined = Config::examine(file, &environment(), sets)?;
    warn(&examined.warnings);
    if out.is_json() {
        let keys = examined.keys.iter().map(|key| (key.key.clone(), key_json(key)));
        out.line(&Value::Object(keys.collect()).to_string())?;
    } else {
        show_lines(&examined.keys).iter().try_for_each(|line| out.line(&printable(line)))?;
    }
    let faults: Vec<_> = examined.faults.iter().map(ToString::to_string).collect();
    if faults.is_empty() { Ok(()) } else { Err(CliError::Faults(faults)) }
}

fn source(key: &KeyInForce) -> &str {
    match (&key.place, &key.value) {
        (Some(place), _) => place,
        (None, Some(_)) => "default",
        (None, None) => "not set",
    }
}

fn key_json(key: &KeyInForce) -> Value {
    let value = key.value.as_ref().and_then(|value| serde_json::to_value(value).ok());
    json!({"value": value, "from": source(key)})
}

/// The keys as TOML that a node would take, each with its source as a comment.
fn show_lines(keys: &[KeyInForce]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = "";
    let (flat, tables): (Vec<_>, Vec<_>) = keys.iter().partition(|key| !key.key.contains('.'));
    for key in flat.into_iter().chain(tables) {
        let (table, name) = key.key.rsplit_once('.').unwrap_or(("", &key.key));
        if table != current {
            lines.extend([String::new(), format!("[{table}]")]);
            current = table;
        }
        let setting = match &key.value {
            Some(value) => format!("{name} = {value}"),
            None => format!("# {name} ="),
        };
        lines.push(format!("{setting:<SOURCE_COLUMN$} # {}", source(key)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    fn run(command: &ConfigCommand, format: Format) -> (String, Result<(), CliError>) {
        let mut bytes = Vec::new();
        let ended = config(command, &mut Output::new(&mut bytes, format));
        (String::from_utf8(bytes).unwrap(), ended)
    }

    fn sets(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_file_is_checked_and_the_default_is_printed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kvs.toml");
        let check = |pairs| {
            let check = Check { file: file.clone(), set: sets(pairs) };
            run(&ConfigCommand::Check(check), Format::Text)
        };
        assert_eq!(check(&[]).1.map_err(|e| e.exit_code()), Err(2));
        fs::write(&file, "clustering_enabled = false\n").unwrap();
        let (text, ended) = check(&[]);
        assert!(ended.is_ok());
        assert_eq!(text, format!("{}: ok\n", file.display()));
        let error = check(&[("sync.interval", "0")]).1.expect_err("out of range");
        assert!(error.to_string().contains("sync.interval"), "{error}");
        fs::write(&file, "clustering_enabled = false\n[http]\nlissen = 1\n").unwrap();
        let error = check(&[]).1.expect_err("an unknown key");
        assert!(error.to_string().contains("http.listen") && error.exit_code() == 2, "{error}");
        assert_eq!(run(&ConfigCommand::Default, Format::Text).0, DEFAULT_TOML);
    }

    #[test]
    fn what_is_in_force_is_shown_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kvs.toml");
        fs::write(&file, "clustering_enabled = false\n[node]\nname = \"n7\"\n").unwrap();
        let show = |format| {
            let set = sets(&[("gossip.seeds", "a:1,b:2")]);
            run(&ConfigCommand::Show(Show { file: Some(file.clone()), set }), format)
        };
        let (text, ended) = show(Format::Text);
        assert!(ended.is_ok(), "{ended:?}");
        let line = |start: &str| {
            let found = text.lines().find(|line| line.starts_with(start)).unwrap();
            found.split_once(" # ").map(|(set, from)| (set.trim_end(), from)).unwrap()
        };
        assert_eq!(line("cas_enabled"), ("cas_enabled = true", "default"));
        assert_eq!(line("name ="), ("name = \"n7\"", file.to_str().unwrap()));
        assert_eq!(line("seeds ="), ("seeds = [\"a:1\", \"b:2\"]", "--set"));
        assert_eq!(line("# ca ="), ("# ca =", "not set"));
        // a node takes what is shown
        assert!(text.parse::<toml::Table>().is_ok(), "{text}");
        let json: Value = serde_json::from_str(&show(Format::Json).0).unwrap();
        assert_eq!(json["sync.interval"], json!({"value": "10s", "from": "default"}));
        assert_eq!(json["peer.ca"], json!({"value": null, "from": "not set"}));
    }
}
