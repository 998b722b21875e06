//! One node: a process of `kvs serve` with a configuration, a data directory and a log of its own.

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

/// How much of a log is shown when a test fails.
const TAIL_LINES: usize = 60;
/// How long an orderly stop may take where no request holds it up.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// Where a node lives and how it is configured; it need not run.
pub struct Place {
    pub name: String,
    pub dir: PathBuf,
    settings: toml::Table,
    /// Where a development node makes its directory, if this is one.
    develops: Option<PathBuf>,
    /// What its process is started through, and what its environment has besides.
    surroundings: Surroundings,
    /// What an error in its log may hold without failing the test.
    bears: Vec<&'static str>,
    /// Keeps the files until the last node is gone.
    _home: Arc<TempDir>,
}

/// What a process is started through and its environment has besides.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// A command that becomes the one that follows it.
    pub through: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// A node that was started. Dropping it kills it.
pub struct Node {
    pub place: Place,
    pub http: SocketAddr,
    pub gossip: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
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

    /// Sets one key of the configuration, as in `sync.interval`.
    pub fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        set(&mut self.settings, key, value);
    }

    /// Makes it that of a development node, with its directory below `dir`.
    pub fn develop(&mut self, dir: &Path) {
        self.develops = Some(dir.to_owned());
    }

    pub fn surround(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
    }

    /// Lets its log have errors that hold `words`: the test makes them happen.
    pub fn bear(&mut self, words: &'static str) {
        self.bears.push(words);
    }

    pub fn data_dir(&self) -> PathBuf {
        match self.settings.get("node").and_then(|node| node.get("data_dir")) {
            Some(toml::Value::String(dir)) => dir.into(),
            _ => self.dir.join("data"),
        }
    }

    /// Whether others reach it by another address than it listens on.
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

    /// Starts a node that is expected to fail, and takes what it says.
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
    fn ready_line(&mut self, out: &Path) -> Result<String, String> {
        if let Some(status) = self.child.try_wait().expect("its status") {
            panic!("{} ended instead of serving: {status}", self.place.name);
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

    /// Sends a signal, named as `kill` names it.
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

    /// Kills it (SIGKILL) and waits for its end; its place remains.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end and gives the exit status.
    pub async fn ended(&mut self, within: Duration) -> i32 {
        let what = format!("{} ends", self.place.name);
        let status = eventually(within, &what, async || {
            self.child.try_wait().expect("its status").ok_or("it runs".to_owned())
        });
        status.await.code().expect("no signal ended it")
    }

    /// Stops it in order (SIGTERM) and checks that it says so.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.ended(STOP_WAIT).await, 0, "an orderly stop");
    }

    /// Starts it again after it ended, with the gossip and peer addresses that it had. The HTTP
    /// port is another one: a client's connection may have taken the old one.
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

    /// Kills it and starts it again.
    pub async fn kill_and_restart(mut self) -> Self {
        self.kill();
        self.restart().await
    }

    /// Everything that it logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.log_file()).unwrap_or_default()
    }

    /// Waits until its log has a line with all of `words`.
    pub async fn logs(&self, words: &[&str]) {
        eventually(SOON, &format!("{} logs {words:?}", self.place.name), async || {
            let log = self.log();
            let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            ensure(found, || "no such line".to_owned())
        })
        .await;
    }

    /// The largest amount of memory that it ever had, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that it has now, in bytes.
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

    /// What the node `other` looks like from this one.
    pub async fn member(&self, other: &str) -> Option<Value> {
        let cluster = self.client.cluster().await;
        let members = cluster["members"].as_array().expect("members");
        members.iter().find(|member| member["id"] == other).cloned()
    }

    /// Waits until this node shows the node with the id `other` in `state`.
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
        // it may have ended before
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
