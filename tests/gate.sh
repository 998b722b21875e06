#!/usr/bin/env bash
# The whole gate: what a change must pass. Stops at the first phase that fails.
#
#   tests/gate.sh [--no-install]
#
#   --no-install   install nothing: print what is missing and stop
#
# Takes up to 60 minutes on a fresh machine with two cores, because it compiles RocksDB; later 15.
# Exit status: 0 passed, 1 a phase failed, 2 the machine lacks something; the output says what.
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

# phase NAME ADVICE COMMAND...: runs COMMAND, prints its time; on failure prints ADVICE and exits.
phase() {
    local name=$1 advice=$2 start=$SECONDS status=0
    shift 2
    printf '\n=== %s\n' "$name"
    "$@" || status=$?
    if ((status != 0)); then
        printf '=== %s: FAILED after %d s\n\ngate: %s\n' "$name" "$((SECONDS - start))" "$advice" >&2
        # status 2 of the preparation: the machine lacks something, the code is not wrong
        if [[ $name == prepare ]]; then exit "$status"; fi
        exit 1
    fi
    printf '=== %s: ok, %d s\n' "$name" "$((SECONDS - start))"
    phases+=("$(printf '%5d s  %s' "$((SECONDS - start))" "$name")")
}

# skip NAME REASON: reports a phase that does not run.
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

# Installs below the cache. The build has its own target directory, removed afterwards because no
# later build can use it.
install_cargo_deny() {
    local build="$HOME/.cache/kvs/tools-build" status=0
    printf 'cargo-deny is missing: installing it into %s; that takes some minutes\n' "$tools"
    CARGO_TARGET_DIR="$build" cargo install cargo-deny --version "$deny_version" --locked --quiet \
        --root "$tools" || status=$?
    rm -rf "$build"
    return "$status"
}

check_dependencies() { cargo deny --locked --log-level error check bans licenses sources; }

# Offline: the gate has just fetched the database.
check_advisories() { cargo deny --locked --offline --log-level error check advisories; }

phase prepare "prepare the machine as described above, then run tests/gate.sh again" \
    prepare --gate "$@"
# no later phase may ask for input
exec </dev/null
phase "format" "run: cargo fmt" cargo fmt --check -- --color "$colour"
if command -v shellcheck >/dev/null; then
    phase "scripts" "fix what shellcheck reports above" check_scripts
else
    skip "scripts" "shellcheck is not installed"
fi
phase "mutants" "make the patch named above again; tests/mutants/run.sh --help explains patches" \
    tests/mutants/run.sh --check
printf '\n(a first build takes up to 20 minutes on two cores, mostly for RocksDB, without output)\n'
phase "clippy" "fix what clippy reports above; an exception needs #[expect(..., reason = \"...\")]" \
    cargo clippy --all-targets --locked -- -D warnings
phase "docs" "fix the documentation named above" check_docs
if ! have_cargo_deny && ((prepare_install)); then
    phase "install cargo-deny" "run: cargo install cargo-deny --locked --root $tools" \
        install_cargo_deny
fi
if have_cargo_deny; then
    phase "dependencies" "see .deny.toml: a new licence, source or wildcard is a decision" \
        check_dependencies
    if timeout 120 cargo deny --locked fetch db >/dev/null 2>&1; then
        phase "advisories" "update the crate, or add the advisory to .deny.toml with a reason" \
            check_advisories
    else
        skip "advisories" "the advisory database cannot be reached"
    fi
else
    skip "dependencies" "cargo-deny is not installed, and --no-install was given"
fi
phase "tests" "the failing test is named above; run it alone with: cargo test NAME" \
    cargo test --locked

printf '\ngate: passed in %d s\n' "$SECONDS"
printf '  %s\n' "${phases[@]}"
