//! One node: a `kvs serve` process with its configuration, data directory and log.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::command::{self, Ended};
use super::wait::{SOON, ensure, eventually};

/// How much of a log to print when a test fails.
const TAIL_LINES: usize = 60;
/// How long an orderly stop may take when no request delays it.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// The files and the configuration of a node, running or not.
pub struct Place {
    pub name: String,
    pub dir: PathBuf,
    settings: toml::Table,
    /// The directory of a development node, if this is one.
    develops: Option<PathBuf>,
    /// How to start the process.
    surroundings: Surroundings,
    /// Words that make an error in its log acceptable.
    bears: Vec<&'static str>,
    /// Keeps the files until the last node of the site is dropped.
    _home: Arc<TempDir>,
}

/// The command before the process, and variables added to its environment.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// A command that executes the one after it.
    pub through: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Nobody reads the ready line: the log says it, too.
    pub ready_in_log: bool,
}

impl Surroundings {
    /// A shell command that ends with `"$@"`, the node's own command.
    pub fn shell(line: &str) -> Self {
        let through = ["sh", "-c", line, "sh"].map(str::to_owned).to_vec();
        Self { through, ..Self::default() }
    }
}

/// A started node. Dropping it kills the process.
pub struct Node {
    pub place: Place,
    pub http: SocketAddr,
    pub gossip: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    /// The id with which it said that it was ready.
    pub id: String,
    pub client: Client,
    child: Child,
}

impl Place {
    /// A place named `name` below `home`.
    pub fn new(home: Arc<TempDir>, name: &str, settings: toml::Table) -> Self {
        let dir = home.path().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        let name_owned = name.to_owned();
        let mut place = Self {
            name: name_owned,
            dir,
            settings,
            develops: None,
            surroundings: Surroundings::default(),
            bears: Vec::new(),
            _home: home,
        };
        place.set("node.name", name);
        let data = place.data_dir();
        place.set("node.data_dir", data.to_str().expect("a path of text"));
        place
    }

    /// Sets one key of the configuration, such as `sync.interval`.
    pub fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        set(&mut self.settings, key, value);
    }

    /// Turns it into a development node, with its directory below `dir`.
    pub fn develop(&mut self, dir: &Path) {
        self.develops = Some(dir.to_owned());
    }

    pub fn surround(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
    }

    /// Accepts log errors that contain `words`, because the test causes them.
    pub fn bear(&mut self, words: &'static str) {
        self.bears.push(words);
    }

    pub fn data_dir(&self) -> PathBuf {
        match self.settings.get("node").and_then(|node| node.get("data_dir")) {
            Some(toml::Value::String(dir)) => dir.into(),
            _ => self.dir.join("data"),
        }
    }

    /// Whether other nodes reach it at another address than it listens on.
    fn advertises(&self, part: &str) -> bool {
        self.settings.get(part).is_some_and(|table| table.get("advertise").is_some())
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.join("kvs.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn write_config(&self) {
        let text = toml::to_string(&self.settings).expect("a configuration");
        fs::write(self.config_file(), text).expect("the configuration is written");
    }

    fn command(&self) -> Command {
        self.write_config();
        let mut command = match self.surroundings.through.split_first() {
            Some((program, arguments)) => {
                let mut command = command::clean(program);
                command.args(arguments).arg(command::binary());
                command
            }
            None => command::clean(command::binary()),
        };
        command.envs(self.surroundings.environment.iter().cloned()).arg("serve");
        match &self.develops {
            Some(dir) => {
                command.env("TMPDIR", dir).args(["--dev", "--set", "http.listen=127.0.0.1:0"])
            }
            None => command.arg("--config").arg(self.config_file()),
        };
        command
    }

    /// Starts a node that must fail, and returns its output.
    pub fn start_in_vain(&self) -> Ended {
        command::finish(self.command(), b"")
    }

    /// Starts the node and waits until it serves.
    pub async fn start(self) -> Node {
        let out = self.dir.join("out");
        let mut command = self.command();
        let log = OpenOptions::new().create(true).append(true).open(self.log_file());
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file for its output"))
            .stderr(log.expect("a log"));
        let child = command.spawn().expect("kvs starts");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node {
            place: self,
            http: nowhere,
            gossip: None,
            peer: None,
            id: String::new(),
            client: Client::new(nowhere),
            child,
        };
        let what = format!("{} is ready", node.place.name);
        let line = eventually(SOON, &what, async || node.ready_line(&out)).await;
        node.take(&line);
        node
    }
}

/// Sets one key of a configuration.
pub fn set(settings: &mut toml::Table, key: &str, value: impl Into<toml::Value>) {
    let mut table = settings;
    let mut name = key;
    while let Some((outer, inner)) = name.split_once('.') {
        let entry = table.entry(outer).or_insert_with(|| toml::Table::new().into());
        table = entry.as_table_mut().expect("a table");
        name = inner;
    }
    table.insert(name.to_owned(), value.into());
}

impl Node {
    /// Learns the id that the node has now: it may have begun anew since it said it was ready.
    pub async fn learn_id(&mut self) {
        let cluster = self.client.cluster().await;
        self.id = cluster["node"]["id"].as_str().expect("an id").to_owned();
    }

