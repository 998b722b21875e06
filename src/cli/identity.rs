//! `cert` and `gossip-key`: make the files that prove which nodes belong to a cluster.
//!
//! `peer::certificate` and `proto::secret` decide the contents. This file decides names and modes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::error::CliError;
use super::files::{self, Access};
use super::output::{Output, printable};
use crate::clock::Clock;
use crate::model::Member;
use crate::peer::certificate;
use crate::proto::secret::Secret;

/// `kvs cert`
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Make the certificate authority of a cluster: ca.pem and ca-key.pem
    Ca(Ca),
    /// Make a node's certificate, signed by the authority: NAME.pem and NAME-key.pem
    Node(Node),
    /// Show the contents of a certificate
    Show(Show),
}

/// `kvs cert ca`
#[derive(Debug, Args)]
pub struct Ca {
    /// Directory for the files; created if missing
    #[arg(long)]
    dir: PathBuf,
    /// Overwrite an authority: nodes with the new ca.pem refuse certificates of the old one
    #[arg(long)]
    force: bool,
}

/// `kvs cert node`
#[derive(Debug, Args)]
pub struct Node {
    /// The node's name, equal to its node.name
    name: String,
    /// Directory that holds the authority; receives the new files
    #[arg(long)]
    dir: PathBuf,
    /// Another host name or IP address of the node; repeatable
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Overwrite the node's certificate and key
    #[arg(long)]
    force: bool,
}

/// `kvs cert show`
#[derive(Debug, Args)]
pub struct Show {
    /// Certificate in PEM
    file: PathBuf,
}

/// `kvs gossip-key`
#[derive(Debug, Subcommand)]
pub enum GossipKey {
    /// Make the secret of a new cluster
    New(New),
}

/// `kvs gossip-key new`
#[derive(Debug, Args)]
pub struct New {
    /// File to write; its directory is created if missing
    #[arg(long)]
    file: PathBuf,
    /// Overwrite the file: nodes with the new secret form another cluster
    #[arg(long)]
    force: bool,
}

/// Makes or shows certificates.
///
/// # Errors
/// [`CliError::Usage`] or [`CliError::File`]; no file is half written.
pub fn cert(command: Cert, out: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        Cert::Ca(args) => ca(&args, out),
        Cert::Node(args) => node(&args, out),
        Cert::Show(args) => show(&args, out),
    }
}

/// Makes the secret of a cluster.
///
/// # Errors
/// [`CliError::Usage`] or [`CliError::File`]; no file is half written.
pub fn gossip_key(command: &GossipKey, out: &mut Output<'_>) -> Result<(), CliError> {
    let GossipKey::New(args) = command;
    if let Some(dir) = args.file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        files::make_dir(dir)?;
    }
    files::write(&args.file, &new_secret(), Access::Private, args.force)?;
    wrote(out, &[&args.file])?;
    next(out, "copy it to every node, and to nobody else; set gossip.key_file to it")
}

fn ca(args: &Ca, out: &mut Output<'_>) -> Result<(), CliError> {
    let (cert, key) = (args.dir.join("ca.pem"), args.dir.join("ca-key.pem"));
    files::make_dir(&args.dir)?;
    let made = make_ca()?;
    write_pair((&cert, &key), &made, args.force)?;
    wrote(out, &[&cert, &key])?;
    let dir = args.dir.display();
    next(
        out,
        &format!("`kvs cert node NAME --dir {dir}` for each node; keep ca-key.pem off the nodes"),
    )
}

fn node(args: &Node, out: &mut Output<'_>) -> Result<(), CliError> {
    check_name(&args.name)?;
    let ca = |name: &str| {
        files::read(&args.dir.join(name)).map_err(|error| {
            let dir = args.dir.display();
            CliError::Usage(format!("{error}; make an authority with `kvs cert ca --dir {dir}`"))
        })
    };
    let made = make_node(&ca("ca.pem")?, &ca("ca-key.pem")?, args)?;
    let cert = args.dir.join(format!("{}.pem", args.name));
    let key = args.dir.join(format!("{}-key.pem", args.name));
    write_pair((&cert, &key), &made, args.force)?;
    wrote(out, &[&cert, &key])?;
    next(out, "copy both and ca.pem to the node; set peer.cert, peer.key and peer.ca to them")
}

fn show(args: &Show, out: &mut Output<'_>) -> Result<(), CliError> {
    let description = describe(&args.file, &files::read(&args.file)?)?;
    if out.is_json() {
        return out.json(description.to_string().as_bytes());
    }
    let Value::Object(fields) = description else { return out.line(&description.to_string()) };
    for (name, value) in fields {
        out.line(&format!("{:<12} {}", name.replace('_', " "), words(&value)))?;
    }
    Ok(())
}

