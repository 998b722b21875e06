#!/usr/bin/env bash
# What takes too long for the gate.
#
#   tests/long.sh sim     many simulated clusters: KVS_SIM_SEEDS seeds (2000) from KVS_SIM_FIRST (0),
#                         shared among all cores; a seed that fails is printed
#   tests/long.sh kill    the tests of tests/it whose name holds `kill`, each at KVS_TEST_SCALE (5)
#                         times its usual size
#   tests/long.sh chaos   the tests of tests/it whose name holds `chaos`: faults of links and nodes on
#                         real processes, each at KVS_TEST_SCALE (5) times its usual size, and that
#                         KVS_CHAOS_ROUNDS (10) times; as root or where `unshare -Urn` works, each
#                         node has a network of its own
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
    local seeds=${KVS_SIM_SEEDS:-2000} first=${KVS_SIM_FIRST:-0} jobs i from share status=0
    local test=nothing_acknowledged_is_lost_and_all_agree_after_faults binary pids=()
    [[ $seeds =~ ^[1-9][0-9]*$ && $first =~ ^[0-9]+$ ]] ||
        stop "KVS_SIM_SEEDS and KVS_SIM_FIRST take whole numbers, not \"$seeds\" and \"$first\""
    binary=$(test_binary sim)
    [[ -x $binary ]] || stop "the simulation could not be built, see above"
    jobs=$(nproc)
    if ((jobs > seeds)); then jobs=$seeds; fi
    from=$first
    for ((i = 0; i < jobs; i++)); do
        # the remainder goes to the first ones
        share=$((seeds / jobs + (i < seeds % jobs)))
        KVS_SIM_SEEDS=$share KVS_SIM_FIRST=$from \
            "$binary" --exact "$test" --nocapture >"$work/$i" 2>&1 &
        pids+=("$!")
        printf 'seeds %d to %d: process %d\n' "$from" $((from + share - 1)) "$!"
        from=$((from + share))
    done
    for ((i = 0; i < jobs; i++)); do
        wait "${pids[i]}" || status=1
        cat "$work/$i"
        # a test that was renamed must not pass by not running
        grep -q '^test result: ok. 1 passed' "$work/$i" || status=1
    done
    return "$status"
}

# Builds the tests of tests/it and says how many have $1 in their names.
count_tests() {
    local binary found
    [[ -f tests/it/main.rs ]] || stop "tests/it/main.rs is not there"
    binary=$(test_binary it)
    [[ -x $binary ]] || stop "the tests could not be built, see above"
    found=$("$binary" "$1" --list 2>/dev/null | grep -c ': test$' || true)
    ((found > 0)) || stop "no test of tests/it has $1 in its name"
    printf '%d tests\n' "$found"
}

# Through cargo: the tests run the kvs binary, which must be that of this tree.
run_tests() { KVS_TEST_SCALE=${KVS_TEST_SCALE:-5} cargo test --locked --test it -- "$1" --nocapture; }

run_kill() {
    count_tests kill
    run_tests kill
}

run_chaos() {
    local rounds=${KVS_CHAOS_ROUNDS:-10} round
    [[ $rounds =~ ^[1-9][0-9]*$ ]] ||
        stop "KVS_CHAOS_ROUNDS takes a whole number, not \"$rounds\""
    count_tests chaos
    for ((round = 1; round <= rounds; round++)); do
        printf 'round %d of %d\n' "$round" "$rounds"
        run_tests chaos || return 1
    done
}

case ${1:-} in
    sim | kill | chaos)
        begin=$SECONDS
        if "run_$1"; then
            printf 'long.sh %s: passed in %d s\n' "$1" $((SECONDS - begin))
        else
            printf 'long.sh %s: FAILED after %d s, see above\n' "$1" $((SECONDS - begin)) >&2
            exit 1
        fi
        ;;
    -h | --help) sed -n '2,/^set /p' tests/long.sh | sed '$d; s/^# \{0,1\}//' ;;
    *) stop "say what to run: tests/long.sh sim, tests/long.sh kill or tests/long.sh chaos" ;;
esac
