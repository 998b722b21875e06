//! Which module may import which, which crate stays where, and no cycles.

use super::*;

/// The position and first name of each path after `start` (`crate::`), groups in braces included.
fn imports(code: &str, start: &str) -> Vec<(usize, String)> {
    let name = |at: usize| -> String {
        code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for at in places(code, start) {
        let first = at + start.len();
        if !code[first..].starts_with('{') {
            found.push((first, name(first)));
            continue;
        }
        let mut depth = 0;
        let mut fresh = false;
        for (offset, c) in code[first..].char_indices() {
            match c {
                '{' => (depth, fresh) = (depth + 1, true),
                '}' => depth -= 1,
                ',' => fresh = true,
                _ if c.is_whitespace() => {}
                _ => {
                    if depth == 1 && fresh {
                        found.push((first + offset, name(first + offset)));
                    }
                    fresh = false;
                }
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn check_direction(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let Some((_, allowed)) = DIRECTION.iter().find(|(name, _)| *name == module) else {
        let known = ["lib", "main"].contains(&module);
        let unknown =
            || source.finding(0, format!("module `{module}` is not in the DIRECTION table"));
        return if known { Vec::new() } else { vec![unknown()] };
    };
    let mut named = imports(&source.code, "crate::");
    if source.is_module_root() {
        named.extend(imports(&source.code, "super::"));
    }
    let is_module = |name: &str| DIRECTION.iter().any(|(known, _)| *known == name);
    let upward = |name: &str| name != module && is_module(name) && !allowed.contains(&name);
    let mut findings: Vec<_> = named
        .into_iter()
        .filter(|(at, name)| !source.is_test(*at) && upward(name))
        .map(|(at, name)| (source.line(at), format!("`{module}` must not import `{name}`")))
        .collect();
    for at in places(&source.code, "super::super::") {
        if !source.is_test(at) {
            findings.push((source.line(at), "name the path from `crate::` instead".to_owned()));
        }
    }
    findings.into_iter().map(|(line, rule)| source.finding(line, rule)).collect()
}

#[test]
fn imports_go_downward_only() {
    let bad = [
        ("src/model/key.rs", "use crate::clock::Clock;"),
        ("src/proto/wire.rs", "use crate::{\n    model::Key,\n    store::Store,\n};"),
        ("src/store/mod.rs", "fn f(x: super::http::X) {}"),
        ("src/gossip/mod.rs", "fn f() { crate::peer::dial() }"),
        ("src/http/kv.rs", "use crate::node::Node;"),
        ("src/node.rs", "use crate::cli;"),
        ("src/fresh.rs", "//! A module without a place in the table.\n"),
    ];
    let good = [
        ("src/http/kv.rs", "use crate::{model::{Key, store}, store::Store}; // crate::node"),
        ("src/store/mod.rs", "const S: &str = \"crate::http\";\n#[cfg(test)]\nuse crate::node::X;"),
        ("src/cli/mod.rs", "use crate::node::Node;"),
    ];
    enforce(check_direction, &bad, &good);
}

fn check_fences(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (paths, homes, rule) in FENCES {
        if !source.path.starts_with("src/")
            || homes.iter().any(|home| source.path.starts_with(home))
        {
            continue;
        }
        for path in paths {
            for at in places(&source.code, path) {
                if !source.is_test(at) {
                    findings.push(source.finding(source.line(at), format!("`{path}`: {rule}")));
                }
            }
        }
    }
    findings
}

#[test]
fn crates_time_entropy_and_tasks_stay_behind_their_fences() {
    let bad = [
        ("src/node.rs", "use axum::Router;"),
        ("src/store/writer.rs", "use rocksdb::DB;"),
        ("src/gossip/mod.rs", "fn f() -> quinn::Endpoint {}"),
        ("src/node.rs", "let _ = rustls::version::TLS13;"),
        ("src/gossip/mod.rs", "use foca::Foca;"),
        ("src/http/kv.rs", "let t = std::time::SystemTime::now();"),
        ("src/proto/schedule.rs", "let r = rand::rng();"),
        ("src/store/writer.rs", "tokio::spawn(async {});"),
    ];
    let good = [
        ("src/http/mod.rs", "use axum::Router;"),
        ("src/store/disk/rocks/mod.rs", "use rocksdb::DB; // not axum::Router"),
        ("src/proto/membership.rs", "use foca::Foca;"),
        ("src/proto/schedule.rs", "use rand::Rng; fn f(rng: &mut rand::rngs::StdRng) {}"),
        ("src/node/mod.rs", "tokio::spawn(async {});"),
        ("src/store/writer.rs", "set.spawn(f()); tokio::task::spawn_blocking(g);"),
        ("tests/it/main.rs", "let t = std::time::Instant::now();"),
    ];
    enforce(check_fences, &bad, &good);
}

fn check_pure(source: &Source) -> Vec<String> {
    let pure = matches!(source.module(), Some("model" | "proto"));
    let asynchronous =
        ["tokio::", "tokio_util::", "futures_util::", "std::net::UdpSocket", "async fn"];
    let shown =
        |at| source.finding(source.line(at), "model and proto know no tokio and no sockets");
    let found = asynchronous.iter().flat_map(|path| places(&source.code, path));
    found.filter(|at| pure && !source.is_test(*at)).map(shown).collect()
}

#[test]
fn model_and_proto_know_no_runtime() {
    let bad = [
        ("src/model/key.rs", "use tokio::time::Instant;"),
        ("src/proto/wire.rs", "async fn send() {}"),
    ];
    enforce(check_pure, &bad, &[("src/peer/mod.rs", "use tokio::net::UdpSocket;")]);
}

fn check_select(source: &Source) -> Vec<String> {
    let biased = |at: usize| {
        let rest = source.code[at..].trim_start_matches("select!").trim_start();
        rest.trim_start_matches(['{', '(']).trim_start().starts_with("biased;")
    };
    let shown = |at| source.finding(source.line(at), "`select!` starts with `biased;`");
    places(&source.code, "select!").filter(|&at| !biased(at)).map(shown).collect()
}

#[test]
fn select_is_biased_so_that_the_simulator_is_deterministic() {
    let bad = [("src/node.rs", "tokio::select! {\n    // biased;\n    x = f() => {}\n}")];
    let good = [("src/node.rs", "tokio::select! {\n    // why\n    biased;\n    x = f() => {}\n}")];
    enforce(check_select, &bad, &good);
}
