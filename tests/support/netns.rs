//! Network namespaces: each node of a cluster gets its own network, joined by a bridge. The kernel
//! cuts the links and loses packets on them (nftables).
//!
//! The whole test runs as root of new namespaces for network, mounts and processes (`unshare`),
//! started by any user. So no name clashes with another test's, nothing is visible outside, and
//! everything ends with the test, however that ends: when its first process ends, the kernel ends
//! the others.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::wait::{SOON, ensure, eventually};

/// Set in a test binary that runs inside.
const INSIDE: &str = "KVS_TEST_INSIDE";
/// The commands that must work inside. The shell names the first that fails.
const NEEDED: &str = "set -e; ip link add hub type bridge; unshare --net true; \
    nsenter -t $$ -n true; mount -t tmpfs none /mnt; \
    echo 'table inet t { chain c { numgen random mod 10 < 1 drop; }; }' | nft -f -";

/// Whether this process runs inside namespaces that [`rerun`] made.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// `program` in new namespaces that end with it.
fn unshared(program: &str) -> Command {
    let mut command = Command::new("unshare");
    if run(Command::new("id").arg("-u"), "").is_ok_and(|id| id.trim() != "0") {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(program);
    command
}

/// Why this machine cannot make the namespaces; `None` if it can.
pub fn missing() -> Option<String> {
    run(unshared("sh").args(["-c", NEEDED]), "").err()
}

/// Runs the test `name` of this binary again, inside; returns its exit status and its output.
pub fn rerun(name: &str) -> (ExitStatus, String) {
    let binary = std::env::current_exe().expect("the path of this binary");
    let mut command = unshared(binary.to_str().expect("a path of text"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare starts");
    // open until the test ends: the inner process watches it, see `end_with_the_outside`
    let _alive = child.stdin.take();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let told = std::thread::scope(|scope| {
        let err = scope.spawn(|| read_all(err));
        let out = read_all(out);
        out + &err.join().unwrap_or_default()
    });
    (child.wait().expect("it ends"), told)
}

fn read_all(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    // even incomplete output helps
    let _ = from.map(|mut from| from.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ends this process, and so everything inside, when the outer process ends.
pub fn end_with_the_outside() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

/// Runs a command with `input`; the error is its output.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|e| format!("{:?}: {e}", piped.get_program()))?;
    let mut stdin = child.stdin.take();
    // fails if the command ended without reading it
    let _ = stdin.as_mut().map(|stdin| stdin.write_all(input.as_bytes()));
    drop(stdin);
    let ended = child.wait_with_output().map_err(|e| e.to_string())?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Err(format!("{:?} ({}): {said}", command.get_program(), ended.status))
}

/// Runs a line of shell; panics if it fails.
#[track_caller]
pub fn must(line: &str) {
    run(Command::new("sh").args(["-e", "-c", line]), "").unwrap_or_else(|e| panic!("{line}: {e}"));
}

/// The networks of some nodes, each with one address.
pub struct Networks {
    /// Each holds a network namespace open until killed.
    keepers: Vec<Child>,
}

impl Networks {
    /// One network per address in `addresses`, on a bridge that this process reaches from `own` and
    /// `faces`. All belong to one network of 256 addresses.
    pub async fn new(own: Ipv4Addr, addresses: &[Ipv4Addr], faces: &[Ipv4Addr]) -> Self {
        must("ip link set lo up; ip link add hub type bridge; ip link set hub up");
        must(&format!("ip addr add {own}/24 dev hub"));
        for face in faces {
            must(&format!("ip addr add {face}/24 dev hub"));
        }
        let mut networks = Self { keepers: Vec::new() };
        for (number, address) in addresses.iter().enumerate() {
            let keeper = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn();
            let pid = keeper.as_ref().map(Child::id).expect("unshare starts");
            networks.keepers.extend(keeper);
            eventually(SOON, "a network namespace is made", async || {
                let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
                ensure(of(&pid.to_string()) != of("self"), || "it is still this one".to_owned())
            })
            .await;
            must(&format!(
                "ip link add port{number} type veth peer name eth0 netns {pid}; \
                 ip link set port{number} master hub up; \
                 nsenter -t {pid} -n ip link set lo up; \
                 nsenter -t {pid} -n ip addr add {address}/24 dev eth0; \
                 nsenter -t {pid} -n ip link set eth0 up"
            ));
        }
        networks
    }

    /// The command prefix that executes a command in network `at`.
    pub fn enter(&self, at: usize) -> Vec<String> {
        let pid = self.keepers[at].id().to_string();
        ["nsenter", "-t", &pid, "-n"].map(str::to_owned).to_vec()
    }

    /// Loses packets that enter network `at`: for each address the given fraction of its packets.
    pub fn lose(&self, at: usize, losses: &[(Ipv4Addr, f64)]) {
        let rule = |(from, part): &(Ipv4Addr, f64)| match part {
            0.0 => String::new(),
            1.0 => format!("ip saddr {from} drop;\n"),
            part => {
                format!("ip saddr {from} numgen random mod 1000 < {:.0} drop;\n", part * 1000.0)
            }
        };
        let rules: String = losses.iter().map(rule).collect();
        // nft replaces the table in one step; it must exist to be deleted
        let script = format!(
            "table inet links\ndelete table inet links\ntable inet links {{ chain arriving {{\n\
             type filter hook input priority 0; policy accept;\n{rules}}}\n}}\n"
        );
        let enter = self.enter(at);
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(["nft", "-f", "-"]);
        run(&mut command, &script).unwrap_or_else(|e| panic!("nft: {e}: {script}"));
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for keeper in &mut self.keepers {
            // fails if it has ended already
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }
}
