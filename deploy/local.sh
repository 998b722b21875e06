#!/usr/bin/env bash
# Runs a kvs cluster on this machine, to try it, develop it and test it.
#
#   deploy/local.sh up [--nodes 3] [--dir DIR] [--http-base 8081] [--bin PATH]
#   deploy/local.sh status | down | wipe | pause I | resume I | kill I | start I   [--dir DIR]
#
#   up        make missing keys and certificates, start the nodes that do not run, and wait until
#             all are ready and see each other
#   status    show each node, and what `kvs status` says
#   down      stop all nodes in order; their data stays
#   wipe      stop all nodes and delete their data, keys and logs
#   pause I   freeze node I (SIGSTOP)
#   resume I  let node I go on (SIGCONT)
#   kill I    kill node I at once (SIGKILL)
#   start I   start node I again
#
# Node I serves HTTP on port http-base + I - 1. Gossip and peers use two UDP ports per node, from
# http-base + 1000 on. Everything listens on 127.0.0.1 only.
# DIR defaults to $XDG_STATE_HOME/kvs-local (~/.local/state/kvs-local). --bin defaults to the release
# build, else to the kvs on PATH.
# The nodes take nothing from the caller's environment: KVS_* variables are for the caller's own kvs.
# Exit status: 0 done, 1 failed, 2 usage.
set -euo pipefail

# settings of the caller, such as KVS_HTTP__LISTEN, would reach every node
unset "${!KVS_@}"

ready_deadline_s=60
stop_deadline_s=20
nodes_max=50

dir='' bin='' nodes='' http_base=''

say() { printf '%s\n' "$*"; }
fail() {
    printf 'local.sh: %s\n' "$*" >&2
    exit 1
}
usage() {
    printf 'local.sh: %s (deploy/local.sh --help)\n' "$*" >&2
    exit 2
}

node_dir() { printf '%s/n%d' "$dir" "$1"; }
node_url() { printf 'http://127.0.0.1:%d' "$((http_base + $1 - 1))"; }
gossip_port() { printf '%d' "$((http_base + 1000 + 2 * ($1 - 1)))"; }
peer_port() { printf '%d' "$((http_base + 1000 + 2 * ($1 - 1) + 1))"; }

# --- the cluster in DIR -----------------------------------------------------------------------

# Prints what `up` was given as $1; nothing where there is no cluster yet.
remembered() { sed -n "s/^$1=//p" "$dir/cluster" 2>/dev/null | head -n 1 || true; }

remember() {
    printf 'nodes=%s\nhttp_base=%s\nbin=%s\n' "$nodes" "$http_base" "$bin" >"$dir/cluster.new"
    mv "$dir/cluster.new" "$dir/cluster"
}

load_cluster() {
    [[ -f $dir/cluster ]] ||
        fail "$dir holds no cluster; start one with deploy/local.sh up, or name another with --dir"
    nodes=$(remembered nodes)
    http_base=$(remembered http_base)
    [[ -n $bin ]] || bin=$(remembered bin)
}

find_bin() {
    local built="${CARGO_TARGET_DIR:-${HOME:-}/.cache/kvs/target}/release/kvs"
    if [[ -z $bin ]]; then bin=$(remembered bin); fi
    if [[ -z $bin && -x $built ]]; then bin=$built; fi
    if [[ -z $bin ]]; then bin=$(command -v kvs || true); fi
    [[ -n $bin ]] || fail "found no kvs binary; build it (deploy/demo.sh does) or name one with --bin PATH"
    [[ -f $bin && -x $bin ]] || fail "$bin is not executable; name the kvs binary with --bin PATH"
    bin=$(realpath "$bin")
}

# --- processes ----------------------------------------------------------------------------------