/// Formats a field of a description for people.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Writes the key before the certificate, so that no certificate ever lacks its key.
fn write_pair(
    (cert, key): (&Path, &Path),
    made: &(String, String),
    force: bool,
) -> Result<(), CliError> {
    files::refuse_existing(&[cert, key], force)?;
    files::write(key, &made.1, Access::Private, force)?;
    files::write(cert, &made.0, Access::Public, force)
}

fn wrote(out: &mut Output<'_>, paths: &[&Path]) -> Result<(), CliError> {
    if out.is_json() {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return out.line(&serde_json::json!({ "written": paths }).to_string());
    }
    paths.iter().try_for_each(|path| out.line(&format!("wrote {}", path.display())))
}

fn next(out: &mut Output<'_>, what: &str) -> Result<(), CliError> {
    if out.is_json() { Ok(()) } else { out.line(&format!("next: {what}")) }
}

/// Refuses names that `node.name` refuses, and names whose files would overwrite those of the
/// authority or of another node.
fn check_name(name: &str) -> Result<(), CliError> {
    Member::check_name(name).map_err(|e| CliError::Usage(format!("node.name: {e}")))?;
    if name == "ca" || name.ends_with("-key") {
        let problem = "would overwrite other files; choose another name";
        return Err(CliError::Usage(format!("the files of a node named `{name}` {problem}")));
    }
    Ok(())
}

fn make_ca() -> Result<(String, String), CliError> {
    certificate::make_ca(&Clock::system()).map_err(|e| CliError::Usage(e.to_string()))
}

fn make_node(ca: &str, ca_key: &str, args: &Node) -> Result<(String, String), CliError> {
    certificate::make_node(&Clock::system(), ca, ca_key, &args.name, &args.hosts)
        .map_err(|e| CliError::Usage(e.to_string()))
}

fn describe(file: &Path, pem: &str) -> Result<Value, CliError> {
    let fail = |e: &dyn std::fmt::Display| CliError::Usage(format!("{}: {e}", file.display()));
    let description = certificate::describe(pem).map_err(|e| fail(&e))?;
    serde_json::to_value(description).map_err(|e| fail(&e))
}

fn new_secret() -> String {
    Secret::from_entropy(Clock::system().random()).to_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn run(command: Cert, format: Format) -> Result<String, CliError> {
        let mut bytes = Vec::new();
        cert(command, &mut Output::new(&mut bytes, format))?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    fn node(dir: &Path, name: &str, force: bool) -> Cert {
        let hosts = vec!["10.0.0.1".to_owned()];
        Cert::Node(Node { name: name.to_owned(), dir: dir.to_owned(), hosts, force })
    }

    #[test]
    fn an_authority_and_a_node_get_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let early = run(node(&dir, "n1", false), Format::Text).expect_err("no authority");
        assert!(early.to_string().contains("kvs cert ca --dir"), "{early}");
        let ca = |force| Cert::Ca(Ca { dir: dir.clone(), force });
        assert!(run(ca(false), Format::Text).unwrap().contains("next: `kvs cert node NAME"));
        let twice = run(ca(false), Format::Text).expect_err("it exists");
        assert!(twice.to_string().contains("--force"), "{twice}");
        let json = run(node(&dir, "n1", false), Format::Json).unwrap();
        let written: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(written["written"].as_array().map(Vec::len), Some(2));
        for (name, mode) in
            [("ca.pem", 0o644), ("ca-key.pem", 0o600), ("n1.pem", 0o644), ("n1-key.pem", 0o600)]
        {
            let found = fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found & !0o022, mode & !0o022, "{name}");
        }
        let shown = run(Cert::Show(Show { file: dir.join("n1.pem") }), Format::Text).unwrap();
        assert!(shown.contains("is ca        no") && shown.contains("n1"), "{shown}");
    }

    #[test]
    fn names_that_would_overwrite_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        run(Cert::Ca(Ca { dir: dir.path().into(), force: false }), Format::Text).unwrap();
        for name in ["ca", "ca-key", "n1-key", "", "../n1", "a/b", "a\nb"] {
            let error = run(node(dir.path(), name, true), Format::Text).expect_err(name);
            assert_eq!(error.exit_code(), 2, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn secrets_are_private_and_differ() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let file = dir.path().join("keys").join(name);
            let command = GossipKey::New(New { file: file.clone(), force: false });
            gossip_key(&command, &mut Output::new(&mut Vec::new(), Format::Text)).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            fs::read_to_string(file).unwrap()
        };
        assert_ne!(make("a"), make("b"));
    }
}