    fn ready_line(&mut self, out: &Path) -> Result<String, String> {
        if let Some(status) = self.child.try_wait().expect("its status") {
            panic!("{} ended instead of serving: {status}", self.place.name);
        }
        if self.place.surroundings.ready_in_log {
            let log = self.log();
            let line = log.lines().rev().find_map(|line| line.split_once("ready http="));
            return line
                .map(|(_, rest)| format!("ready http={rest}"))
                .ok_or("not ready".to_owned());
        }
        let text = fs::read_to_string(out).unwrap_or_default();
        let line = text.strip_suffix('\n').ok_or("no line on its output yet")?;
        assert!(!line.contains('\n'), "more than one line: {text:?}");
        Ok(line.to_owned())
    }

    fn take(&mut self, line: &str) {
        let rest = line.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {line:?}"));
        let field = |name: &str| {
            let found = rest.split(' ').filter_map(|pair| pair.split_once('='));
            found.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
        };
        let address = |name: &str| field(name).map(|text| text.parse().expect("an address"));
        self.http = address("http").expect("an HTTP address");
        (self.gossip, self.peer) = (address("gossip"), address("peer"));
        self.id = field("node").expect("an id");
        self.client = Client::new(self.http);
    }

    pub fn url(&self) -> &str {
        self.client.url()
    }

    /// Sends a signal, named as for `kill`.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &line]).status().expect("a shell");
        assert!(status.success(), "{line}");
    }

    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills the process (SIGKILL) and waits for its end. The place remains.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it ends");
    }

    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Waits for the end of the process and returns the exit status.
    pub async fn ended(&mut self, within: Duration) -> i32 {
        let what = format!("{} ends", self.place.name);
        let status = eventually(within, &what, async || {
            self.child.try_wait().expect("its status").ok_or("it runs".to_owned())
        });
        status.await.code().expect("no signal ended it")
    }

    /// Stops the node in order (SIGTERM) and asserts exit status 0.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.ended(STOP_WAIT).await, 0, "an orderly stop");
    }

    /// Starts the node again after it ended, with the same gossip and peer addresses. The HTTP port
    /// changes, because a client's connection may occupy the old one.
    pub async fn restart(mut self) -> Self {
        assert!(self.child.try_wait().expect("its status").is_some(), "it still runs");
        self.check_log();
        for (part, address) in [("gossip", self.gossip), ("peer", self.peer)] {
            if let Some(address) = address.filter(|_| !self.place.advertises(part)) {
                self.place.set(&format!("{part}.listen"), address.to_string());
            }
        }
        let place = Place {
            name: self.place.name.clone(),
            dir: self.place.dir.clone(),
            settings: self.place.settings.clone(),
            develops: self.place.develops.clone(),
            surroundings: self.place.surroundings.clone(),
            bears: self.place.bears.clone(),
            _home: self.place._home.clone(),
        };
        drop(self);
        place.start().await
    }

    /// Kills the node and starts it again.
    pub async fn kill_and_restart(mut self) -> Self {
        self.kill();
        self.restart().await
    }

    /// The log of all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.log_file()).unwrap_or_default()
    }

    /// Waits until a line of the log contains all of `words`.
    pub async fn logs(&self, words: &[&str]) {
        eventually(SOON, &format!("{} logs {words:?}", self.place.name), async || {
            let log = self.log();
            let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            ensure(found, || "no such line".to_owned())
        })
        .await;
    }

    /// The peak memory of the process, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The current memory of the process, in bytes.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn memory_now(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        let kib = line.trim().strip_suffix(" kB").expect("in kB").trim();
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// How many of its open files have a path that `counts`.
    pub fn open_files(&self, counts: impl Fn(&str) -> bool) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its files");
        let paths = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        paths.filter(|path| path.to_str().is_some_and(&counts)).count()
    }

    fn check_log(&self) {
        let log = self.log();
        for line in log.lines() {
            let borne = self.place.bears.iter().any(|words| line.contains(words));
            assert!(
                borne || (!line.contains(" ERROR ") && !line.contains("panicked")),
                "in the log of {}: {line}",
                self.id
            );
        }
    }

    /// The state of the node `other` as this node sees it.
    pub async fn member(&self, other: &str) -> Option<Value> {
        let cluster = self.client.cluster().await;
        let members = cluster["members"].as_array().expect("members");
        members.iter().find(|member| member["id"] == other).cloned()
    }

    /// Waits until this node sees the node with the id `other` in `state`.
    pub async fn shows(&self, other: &str, state: &str) {
        self.shows_within(SOON, other, state).await;
    }

    pub async fn shows_within(&self, within: Duration, other: &str, state: &str) {
        eventually(within, &format!("{} shows {other} {state}", self.place.name), async || {
            let shown = self.member(other).await.map(|member| member["state"].clone());
            ensure(shown.as_ref().is_some_and(|s| *s == state), || format!("{shown:?}"))
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // fails if the process has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!("--- the log of {} ({}) ends so:", self.place.name, self.id);
            eprintln!("{}", tail.join("\n"));
        } else {
            self.check_log();
        }
    }
}
