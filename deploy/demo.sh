#!/usr/bin/env bash
# Builds kvs, starts a cluster of three nodes on this machine, and shows what it does.
#
#   deploy/demo.sh [--no-install] [--http-base 8081] [--dir DIR] [--bin PATH] [--down]
#
#   --no-install  install nothing: say what is missing and stop
#   --http-base   first of three HTTP ports; deploy/local.sh --help lists the other ports
#   --dir         directory for keys, logs and data; default: that of deploy/local.sh, so that its
#                 commands work on these nodes without options
#   --bin         use this kvs instead of building one
#   --down        stop the nodes at the end
#
# Writes keys below etc/ and demo/. The first build takes up to 20 minutes on two cores, most of it
# RocksDB; later builds take seconds.
# Exit status: 0 every step showed what it should, 1 a step failed, 2 usage or something is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deadline_s=90
clients=64

dir='' bin='' http_base=8081 down=0 default_dir=0 prepare_options=()
while (($# > 0)); do
    case $1 in
        -h | --help)
            sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        --no-install) prepare_options+=(--no-install) ;;
        --down) down=1 ;;
        --dir | --bin | --http-base)
            [[ -n ${2:-} ]] || {
                printf 'demo.sh: %s needs a value\n' "$1" >&2
                exit 2
            }
            case $1 in
                --dir) dir=$2 ;;
                --bin) bin=$2 ;;
                --http-base) http_base=$2 ;;
            esac
            shift
            ;;
        *)
            printf 'demo.sh: unknown option "%s" (deploy/demo.sh --help)\n' "$1" >&2
            exit 2
            ;;
    esac
    shift
done
[[ $http_base =~ ^[1-9][0-9]{3,4}$ ]] || {
    printf 'demo.sh: --http-base takes a port, not "%s"\n' "$http_base" >&2
    exit 2
}
if [[ -z $dir ]]; then default_dir=1; fi
dir=$(realpath -m "${dir:-"${XDG_STATE_HOME:-${HOME:?must be set, or give --dir}/.local/state}/kvs-local"}")

started=0
work=$(mktemp -d)
at_exit() {
    local status=$?
    rm -rf "$work"
    if ((started && down)); then cluster down || true; fi
    exit "$status"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }
# Shows a command before what it does.
show() { printf '   $ %s\n' "$*"; }
fail() {
    printf '\ndemo.sh: this step failed: %s\n' "$*" >&2
    printf 'demo.sh: the nodes logged to %s/n*/log\n' "$dir" >&2
    exit 1
}

cluster() { "$root/deploy/local.sh" "$@" --dir "$dir"; }
url() { printf 'http://127.0.0.1:%d' "$((http_base + $1 - 1))"; }
# at NODE COMMAND...: runs a client command against a node.
at() {
    local node=$1
    shift
    KVS_URL=$(url "$node") "$bin" "$@"
}

wait_for() {
    local end=$((SECONDS + deadline_s))
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# Prints the field $2 of node $1's report, not of one of its members.
cluster_field() {
    curl -fs -m 5 "$(url "$1")/cluster" | tr -d '\n' |
        sed -E 's/"members" *: *\[[^]]*\]//; s/"node" *: *\{[^}]*\}//' |
        sed -nE "s/.*\"$2\" *: *\"?([0-9a-z]+).*/\1/p"
}
fingerprints_agree() {
    local one
    one=$(cluster_field 1 fingerprint)
    [[ -n $one && $one == "$(cluster_field 2 fingerprint)" ]] &&
        [[ $one == "$(cluster_field 3 fingerprint)" ]]
}
has_value() { [[ $(curl -fs -m 2 "$(url "$1")/kv/$2" 2>/dev/null) == "$3" ]]; }
sees_one_down() { at "$1" members -o json | grep -qE '"state" *: *"down"'; }

# metric NODE NAME LABEL: prints the sum of a metric over all series with that label.
metric() {
    curl -fs -m 5 "$(url "$1")/metrics" |
        awk -v name="$2" -v label="$3" '
            index($0, name "{") == 1 && index($0, label) { sum += $NF }
            END { printf "%d", sum }'
}
session_bytes() { metric "$1" kvs_peer_bytes_total 'stream="session"'; }
pushed_records() { metric "$1" kvs_push_records_total 'direction="received"'; }

show_fingerprints() {
    local i fingerprint
    for i in 1 2 3; do
        fingerprint=$(cluster_field "$i" fingerprint)
        say "node $i: $(cluster_field "$i" keys) keys, fingerprint ${fingerprint:0:24}..."
    done
}

# Prints the seconds since $1 (in milliseconds), as in 1.2.
since() { awk -v ms=$(($(now_ms) - $1)) 'BEGIN { printf "%.1f", ms / 1000 }'; }
now_ms() { date +%s%3N; }

# Prints a line now and then, so that nobody takes a silent compiler for a dead one.
heartbeat() {
    local begin=$SECONDS
    # redirected, so that the last sleep does not hold a pipe open
    while sleep 30 >/dev/null 2>&1; do
        printf '   ... still building, %d min %02d s so far\n' \
            $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60))
    done
}

