#!/usr/bin/env bash
# Runs what takes too long for the gate.
#
#   tests/long.sh sim     simulated clusters on all cores: KVS_SIM_SEEDS seeds (5000), or as many as
#                         KVS_SIM_MINUTES allow, starting at KVS_SIM_FIRST (random); a failing seed
#                         is printed with the story of the key
#   tests/long.sh machine random histories of the store on both engines and a plain model, for
#                         KVS_MACHINE_SECONDS (1800), starting at seed KVS_MACHINE_FIRST (random); a
#                         failing seed is printed with the shortest history that still fails
#   tests/long.sh kill    `kill -9` under load (tests/it/crash/kill_*.rs), each test KVS_TEST_SCALE
#                         (5) times as long as in the gate
#   tests/long.sh faults  the disk fails or is full at each call of a history in turn
#                         (tests/it/crash/disk_faults.rs)
#   tests/long.sh limits  few file descriptors and little memory (tests/it/hostile): a million records
#                         and 300 of the largest values under `ulimit -n 256`, 1,100 idle connections
#                         under 1024; KVS_TEST_SCALE (5) times as many large values in 512 MiB
#   tests/long.sh chaos   faults of links and nodes on real processes (tests/it/chaos), each test
#                         KVS_TEST_SCALE (5) times as long as in the gate, KVS_CHAOS_ROUNDS (10)
#                         times; nodes have their own networks as root or with `unshare -Urn`
#   tests/long.sh members the simulated membership with KVS_SIM_MEMBERS nodes (200) and
#                         KVS_SIM_MEMBERS_SEEDS seeds (1), starting at KVS_SIM_MEMBERS_FIRST (0)
#   tests/long.sh outside
#                         a node behind nginx, in a container and short of descriptors, and the
#                         clients that strangers use (tests/outside/run.sh); builds a release
#   tests/long.sh model   all schedules of the stability machines (tests/model) from each of thirteen
#                         beginnings, to KVS_MODEL_DEPTH (20) actions or KVS_MODEL_STATES (10000000)
#                         distinct states; prints how many there were, and in how many a floor had
#                         moved, a record was collected or a node began anew; takes 1 GB of memory
#   tests/long.sh mutants [OPTION | NAME ...]
#                         plants each bug of tests/mutants and checks that the tests notice it;
#                         tests/mutants/run.sh --help describes the options
#   tests/long.sh fuzz [TARGET ...]
#                         libFuzzer on each target of tests/fuzz (or the named ones), one after the
#                         other, KVS_FUZZ_SECONDS (600) each; needs a nightly Rust and cargo-fuzz
#
# Nothing is retried. Exit status: 0 passed, 1 something failed, 2 wrong usage or a missing tool.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/prepare.sh
. deploy/prepare.sh
build_environment

stop() {
    printf 'long.sh: %s\n' "$*" >&2
    exit 2
}

# Builds the test binary $1 and prints its path.
test_binary() {
    local lines
    # the first call shows the build's output, the second prints the path as JSON
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
    # fail when no test ran, for example after the test was renamed
    grep -q '^test result: ok. 1 passed' "$work/sim"
}

run_machine() {
    KVS_MACHINE_SECONDS=${KVS_MACHINE_SECONDS:-1800} cargo test --locked --lib -- \
        --nocapture plain_maps_agree_on_long_histories | tee "$work/machine"
    # fail when no test ran, for example after the test was renamed
    grep -q '^test result: ok. 1 passed' "$work/machine"
}

# Builds tests/it and prints how many tests start with the path $1. Stops when there is none, or
# when the filter would also select tests elsewhere whose path contains it.
count_tests() {
    local binary names
    [[ -f tests/it/main.rs ]] || stop "tests/it/main.rs is not there"
    binary=$(test_binary it)
    [[ -x $binary ]] || stop "the tests could not be built, see above"
    names=$("$binary" "$1" --list 2>/dev/null | sed -n 's/: test$//p')
    [[ -n $names ]] || stop "no test of tests/it starts with $1"
    if grep -qv "^$1" <<<"$names"; then stop "$1 also selects: $(grep -v "^$1" <<<"$names")"; fi
    printf '%d tests\n' "$(wc -l <<<"$names")"
}

# Runs through cargo, which also builds the kvs binary that these tests start.
run_tests() { KVS_TEST_SCALE=${KVS_TEST_SCALE:-5} cargo test --locked --test it -- "$1" --nocapture; }

run_kill() {
    count_tests crash::kill_
    run_tests crash::kill_
}

run_faults() {
    count_tests crash::disk_faults::
    run_tests crash::disk_faults::
}

run_limits() {
    local name
    for name in descriptors memory; do
        count_tests "hostile::$name::" || return 1
        run_tests "hostile::$name::" || return 1
    done
}

run_chaos() {
    local rounds=${KVS_CHAOS_ROUNDS:-10} round
    [[ $rounds =~ ^[1-9][0-9]*$ ]] ||
        stop "KVS_CHAOS_ROUNDS must be a whole number, not \"$rounds\""
    count_tests chaos::
    for ((round = 1; round <= rounds; round++)); do
        printf 'round %d of %d\n' "$round" "$rounds"
        run_tests chaos:: || return 1
    done
}