# Prints the pid of node $1 if it runs. Checks the command line, because the system may have given the
# pid to another process, which must not be signalled.
node_pid() {
    local pid
    pid=$(cat "$(node_dir "$1")/pid" 2>/dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null |
        grep -Fxq -- "$(node_dir "$1")/kvs.toml" || return 1
    printf '%s' "$pid"
}

# Prints running, paused or stopped.
node_state() {
    local pid
    pid=$(node_pid "$1") || {
        printf stopped
        return
    }
    if grep -q '^State:[[:space:]]*T' "/proc/$pid/status" 2>/dev/null; then
        printf paused
    else
        printf running
    fi
}

# wait_for SECONDS COMMAND...: repeats a command until it succeeds; fails after SECONDS.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# port_taken tcp|udp PORT: succeeds if a process listens on the port.
port_taken() {
    local hex tables=("/proc/net/$1")
    hex=$(printf ':%04X' "$2")
    if [[ -r /proc/net/${1}6 ]]; then tables+=("/proc/net/${1}6"); fi
    # 0A is the state of a listening TCP socket
    awk -v port="$hex" -v proto="$1" '
        FNR > 1 && substr($2, length($2) - 4) == port && (proto == "udp" || $4 == "0A") { found = 1 }
        END { exit !found }' "${tables[@]}"
}

check_ports() {
    local spec
    for spec in "tcp $((http_base + $1 - 1))" "udp $(gossip_port "$1")" "udp $(peer_port "$1")"; do
        # shellcheck disable=SC2086 # two words on purpose
        if port_taken $spec; then
            fail "node $1 needs port ${spec#* } (${spec% *}), which is in use; stop the process that uses \
it (perhaps another cluster: deploy/local.sh status --dir DIR), or choose other ports with --http-base"
        fi
    done
}

show_log() {
    printf -- '--- the last lines of %s:\n' "$(node_dir "$1")/log" >&2
    tail -n 15 "$(node_dir "$1")/log" >&2 || true
    printf -- '---\n' >&2
}

# --- files of a node ----------------------------------------------------------------------------

# make_file FILE COMMAND...: runs kvs COMMAND to make FILE, unless it exists.
make_file() {
    local file=$1
    shift
    if [[ -f $file ]]; then return; fi
    "$bin" "$@" >/dev/null || fail "this command failed: $bin $*"
}

make_secrets() {
    local i secrets=$dir/secrets
    mkdir -p "$secrets"
    make_file "$secrets/ca.pem" cert ca --dir "$secrets"
    make_file "$secrets/gossip.key" gossip-key new --file "$secrets/gossip.key"
    for ((i = 1; i <= nodes; i++)); do
        make_file "$secrets/n$i.pem" cert node "n$i" --dir "$secrets"
    done
}

write_config() {
    local i=$1 j seeds=
    for ((j = 1; j <= nodes; j++)); do
        ((j == i)) || seeds+="${seeds:+, }\"127.0.0.1:$(gossip_port "$j")\""
    done
    mkdir -p "$(node_dir "$i")"
    cat >"$(node_dir "$i")/kvs.toml" <<TOML
# Node $i of the cluster in $dir, written by deploy/local.sh up.

[node]
name = "n$i"
data_dir = '$(node_dir "$i")/data'

[http]
listen = "127.0.0.1:$((http_base + i - 1))"

[gossip]
listen = "127.0.0.1:$(gossip_port "$i")"
# All other nodes, so that any of them, the first included, finds back after a restart.
seeds = [$seeds]
key_file = '$dir/secrets/gossip.key'

[peer]
listen = "127.0.0.1:$(peer_port "$i")"
ca = '$dir/secrets/ca.pem'
cert = '$dir/secrets/n$i.pem'
key = '$dir/secrets/n$i-key.pem'

[sync]
# How long an empty node waits for a peer with data before it serves. In a fresh cluster all nodes are
# empty, and on one machine they answer at once, so less than the usual 10 s is enough.
bootstrap_wait = "2s"
TOML
}

# --- commands -----------------------------------------------------------------------------------

spawn_node() {
    local home pid tries
    home=$(node_dir "$1")
    rm -f "$home/ready"
    # setsid: a Ctrl-C in this terminal must not reach the node; fd 9 is this script's lock
    setsid "$bin" serve --config "$home/kvs.toml" </dev/null >"$home/ready" 2>>"$home/log" 9>&- &
    pid=$!
    printf '%s\n' "$pid" >"$home/pid"
    # until exec, the new process shows this script's command line, so node_pid does not find it
    for ((tries = 0; tries < 100; tries++)); do
        if node_pid "$1" >/dev/null || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.02
    done
}

is_ready() {
    # a node that died will never be ready: stop waiting
    node_pid "$1" >/dev/null || return 0
    grep -q '^ready ' "$(node_dir "$1")/ready" 2>/dev/null &&
        curl -fs -m 2 -o /dev/null "$(node_url "$1")/health/ready"
}

wait_ready() {
    if ! wait_for "$ready_deadline_s" is_ready "$1"; then
        show_log "$1"
        fail "node $1 did not get ready within $ready_deadline_s s; see its log above"
    fi
    if ! node_pid "$1" >/dev/null; then
        show_log "$1"
        fail "node $1 exited while it started; see its log above"
    fi
}

# Prints how many members node $1 sees as alive, itself included.
members_alive() {
    KVS_URL=$(node_url "$1") timeout 5 "$bin" members -o json 2>/dev/null |
        grep -oE '"state" *: *"alive"' | wc -l
}

running_nodes() {
    local i
    for ((i = 1; i <= nodes; i++)); do
        if [[ $(node_state "$i") == running ]]; then echo "$i"; fi
    done
}

see_each_other() {
    local i running=()
    mapfile -t running < <(running_nodes)
    for i in "${running[@]}"; do
        (($(members_alive "$i") >= ${#running[@]})) || return 1
    done
}

wait_members() {
    local i
    wait_for "$ready_deadline_s" see_each_other && return
    for i in $(running_nodes); do
        printf 'node %d sees %d alive\n' "$i" "$(members_alive "$i")" >&2
        show_log "$i"
    done
    fail "the running nodes do not all see each other after $ready_deadline_s s; see their logs above"
}

# Continues with the cluster in DIR, if there is one. It keeps its number of nodes; its ports may change
# while all nodes are down.
settle_cluster() {
    if [[ -f $dir/cluster ]]; then
        local given=$http_base i
        http_base=$(remembered http_base)
        [[ -z $nodes || $nodes == "$(remembered nodes)" ]] ||
            fail "$dir holds a cluster of $(remembered nodes) nodes; wipe it, or choose another --dir"
        nodes=$(remembered nodes)
        if [[ -n $given && $given != "$http_base" ]]; then
            for ((i = 1; i <= nodes; i++)); do
                [[ $(node_state "$i") == stopped ]] ||
                    fail "the cluster in $dir runs on ports from $http_base; stop it first \
(deploy/local.sh down), or choose another --dir"
            done
            http_base=$given
        fi
    fi
    nodes=${nodes:-3} http_base=${http_base:-8081}
}

cmd_up() {
    local i started=()
    settle_cluster
    find_bin
    for ((i = 1; i <= nodes; i++)); do
        case $(node_state "$i") in
            stopped) started+=("$i") ;;
            paused) kill -CONT "$(node_pid "$i")" ;;
        esac
    done
    for i in "${started[@]}"; do check_ports "$i"; done
    remember
    make_secrets
    for i in "${started[@]}"; do
        write_config "$i"
        spawn_node "$i"
    done
    for ((i = 1; i <= nodes; i++)); do wait_ready "$i"; done
    wait_members
    if ((nodes == 1)); then say "1 node is ready:"; else say "$nodes nodes are ready:"; fi
    for ((i = 1; i <= nodes; i++)); do say "  n$i  $(node_url "$i")"; done
}

cmd_status() {
    local i asked=
    printf '%-5s %-8s %-8s %s\n' node state pid url
    for ((i = 1; i <= nodes; i++)); do
        printf '%-5s %-8s %-8s %s\n' "n$i" "$(node_state "$i")" "$(node_pid "$i" || echo -)" \
            "$(node_url "$i")"
        if [[ -z $asked && $(node_state "$i") == running ]]; then asked=$i; fi
    done
    if [[ -z $asked ]]; then return; fi
    printf '\nkvs status of n%d:\n' "$asked"
    KVS_URL=$(node_url "$asked") timeout 15 "$bin" status || say "n$asked did not answer"
}

is_stopped() { ! node_pid "$1" >/dev/null; }

signal_node() {
    local pid
    pid=$(node_pid "$2") || return 0
    kill "-$1" "$pid" 2>/dev/null || true
}

cmd_down() {
    local i
    for ((i = 1; i <= nodes; i++)); do
        signal_node TERM "$i"
        # a paused process receives the signal only when it goes on
        signal_node CONT "$i"
    done
    for ((i = 1; i <= nodes; i++)); do
        if ! wait_for "$stop_deadline_s" is_stopped "$i"; then
            printf 'local.sh: node %d did not stop within %d s; killing it\n' "$i" "$stop_deadline_s" >&2
            show_log "$i"
            signal_node KILL "$i"
            wait_for 5 is_stopped "$i" || fail "node $i does not die"
        fi
        rm -f "$(node_dir "$i")/pid"
    done
    say "stopped all $nodes nodes; their data stays in $dir"
}

cmd_wipe() {
    local i
    cmd_down >/dev/null
    for ((i = 1; i <= nodes; i++)); do rm -rf "$(node_dir "$i")"; done
    rm -rf "$dir/secrets"
    rm -f "$dir/cluster"
    leave_nothing
    [[ ! -d $dir ]] || say "$dir holds other files, which stay"
    say "wiped the cluster in $dir"
}

# Removes DIR if it holds no cluster and no other files.
leave_nothing() {
    if [[ -f $dir/cluster ]]; then return; fi
    rm -f "$dir/lock"
    rmdir "$dir" 2>/dev/null || true
}

is_paused() { [[ $(node_state "$1") == paused ]]; }

cmd_pause() {
    local pid
    pid=$(node_pid "$1") || fail "node $1 does not run; start it: deploy/local.sh start $1"
    kill -STOP "$pid"
    wait_for 5 is_paused "$1" || fail "node $1 does not pause"
    say "node $1 is paused; the others notice within seconds"
}

cmd_resume() {
    local pid
    pid=$(node_pid "$1") || fail "node $1 does not run; start it: deploy/local.sh start $1"
    kill -CONT "$pid"
    say "node $1 goes on"
}

cmd_kill() {
    local pid
    pid=$(node_pid "$1") || fail "node $1 does not run; start it: deploy/local.sh start $1"
    kill -KILL "$pid"
    wait_for 5 is_stopped "$1" || fail "node $1 does not die"
    say "node $1 is killed; the others notice within seconds"
}

cmd_start() {
    find_bin
    case $(node_state "$1") in
        running) ;;
        paused) fail "node $1 is paused; run: deploy/local.sh resume $1" ;;
        *)
            check_ports "$1"
            [[ -f $(node_dir "$1")/kvs.toml ]] || fail "node $1 was never started; run: deploy/local.sh up"
            spawn_node "$1"
            ;;
    esac
    wait_ready "$1"
    wait_members
    say "node $1 is ready: $(node_url "$1")"
}

