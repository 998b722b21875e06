#!/usr/bin/env bash
# The whole gate: what a change must pass. Stops at the first phase that fails.
#
#   tests/gate.sh [--no-install]
#
#   --no-install   install nothing: say what is missing and stop
#
# Takes up to 60 minutes on a fresh machine with two cores (RocksDB is compiled once), 15 later.
# Exit status: 0 passed, 1 a phase failed, 2 the machine lacks something (and what to do about it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    -h | --help)
        sed -n '2,/^set /p' "tests/gate.sh" | sed '$d; s/^# \{0,1\}//'
        exit 0
        ;;
esac

# shellcheck source=deploy/prepare.sh
. deploy/prepare.sh
export CARGO_TERM_PROGRESS_WHEN=never
colour=auto
if [[ ! -t 1 ]]; then
    colour=never
    export CARGO_TERM_COLOR=never
fi

deny_version=0.20.2
tools="$HOME/.cache/kvs/tools"
phases=()

# phase NAME WHAT-TO-DO COMMAND...: runs it, prints how long it took, stops the gate when it fails.
phase() {
    local name=$1 advice=$2 start=$SECONDS status=0
    shift 2
    printf '\n=== %s\n' "$name"
    "$@" || status=$?
    if ((status != 0)); then
        printf '=== %s: FAILED after %d s\n\ngate: %s\n' "$name" "$((SECONDS - start))" "$advice" >&2
        # 2 from the preparation means that the machine lacks something, not that the code is wrong
        if [[ $name == prepare ]]; then exit "$status"; fi
        exit 1
    fi
    printf '=== %s: ok, %d s\n' "$name" "$((SECONDS - start))"
    phases+=("$(printf '%5d s  %s' "$((SECONDS - start))" "$name")")
}

# Says aloud that something was not checked.
skip() {
    printf '\n=== %s: SKIPPED, %s\n' "$1" "$2"
    phases+=("$(printf 'skipped  %s (%s)' "$1" "$2")")
}

scripts() {
    git ls-files -z -- '*.sh' '.ci/run' 2>/dev/null || find deploy tests -name '*.sh' -print0
}

check_scripts() { scripts | xargs -0 -r shellcheck -x; }

check_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib --locked; }

have_cargo_deny() {
    PATH="$PATH:$tools/bin"
    command -v cargo-deny >/dev/null
}

# Below the cache, with a target directory of its own that goes afterwards: nothing of it is used
# again.
install_cargo_deny() {
    local build="$HOME/.cache/kvs/tools-build" status=0
    printf 'cargo-deny is missing: installing it into %s; that takes some minutes\n' "$tools"
    CARGO_TARGET_DIR="$build" cargo install cargo-deny --version "$deny_version" --locked --quiet \
        --root "$tools" || status=$?
    rm -rf "$build"
    return "$status"
}

check_dependencies() { cargo deny --locked --log-level error check bans licenses sources; }

# Offline, because the database was fetched just before.
check_advisories() { cargo deny --locked --offline --log-level error check advisories; }

phase prepare "make the machine ready as said above, then run tests/gate.sh again" \
    prepare --gate "$@"
# from here on nobody is asked anything
exec </dev/null
phase "format" "run: cargo fmt" cargo fmt --check -- --color "$colour"
if command -v shellcheck >/dev/null; then
    phase "scripts" "mend what shellcheck names above" check_scripts
else
    skip "scripts" "shellcheck is not installed"
fi
phase "mutants" "make the patch that is named above anew; tests/mutants/run.sh tells how they work" \
    tests/mutants/run.sh --check
printf '\n(a first build takes up to 20 minutes on two cores, most of it RocksDB, without a word)\n'
phase "clippy" "mend what clippy names above; an exception needs #[expect(..., reason = \"...\")]" \
    cargo clippy --all-targets --locked -- -D warnings
phase "docs" "mend the documentation named above" check_docs
if ! have_cargo_deny && ((prepare_install)); then
    phase "install cargo-deny" "run: cargo install cargo-deny --locked --root $tools" \
        install_cargo_deny
fi
if have_cargo_deny; then
    phase "dependencies" "see .deny.toml: a new licence, source or wildcard is a decision" \
        check_dependencies
    if timeout 120 cargo deny --locked fetch db >/dev/null 2>&1; then
        phase "advisories" "update the crate, or answer the advisory in .deny.toml with a reason" \
            check_advisories
    else
        skip "advisories" "their database cannot be reached"
    fi
else
    skip "dependencies" "cargo-deny is not installed, and --no-install was given"
fi
phase "tests" "a failing test names itself above; run it alone with: cargo test NAME" \
    cargo test --locked

printf '\ngate: passed in %d s\n' "$SECONDS"
printf '  %s\n' "${phases[@]}"
