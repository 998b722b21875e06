#!/usr/bin/env bash
# Runs every command of one README, as a newcomer on a fresh machine would, and checks what it prints.
#
#   tests/readme.sh --bin PATH [--http-base 18081] README
#
# README is README.md, or that of a directory: deploy/README.md. Its blocks are fenced with:
#   ```sh         commands, run from top to bottom in one shell, one a line. What ends in `# => TEXT`
#                 must print TEXT, and every command must succeed. `kvs serve` stays in the
#                 background and must stop in order at the end.
#   ```sh gate    the gate, or a part of it: not run here, but it must exist
#   ```sh long    runs longer than the gate: not run here, but it must exist
#   ```toml FILE  is written to FILE first, for the commands to use
#
# Works in a copy of the scripts, with an empty home directory. Replaces the ports of the README,
# /etc/kvs and /var/lib/kvs by its own. Uses the TCP ports from http-base to http-base + 3 and the UDP
# ports from http-base + 1000 to http-base + 1007.
# Exit status: 0 all as the README says, 1 something differs, 2 usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin='' http_base=18081 readme=''
while (($# > 0)); do
    case $1 in
        -h | --help)
            sed -n '2,/^set /p' tests/readme.sh | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        --bin) bin=${2:-} && shift ;;
        --http-base) http_base=${2:-} && shift ;;
        -*) bin='' && break ;;
        *) readme=$1 ;;
    esac
    shift || true
done
if [[ ! -x $bin || ! -f $readme || ! $http_base =~ ^[1-9][0-9]{3,4}$ ]]; then
    printf 'usage: tests/readme.sh --bin PATH [--http-base PORT] README\n' >&2
    exit 2
fi
bin=$(realpath "$bin")

work=$(mktemp -d)
serving=''
at_exit() {
    local status=$?
    local cluster=$work/user/.local/state/kvs-local
    if [[ -n $serving ]]; then kill -KILL "$serving" 2>/dev/null || true; fi
    if ((status != 0)); then tail -n 20 "$work"/serve.log "$cluster"/n*/log >&2 2>/dev/null || true; fi
    if [[ -f $cluster/cluster ]]; then deploy/local.sh wipe --dir "$cluster" >/dev/null || true; fi
    rm -rf "$work"
    exit "$status"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    printf '%s: %s\n' "$readme" "$*" >&2
    exit 1
}

# The lines of all blocks whose info string is $1, with this run's ports and directories.
blocks() {
    awk -v wanted="\`\`\`$1" '
        /^```/ { inside = !inside; mine = inside && $0 == wanted; next }
        inside && mine' "$readme" |
        sed -e "s/127\.0\.0\.1:8080/127.0.0.1:$((http_base + 3))/g" \
            -e "s/127\.0\.0\.1:8081/127.0.0.1:$http_base/g" \
            -e "s/127\.0\.0\.1:8082/127.0.0.1:$((http_base + 1))/g" \
            -e "s/127\.0\.0\.1:8083/127.0.0.1:$((http_base + 2))/g" \
            -e "s/10\.0\.0\.1:7946/127.0.0.1:$((http_base + 1006))/g" \
            -e "s/10\.0\.0\.1:7947/127.0.0.1:$((http_base + 1007))/g" \
            -e "s/10\.0\.0\.[23]:7946/127.0.0.1:9/g" \
            -e "s|/etc/kvs|$work/etc/kvs|g; s|/var/lib/kvs|$work/var/lib/kvs|g"
}

# Adds options that only this run needs: its ports and its binary.
with_options() {
    case $1 in
        deploy/demo.sh*) printf '%s --no-install --bin %q --http-base %d' "$1" "$bin" "$http_base" ;;
        'deploy/local.sh up'*) printf '%s --http-base %d' "$1" "$http_base" ;;
        'kvs serve --dev'*) printf '%s --set http.listen=127.0.0.1:%d' "$1" "$((http_base + 3))" ;;
        *) printf '%s' "$1" ;;
    esac
}

# Starts a node in the background and waits until it listens.
serve() {
    local end=$((SECONDS + 60)) command
    [[ -z $serving ]] || stop_serving
    command=$(with_options "${1%%&*}")
    eval "exec $command" </dev/null >"$work/ready" 2>"$work/serve.log" &
    serving=$!
    until grep -q '^ready ' "$work/ready"; do
        kill -0 "$serving" 2>/dev/null || fail "this command ended: $1"
        ((SECONDS < end)) || fail "this command did not get ready: $1"
        sleep 0.1
    done
}

stop_serving() {
    kill -TERM "$serving"
    wait "$serving" || fail "the node ended with status $?"
    serving=''
}

# run COMMAND [TEXT]: runs it in this shell and looks for TEXT in what it prints.
run() {
    printf '$ %s\n' "$1"
    eval "$(with_options "$1")" >"$work/printed" </dev/null || {
        printf '%s: this command failed with status %d: %s\n' "$readme" "$?" "$1" >&2
        cat "$work/printed" >&2
        exit 1
    }
    head -c 4000 "$work/printed"
    [[ -z ${2:-} ]] || grep -Fq -- "$2" "$work/printed" || fail "this command should print \"$2\": $1"
}

# Checks that the blocks that are not run call something that exists.
check_called() {
    local line word
    while IFS= read -r line; do
        word=''
        for word in ${line%%  # *}; do
            case $word in *=*) continue ;; esac
            break
        done
        case $word in
            '' | '#'* | cargo) ;;
            */*) [[ -x $word ]] || fail "there is no $word to run: $line" ;;
            *) fail "only cargo and scripts of this repository stand in a block that is not run: $line" ;;
        esac
        if [[ $word == tests/long.sh ]]; then
            word=${line#*tests/long.sh } && word=${word%% *}
            grep -q "^run_$word()" tests/long.sh || fail "tests/long.sh does not know $word: $line"
        fi
    done < <(blocks 'sh gate' && blocks 'sh long')
}

main() {
    local line name file names=() lines=() checked=0
    check_called
    mapfile -t names < <(sed -n 's/^```toml \(..*\)$/\1/p' "$readme")
    mapfile -t lines < <(blocks sh)
    readme=$(realpath "$readme")
    # copy the binary, so that a concurrent build cannot change it
    mkdir -p "$work/clone" "$work/user/.cache/kvs/target/release"
    cp "$bin" "$work/user/.cache/kvs/target/release/kvs"
    bin=$work/user/.cache/kvs/target/release/kvs
    cp -r deploy "$work/clone"
    mkdir "$work/clone/certs"
    for name in "${names[@]}"; do
        file=$work$name
        [[ $name == /* ]] || file=$work/clone/$name
        mkdir -p "$(dirname "$file")"
        blocks "toml $name" >"$file"
    done
    unset "${!KVS_@}" CARGO_TARGET_DIR XDG_STATE_HOME
    # keep using the real toolchain
    export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
    export HOME=$work/user PATH="$work/user/.cache/kvs/target/release:$PATH"
    # `kvs serve --dev` listens here instead of on the default port
    export KVS_URL="http://127.0.0.1:$((http_base + 3))"
    local top=$PWD
    cd "$work/clone"
    for line in "${lines[@]}"; do
        case $line in
            '' | '#'*) ;;
            'kvs serve '*) serve "$line" ;;
            *'  # => '*)
                run "${line%%  \# => *}" "${line#*  \# => }"
                checked=$((checked + 1))
                ;;
            *) run "$line" ;;
        esac
    done
    [[ -z $serving ]] || stop_serving
    cd "$top"
    printf '%d lines of commands, %d of them checked\n' "${#lines[@]}" "$checked"
}

main
