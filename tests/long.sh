#!/usr/bin/env bash
# What takes too long for the gate.
#
#   tests/long.sh sim     many simulated clusters on all cores: KVS_SIM_SEEDS seeds (5000), or as many
#                         as KVS_SIM_MINUTES allow, from KVS_SIM_FIRST (drawn anew each time); a seed
#                         that fails is printed, with what happened in it
#   tests/long.sh kill    the tests of tests/it whose name holds `kill`, each at KVS_TEST_SCALE (5)
#                         times its usual size
#   tests/long.sh members the simulated membership with KVS_SIM_MEMBERS nodes (200), with
#                         KVS_SIM_MEMBERS_SEEDS seeds (1) from KVS_SIM_MEMBERS_FIRST (0)
#   tests/long.sh mutants plants each bug of tests/mutants and demands that the tests notice it
#
# Nothing is tried twice. Exit status: 0 passed, 1 something failed, 2 usage or something is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/prepare.sh
. deploy/prepare.sh
build_environment

stop() {
    printf 'long.sh: %s\n' "$*" >&2
    exit 2
}

# The path of the built test binary $1.
test_binary() {
    local lines
    # built first for all to see, asked for its name then
    cargo test --locked --no-run --test "$1" >&2 || return 1
    lines=$(cargo test --locked --no-run --test "$1" --message-format=json 2>/dev/null) || return 1
    sed -nE "s|.*\"name\":\"$1\".*\"executable\":\"([^\"]+)\".*|\1|p" <<<"$lines" | tail -n 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run_sim() {
    local test=fresh_seeds_violate_no_promise binary
    binary=$(test_binary sim)
    [[ -x $binary ]] || stop "the simulation could not be built, see above"
    KVS_SIM_SEEDS=${KVS_SIM_SEEDS:-5000} "$binary" --exact "$test" --nocapture | tee "$work/sim"
    # a test that was renamed must not pass by not running
    grep -q '^test result: ok. 1 passed' "$work/sim"
}

run_kill() {
    local binary found
    [[ -f tests/it/main.rs ]] || stop "tests/it/main.rs is not there"
    binary=$(test_binary it)
    [[ -x $binary ]] || stop "the tests could not be built, see above"
    found=$("$binary" kill --list 2>/dev/null | grep -c ': test$' || true)
    ((found > 0)) || stop "no test of tests/it has kill in its name"
    printf '%d tests\n' "$found"
    # through cargo: the tests run the kvs binary, which must be that of this tree
    KVS_TEST_SCALE=${KVS_TEST_SCALE:-5} cargo test --locked --test it -- kill --nocapture
}

run_members() {
    local binary found
    binary=$(test_binary sim)
    [[ -x $binary ]] || stop "the simulation could not be built, see above"
    found=$("$binary" membership:: --list 2>/dev/null | grep -c ': test$' || true)
    ((found > 0)) || stop "no test of tests/sim is about the membership"
    KVS_SIM_MEMBERS=${KVS_SIM_MEMBERS:-200} "$binary" membership:: --nocapture
}

run_mutants() { tests/mutants/run.sh; }

case ${1:-} in
    sim | kill | members | mutants)
        begin=$SECONDS
        if "run_$1"; then
            printf 'long.sh %s: passed in %d s\n' "$1" $((SECONDS - begin))
        else
            printf 'long.sh %s: FAILED after %d s, see above\n' "$1" $((SECONDS - begin)) >&2
            exit 1
        fi
        ;;
    -h | --help) sed -n '2,/^set /p' tests/long.sh | sed '$d; s/^# \{0,1\}//' ;;
    *) stop "say what to run: tests/long.sh sim, kill, members or mutants" ;;
esac
