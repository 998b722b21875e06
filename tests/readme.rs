//! The READMEs are true: every command in them runs, against the binary of this tree.
//!
//! `tests/readme.sh` runs one README and carries the deadlines; this file gives each its ports, and
//! makes sure that no README and no command block escapes. Nothing is skipped: without bash, curl
//! or free ports it fails.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

/// Every README. One that is added must be added here, and given a test below.
const READMES: [&str; 4] = ["README.md", "deploy/README.md", "certs/README.md", "tests/README.md"];

/// Info strings of fenced blocks. `tests/readme.sh --help` says what it does with each.
const RUN: &str = "sh";
const NOT_RUN_HERE: [&str; 2] = ["sh gate", "sh long"];
const NO_COMMANDS: [&str; 3] = ["text", "json", "toml"];

/// Below the ports that the system hands out by itself.
const FIRST_PORT: u16 = 20_000;
const GROUPS: u16 = 187;
/// What one README takes: 4 TCP ports and, 1,000 above them, 8 UDP ports.
const TCP_PORTS: u16 = 4;
const UDP_PORTS: u16 = 8;

/// Finds free ports for `tests/readme.sh`. Runs side by side start looking at different places;
/// `lane` keeps the READMEs of one run apart.
fn free_base(lane: u16) -> u16 {
    let lanes = u16::try_from(READMES.len()).unwrap();
    let start = u16::try_from(std::process::id() % u32::from(GROUPS)).unwrap();
    let base = |at| FIRST_PORT + ((start + at) % GROUPS * lanes + lane) * UDP_PORTS;
    let tcp_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let udp_free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    let free = |base: &u16| {
        (*base..base + TCP_PORTS).all(tcp_free)
            && (base + 1000..base + 1000 + UDP_PORTS).all(udp_free)
    };
    (0..GROUPS).map(base).find(free).expect("no free ports from 20000 to 27000")
}

fn run(lane: u16) {
    let readme = READMES[usize::from(lane)];
    let base = free_base(lane).to_string();
    // cargo runs tests in the root of the package, wherever that was when this was compiled
    let output = Command::new("bash")
        .args(["tests/readme.sh", "--bin", env!("CARGO_BIN_EXE_kvs"), "--http-base", &base, readme])
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (printed, noted) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{readme}: {}\n{printed}\n{noted}", output.status);
    let lines = text(readme).blocks.iter().filter(|b| b.info == RUN).map(|b| b.lines.len()).sum();
    let said = printed.lines().last().and_then(|line| line.split(' ').next()?.parse().ok());
    assert_eq!(said, Some::<usize>(lines), "lines of commands run in {readme}\n{printed}");
}

#[test]
fn the_commands_of_the_front_page_do_what_it_says() {
    run(0);
}

#[test]
fn the_commands_for_operators_do_what_their_page_says() {
    run(1);
}

#[test]
fn the_commands_about_trust_do_what_their_page_says() {
    run(2);
}

#[test]
fn the_commands_about_tests_do_what_their_page_says() {
    run(3);
}

/// A fenced block.
struct Block {
    info: String,
    lines: Vec<String>,
}

/// A README, taken apart.
struct Text {
    blocks: Vec<Block>,
    prose: Vec<String>,
}

fn text(readme: &str) -> Text {
    take_apart(&fs::read_to_string(readme).unwrap()).unwrap_or_else(|e| panic!("{readme}: {e}"))
}

fn take_apart(readme: &str) -> Result<Text, String> {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            prose.push(line.to_owned());
            continue;
        };
        let mut block = Block { info: info.to_owned(), lines: Vec::new() };
        loop {
            match lines.next() {
                Some("```") => break,
                Some(line) => block.lines.push(line.to_owned()),
                None => return Err(format!("a block is not closed: ```{info}")),
            }
        }
        blocks.push(block);
    }
    Ok(Text { blocks, prose })
}

fn is_command(line: &str) -> bool {
    const WORDS: [&str; 8] = ["$ ", "kvs ", "curl ", "cargo ", "deploy/", "tests/", "./", "KVS_"];
    WORDS.iter().any(|word| line.trim_start().starts_with(word))
}