build() {
    local beat status=0
    step "Building kvs (release)"
    say "The first build takes up to 20 minutes on two cores, most of it RocksDB."
    heartbeat &
    beat=$!
    (cd "$root" && cargo build --release --locked --bin kvs) || status=$?
    kill "$beat" 2>/dev/null || true
    wait "$beat" 2>/dev/null || true
    ((status == 0)) || {
        printf 'demo.sh: the build failed; see the messages above\n' >&2
        exit 1
    }
    bin="$CARGO_TARGET_DIR/release/kvs"
}

start_cluster() {
    step "Starting three nodes on this machine"
    if [[ -f $dir/cluster ]]; then say "$dir already holds a cluster: using it."; fi
    show "deploy/local.sh up"
    if ! cluster up --nodes 3 --http-base "$http_base" --bin "$bin"; then
        printf '\ndemo.sh: the nodes did not start; see above. To use other ports and another\n' >&2
        printf 'directory, run: deploy/demo.sh --http-base 9081 --dir %s-9081\n' "$dir" >&2
        exit 1
    fi
    started=1
}

import_step() {
    local begin before
    step "1. A directory becomes keys, and every node gets them all"
    show "kvs import /etc --prefix etc        (asking node 2)"
    begin=$(now_ms)
    before=$(pushed_records 3)
    at 2 import /etc --prefix etc >"$work/import" 2>"$work/skipped" || {
        tail -n 5 "$work/skipped" >&2
        fail "the import failed"
    }
    wait_for fingerprints_agree || fail "the fingerprints differ after $deadline_s s"
    sed 's/^/   /' "$work/import"
    say "(Skipped: links that lead out, devices, and files that not everybody may read, without --private.)"
    (($(cluster_field 1 keys) > 0)) || fail "there are no keys"
    say "$(since "$begin") s after the import began, all three nodes show one fingerprint:"
    show_fingerprints
    say "The import went to node 2 only. A fingerprint is a digest of everything a node holds, so equal"
    say "fingerprints mean equal content. Node 2 pushed each record as it stored it: node 3 received"
    say "$(($(pushed_records 3) - before)) of them."
}

swap_step() {
    local uuid won lost
    step "2. $clients clients of one node swap one value at once: one wins"
    at 1 put demo/stage green >/dev/null || fail "the value could not be written"
    uuid=$(curl -fsI "$(url 1)/kv/demo/stage" | tr -d '\r' | sed -nE 's/^[Ee][Tt]ag: "(.*)"$/\1/p')
    [[ -n $uuid ]] || fail "node 1 gave no ETag for demo/stage"
    say "demo/stage is \"green\", in version $uuid."
    show "POST /cas/demo/stage {\"expected\":{\"uuid\":\"...\"},\"data\":\"client N\"}"
    seq "$clients" | xargs -P "$clients" -I{} curl -s -m 30 -o "$work/swap-{}" -w '%{http_code}\n' \
        -X POST "$(url 1)/cas/demo/stage" \
        -d "{\"expected\":{\"uuid\":\"$uuid\"},\"data\":\"client {}\"}" >"$work/swaps" || true
    won=$(grep -c '^200$' "$work/swaps" || true)
    lost=$(grep -c '^412$' "$work/swaps" || true)
    say "$won answered 200, $lost answered 412; demo/stage is now $(at 1 get demo/stage)."
    ((won == 1 && lost == clients - 1)) ||
        fail "expected one 200 and $((clients - 1)) times 412, got (how often, which status): \
$(sort "$work/swaps" | uniq -c | tr -s ' \n' ' ')"
    say "All asked node 1 and expected the same version, so only one may succeed. Another node decides"
    say "by itself: send all clients of a key to one node. A refusal (412) carries the current"
    say "value, so that a client can try again without another read:"
    grep -l '"swapped" *: *false' "$work"/swap-* | head -n 1 | xargs cat |
        sed -E 's/.*("swapped")/     {..., \1/; s/"origin":.*("data")/..., \1/'
    printf '\n'
}

