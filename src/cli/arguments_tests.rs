//! The command line as a whole: which lines parse, which do not, and that everything has help.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split(' '))
}

#[test]
fn clap_accepts_the_definition() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_parses() {
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for line in [
        "kvs serve --dev --log json --set http.listen=127.0.0.1:0 --set node.name=n2",
        "kvs serve --config kvs.toml",
        "kvs get a/b --url http://h:1 -o json",
        "kvs --url http://h:1 -o json get a/b",
        "kvs put k",
        "kvs put k -",
        "kvs put k -5",
        "kvs put k -- --value",
        "kvs put k v --if-absent --content-type text/plain",
        &format!("kvs put k v --if-uuid {uuid}"),
        "kvs put k @file --json",
        "kvs set k v",
        "kvs rm k",
        "kvs list app --wide",
        "kvs members --wide",
        "kvs import dir --dry-run",
        "kvs import - --if-absent",
        "kvs config check f --set node.name=n2",
        "kvs config show",
        "kvs config show f --set node.name=n2",
        &format!("kvs del k --if-uuid {uuid}"),
        &format!("kvs cas k v --expect-uuid {uuid} --expect-timestamp 5"),
        "kvs cas k v --expect-value old",
        "kvs cas k v --expect-value -1",
        "kvs cas k {} --expect-absent --json",
        "kvs cas k --expect-timestamp 5 --delete",
        &format!("kvs put k v --ttl 15m --uuid {uuid}"),
        "kvs put k v --ttl keep",
        &format!("kvs del k --uuid {uuid}"),
        &format!("kvs cas k v --expect-exists --ttl 90 --uuid {uuid}"),
        "kvs cas k --expect-exists --delete",
        "kvs history k",
        "kvs history k --limit 3 -o json",
        &format!("kvs history k --get {uuid}"),
        &format!("kvs history k --restore {uuid}"),
        "kvs txn -",
        "kvs txn changes.json -o json",
        "kvs scan",
        "kvs scan app/ --values --limit 5",
        "kvs status -o json",
        "kvs members",
        "kvs sync",
        "kvs import dir --prefix p --private",
        "kvs import -",
        "kvs export app",
        "kvs cert ca --dir d --force",
        "kvs cert node n1 --dir d --host h --host 10.0.0.1",
        "kvs cert show f",
        "kvs gossip-key new --file f",
        "kvs config default",
        "kvs config check f",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn contradictions_are_usage_errors() {
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for line in [
        "kvs serve",
        "kvs serve --dev --config f",
        "kvs serve --dev --set novalue",
        "kvs get",
        "kvs get a//b",
        &format!("kvs put k v --if-absent --if-uuid {uuid}"),
        "kvs put k v --if-absnt",
        "kvs put k v --token t",
        "kvs put k v --json --content-type text/plain",
        "kvs import - --dry-run --if-absent",
        "kvs put k v --if-uuid nonsense",
        "kvs put k v --content-type ü",
        "kvs cas k v",
        "kvs cas k v --expect-absent --expect-timestamp 5",
        "kvs cas k v --expect-value a --expect-absent",
        &format!("kvs cas k v --expect-value a --expect-uuid {uuid}"),
        "kvs cas k v --expect-timestamp 9007199254740992",
        "kvs cas k v --expect-value a --delete",
        "kvs cas k --expect-absent --delete",
        "kvs cas k v --expect-absent --json --content-type text/plain",
        "kvs put k v --ttl 0",
        "kvs put k v --ttl 1w",
        "kvs put k v --ttl 36501d",
        "kvs put k v --ttl Keep",
        "kvs put k v --uuid nonsense",
        "kvs del k --ttl 1s",
        "kvs cas k v --expect-exists --expect-absent",
        "kvs cas k v --expect-exists --expect-value a",
        &format!("kvs cas k v --expect-exists --expect-uuid {uuid}"),
        "kvs cas k v --expect-exists --expect-timestamp 5",
        "kvs cas k --expect-exists --delete --ttl 5s",
        "kvs history",
        "kvs history k --limit 0",
        "kvs history k --restore nonsense",
        &format!("kvs history k --get {uuid} --restore {uuid}"),
        &format!("kvs history k --restore {uuid} --limit 1"),
        "kvs superseded --resolve",
        "kvs superseded app --resolve app/k",
        "kvs superseded --resolve k --limit 1",
        "kvs superseded --keep lost",
        "kvs superseded --resolve k --keep mine",
        "kvs superseded --resolve k --keep lost --get lost",
        "kvs superseded --resolve k --get @file",
        &format!("kvs superseded --lost {uuid}"),
        &format!("kvs superseded --resolve k --expect-uuid {uuid}"),
        "kvs txn",
        "kvs scan /",
        "kvs scan --limit 0",
        "kvs nonsense",
    ] {
        assert_eq!(parse(line).map(|_| ()).map_err(|e| e.exit_code()), Err(2), "{line}");
    }
}

#[test]
fn serve_without_config_or_dev_names_both() {
    let text = parse("kvs serve").unwrap_err().to_string();
    assert!(text.contains("--config") && text.contains("--dev"), "{text}");
}

#[test]
fn a_bad_ttl_explains_the_format() {
    let text = parse("kvs put k v --ttl 1w").unwrap_err().to_string();
    for words in ["`1w` is not a duration", "ms, s, m, h or d", "from 1ms to 36500d", "`keep`"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn every_command_and_every_flag_has_help() {
    fn walk(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path}");
        for argument in command.get_arguments() {
            let about = argument.get_help().map(ToString::to_string);
            assert!(about.is_some_and(|text| !text.is_empty()), "{path} {argument}");
        }
        for inner in command.get_subcommands() {
            walk(inner, &path);
        }
    }
    let mut command = Arguments::command();
    command.build();
    for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
        walk(inner, "kvs");
    }
    assert!(command.render_long_help().to_string().contains("Exit status: 0 done"));
    assert_eq!(command.get_version(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_help_shows_no_lock_and_says_who_decides() {
    let mut command = Arguments::command();
    command.build();
    for name in ["cas", "txn", "put"] {
        let found = command.find_subcommand_mut(name).unwrap();
        let help = found.render_long_help().to_string();
        let words = "end all clients of a key to one node";
        let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "{name}: {help}");
        assert!(!help.contains("lock") || flat.contains("a swap is no lock"), "{name}: {help}");
        assert!(!flat.contains("locks/") && !flat.contains("take a"), "{name}: {help}");
    }
    assert!(
        command.render_long_help().to_string().contains("send all clients of a key to one node")
    );
}