# --- arguments ----------------------------------------------------------------------------------

whole_number() { [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || usage "$1 takes a whole number, not \`$2\`"; }

main() {
    local command=${1:-} index=
    case $command in
        -h | --help)
            sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        up | status | down | wipe | pause | resume | kill | start) shift ;;
        '') usage "which command? up, status, down, wipe, pause, resume, kill or start" ;;
        *) usage "unknown command \`$command\`" ;;
    esac
    while (($# > 0)); do
        case $1 in
            --dir | --bin | --nodes | --http-base)
                [[ -n ${2:-} ]] || usage "$1 needs a value"
                case $1 in
                    --dir) dir=$2 ;;
                    --bin) bin=$2 ;;
                    --nodes) nodes=$2 ;;
                    --http-base) http_base=$2 ;;
                esac
                shift 2
                ;;
            -*) usage "unknown option \`$1\`" ;;
            *)
                [[ -z $index ]] || usage "$command takes one node; leave out \`$1\`"
                index=$1
                shift
                ;;
        esac
    done
    if [[ $command != up && -n $nodes$http_base ]]; then usage "only up takes --nodes and --http-base"; fi
    if [[ -n $nodes ]]; then
        whole_number --nodes "$nodes"
        ((nodes <= nodes_max)) || usage "--nodes takes at most $nodes_max"
    fi
    if [[ -n $http_base ]]; then
        whole_number --http-base "$http_base"
        ((http_base >= 1024 && http_base <= 64000)) || usage "--http-base takes 1024 to 64000"
    fi
    if [[ -z $dir ]]; then
        dir="${XDG_STATE_HOME:-${HOME:?must be set, or give --dir}/.local/state}/kvs-local"
    fi
    case $dir in *[\'$'\n']*) usage "--dir must not hold a quote or a line break" ;; esac
    dir=$(realpath -m "$dir")
    command -v curl >/dev/null || fail "curl is missing; install it: apt-get install curl"

    umask 077
    if [[ $command == up ]]; then
        [[ -z $index ]] || usage "up takes no \`$index\`"
        mkdir -p "$dir"
        trap leave_nothing EXIT
    else
        load_cluster
    fi
    case $command in
        pause | resume | kill | start)
            [[ -n $index ]] || usage "$command which node? 1 to $nodes"
            whole_number "$command" "$index"
            ((index <= nodes)) || usage "there is no node $index; the cluster has $nodes"
            ;;
        *) [[ -z $index ]] || usage "$command takes no \`$index\`" ;;
    esac
    # one command at a time starts or stops nodes; the others need not wait
    case $command in
        up | start | down | wipe)
            exec 9>"$dir/lock"
            flock -w $((2 * ready_deadline_s)) 9 || fail "another local.sh works on $dir; wait until it ends"
            ;;
    esac
    "cmd_$command" ${index:+"$index"}
}

main "$@"