pause_step() {
    local run=$1 i begin before bytes
    step "3. A node is cut off; the others go on; it catches up when it returns"
    before=$(session_bytes 3)
    show "deploy/local.sh pause 3"
    cluster pause 3 >/dev/null
    begin=$(now_ms)
    show "kvs put demo/while-away $run        (asking node 1)"
    at 1 put demo/while-away "$run" >/dev/null || fail "node 1 refuses writes while node 3 is away"
    wait_for has_value 2 demo/while-away "$run" || fail "node 2 did not get the write"
    say "Written on node 1, read on node 2; neither waited for node 3."
    if has_value 3 demo/while-away "$run"; then fail "node 3 answers although it is paused"; fi
    say "Node 3 does not answer. Waiting until gossip notices ..."
    for i in 1 2; do
        wait_for sees_one_down "$i" || fail "node $i does not report node 3 as down within $deadline_s s"
    done
    say "After $(since "$begin") s nodes 1 and 2 report node 3 as down, and accept more writes:"
    show "kvs import deploy --prefix demo/deploy; kvs del demo/stage        (asking node 2)"
    at 2 import "$root/deploy" --prefix demo/deploy >/dev/null || fail "node 2 refuses writes"
    at 2 del demo/stage >/dev/null || fail "node 2 refuses a delete"
    at 2 put demo/still-away "$run" >/dev/null || fail "node 2 refuses writes"
    show "deploy/local.sh resume 3"
    cluster resume 3 >/dev/null
    begin=$(now_ms)
    wait_for has_value 3 demo/still-away "$run" || fail "node 3 did not catch up within $deadline_s s"
    wait_for has_value 3 demo/while-away "$run" || fail "node 3 did not catch up within $deadline_s s"
    wait_for fingerprints_agree || fail "the fingerprints differ after $deadline_s s"
    say "Node 3 caught up within $(since "$begin") s of its return, deletion included:"
    show_fingerprints
    bytes=$(($(session_bytes 3) - before))
    say "It compared digests with nodes 1 and 2 and fetched what it lacked: $bytes bytes, both"
    say "directions together. All values in the store have $(values_bytes 1) bytes."
}

# Prints the total size of all values on node $1.
values_bytes() {
    at "$1" export | sed -nE 's/.*"content_type":"[^"]*","size":([0-9]+).*/\1/p' |
        awk '{ sum += $1 } END { printf "%d", sum }'
}

kill_step() {
    local run=$1 i
    step "4. An acknowledged write survives kill -9"
    show "kvs put demo/durable $run        (asking node 2), and at once:"
    show "deploy/local.sh kill 2; deploy/local.sh kill 1; deploy/local.sh kill 3"
    at 2 put demo/durable "$run" >/dev/null || fail "the value could not be written"
    for i in 2 1 3; do cluster kill "$i" >/dev/null; done
    show "deploy/local.sh start 2        (alone: no other node can give it the value)"
    cluster start 2 >/dev/null || fail "node 2 did not start again"
    has_value 2 demo/durable "$run" || fail "the acknowledged write is gone"
    show "kvs get demo/durable"
    say "$(at 2 get demo/durable)"
    say "It is there: a node acknowledges a write only when it is on the disk."
    show "deploy/local.sh start 1; deploy/local.sh start 3"
    for i in 1 3; do cluster start "$i" >/dev/null || fail "node $i did not start again"; done
    wait_for fingerprints_agree || fail "the fingerprints differ after $deadline_s s"
    say "All three agree again:"
    show_fingerprints
}

farewell() {
    local option=" --dir $dir"
    if ((default_dir)); then option=; fi
    step "Every step showed what it should"
    if ((down)); then return; fi
    say "Three nodes are running: $(url 1) $(url 2) $(url 3)"
    say ""
    say "Try:"
    say "  curl $(url 3)/kv/etc/hostname"
    say "  curl -X PUT -d hello $(url 1)/kv/greeting && curl $(url 2)/kv/greeting"
    say "  KVS_URL=$(url 1) $bin status"
    say "Go on with \"A tour of eight commands\" in README.md."
    say ""
    say "Stop:              deploy/local.sh down$option"
    say "Stop and delete:   deploy/local.sh wipe$option"
}

main() {
    local run
    if [[ -n $bin ]]; then
        [[ -x $bin ]] || {
            printf 'demo.sh: %s is not executable; name the kvs binary with --bin PATH\n' "$bin" >&2
            exit 2
        }
        bin=$(realpath "$bin")
    else
        step "Preparing this machine"
        # shellcheck source=deploy/prepare.sh
        . "$root/deploy/prepare.sh"
        prepare "${prepare_options[@]}"
        build
    fi
    start_cluster
    # unique to this run, so that values of an earlier run cannot make a step pass
    run="run-$(date +%s)-$$"
    import_step
    swap_step
    pause_step "$run"
    kill_step "$run"
    farewell
}

main