run_members() {
    local binary found
    binary=$(test_binary sim)
    [[ -x $binary ]] || stop "the simulation could not be built, see above"
    found=$("$binary" membership:: --list 2>/dev/null | grep -c ': test$' || true)
    ((found > 0)) || stop "no test of tests/sim starts with membership::"
    KVS_SIM_MEMBERS=${KVS_SIM_MEMBERS:-200} "$binary" membership:: --nocapture
}

# fuzz_line NAME LOG FINDINGS: the table line of a run: executions, executions a second, features.
fuzz_line() {
    awk -v target="$1" -v findings="$3" '
        /^stat::number_of_executed_units:/ { runs = $2 }
        /^stat::average_exec_per_sec:/ { rate = $2 }
        / ft: / { for (i = 1; i < NF; i++) if ($i == "ft:") features = $(i + 1) }
        END { printf "%-10s %12d %8d %9d %9d\n", target, runs, rate, features, findings }' "$2"
}

# fuzz_target NAME BINARY: runs one target and appends its line to $work/table.
fuzz_target() {
    local name=$1 binary=$2 seconds=${KVS_FUZZ_SECONDS:-600} dir=$fuzz_dir/$1 found=0 input
    mkdir -p "$dir/corpus" "$dir/seeds" "$dir/found" "tests/fuzz/kept/$name"
    KVS_FUZZ_SEEDS="$dir/seeds" "$binary" >/dev/null 2>&1 || return 1
    printf '%s: %d seconds, log %s\n' "$name" "$seconds" "$dir/log"
    # findings of earlier runs are older than this file
    touch "$work/$name.begun"
    "$binary" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=4096 \
        -print_final_stats=1 -artifact_prefix="$dir/found/" \
        "$dir/corpus" "$dir/seeds" "tests/fuzz/kept/$name" >"$dir/log" 2>&1 || found=1
    rmdir --ignore-fail-on-non-empty "tests/fuzz/kept/$name"
    while IFS= read -r input; do
        printf '%s: FOUND %s\n  KVS_FUZZ_TARGET=%s KVS_FUZZ_INPUT=%s \\\n' \
            "$name" "$input" "$name" "$input"
        printf '    cargo test --locked --test fuzz one_input -- --nocapture\n'
    done < <(find "$dir/found" -type f -newer "$work/$name.begun")
    fuzz_line "$name" "$dir/log" "$found" >>"$work/table"
    if ((found)); then tail -n 20 "$dir/log" >&2; fi
    return "$found"
}

run_fuzz() {
    local name status=0 names=("$@") triple
    export PATH="$HOME/.cache/kvs/tools/bin:$PATH"
    cargo +nightly --version >/dev/null 2>&1 ||
        stop "there is no nightly Rust: rustup toolchain install nightly --component rust-src"
    cargo fuzz --version >/dev/null 2>&1 ||
        stop "there is no cargo-fuzz: cargo install cargo-fuzz --locked --root ~/.cache/kvs/tools"
    [[ ${KVS_FUZZ_SECONDS:-600} =~ ^[1-9][0-9]*$ ]] || stop "KVS_FUZZ_SECONDS must be a whole number"
    fuzz_dir=$CARGO_TARGET_DIR/fuzz
    # without AddressSanitizer, whose flag would reach RocksDB's compiler, which is not clang
    cargo +nightly fuzz build -s none --fuzz-dir tests/fuzz --target-dir "$fuzz_dir" >&2 || return 1
    triple=$(rustc +nightly -vV | sed -n 's/^host: //p')
    ((${#names[@]} > 0)) || mapfile -t names < <(cargo fuzz list --fuzz-dir tests/fuzz)
    for name in "${names[@]}"; do
        [[ -x $fuzz_dir/$triple/release/$name ]] || stop "there is no fuzz target $name"
        fuzz_target "$name" "$fuzz_dir/$triple/release/$name" || status=1
    done
    printf '%-10s %12s %8s %9s %9s\n' target executions exec/s features findings
    cat "$work/table"
    return "$status"
}

run_outside() {
    cargo build --locked --release --bin kvs || return 1
    tests/outside/run.sh "$CARGO_TARGET_DIR/release/kvs"
}

run_model() {
    KVS_MODEL_DEPTH=${KVS_MODEL_DEPTH:-20} KVS_MODEL_STATES=${KVS_MODEL_STATES:-10000000} \
        cargo test --locked --release --manifest-path tests/model/Cargo.toml --lib explore -- \
        --nocapture --test-threads 2
}
run_mutants() { tests/mutants/run.sh "$@"; }

case ${1:-} in
    sim | machine | kill | faults | limits | chaos | members | outside | model | mutants | fuzz)
        begin=$SECONDS
        if "run_$1" "${@:2}"; then
            printf 'long.sh %s: passed in %d s\n' "$1" $((SECONDS - begin))
        else
            printf 'long.sh %s: FAILED after %d s, see above\n' "$1" $((SECONDS - begin)) >&2
            exit 1
        fi
        ;;
    -h | --help) sed -n '2,/^set /p' tests/long.sh | sed '$d; s/^# \{0,1\}//' ;;
    *)
        stop "say what to run: tests/long.sh sim, machine, kill, faults, limits, chaos, members," \
            "outside, model, mutants or fuzz"
        ;;
esac