/// What `tests/readme.sh` would pass over.
fn unrun(readme: &str) -> Result<(), String> {
    let text = take_apart(readme)?;
    let mut found = String::new();
    for Block { info, lines } in &text.blocks {
        let info = info.as_str();
        let known = info == RUN || NOT_RUN_HERE.contains(&info);
        if NO_COMMANDS.contains(&info) || info.starts_with("toml ") {
            for line in lines.iter().filter(|line| is_command(line)) {
                let _ = writeln!(found, "a command in a block of ```{info}: {line}");
            }
        } else if !known {
            let _ = writeln!(found, "nothing runs blocks of ```{info}: {lines:?}");
        }
    }
    for line in text.prose.iter().filter(|line| line.starts_with("    ") && is_command(line)) {
        let _ = writeln!(found, "a command in an indented block: {line}");
    }
    for line in text.prose.iter().filter(|line| line.trim_start().starts_with("~~~")) {
        let _ = writeln!(found, "a block fenced with something else: {line}");
    }
    for line in
        text.prose.iter().filter(|line| line.starts_with([' ', '>']) && line.contains("```"))
    {
        let _ = writeln!(found, "a block inside a list or a quotation: {line}");
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

#[test]
fn no_readme_holds_a_command_that_nothing_runs() {
    for bad in [
        "```\nkvs get a\n```\n",
        "```bash\nkvs get a\n```\n",
        "```sh later\nkvs get a\n```\n",
        "```text\n$ kvs get a\n```\n",
        "```toml a.toml\nkvs serve --dev\n```\n",
        "```sh\nkvs get a\n",
        "Do this:\n\n    kvs get a\n",
        "~~~sh\nkvs get a\n~~~\n",
        "- so:\n  ```sh\n  kvs get a\n  ```\n",
    ] {
        assert!(unrun(bad).is_err(), "not noticed:\n{bad}");
    }
    assert_eq!(unrun("```sh\nkvs get a\n```\n\n```text\nkvs: no\n```\n"), Ok(()));
    for readme in READMES {
        let found = unrun(&fs::read_to_string(readme).unwrap());
        assert_eq!(found, Ok(()), "{readme}");
    }
}

#[test]
fn every_readme_has_a_test() {
    fn walk(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != ".git" {
                    walk(&path, found);
                }
            } else if name.to_string_lossy().to_lowercase().starts_with("readme.md") {
                found.push(path.strip_prefix(".").unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("."), &mut found);
    for readme in &found {
        assert!(READMES.contains(&readme.as_str()), "{readme} has no test here");
    }
    for readme in &READMES {
        assert!(found.iter().any(|found| found == readme), "{readme} is gone");
    }
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_within_the_repository_lead_somewhere() {
    for readme in READMES {
        let prose = text(readme).prose.join("\n");
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let path = match file.strip_prefix("../") {
                Some(from_the_root) => from_the_root.into(),
                None if file.is_empty() => readme.into(),
                None => Path::new(readme).with_file_name(file),
            };
            let path = path.to_str().unwrap();
            let exists = Path::new(path).exists();
            assert!(exists || READMES.contains(&path), "{readme}: {link}");
            if !part.is_empty() && exists {
                let prose = text(path).prose;
                let found = prose.iter().any(|line| line.starts_with('#') && anchor(line) == part);
                assert!(found, "{readme}: {link}");
            }
        }
    }
}

#[test]
fn the_front_page_is_short_and_begins_with_something_to_try() {
    let page = fs::read_to_string(READMES[0]).unwrap();
    let words = page.split_whitespace().count();
    assert!(words < 1500, "{words} words; move what most readers do not need to another README");
    let first: Vec<_> = page.lines().take(10).collect();
    for command in ["kvs serve --dev", "kvs put ", "kvs get "] {
        assert!(first.iter().any(|line| line.starts_with(command)), "{command}: {first:?}");
    }
}
