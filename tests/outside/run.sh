#!/usr/bin/env bash
# Runs a node the way strangers run it, and talks to it with the programs that they use.
#
#   tests/outside/run.sh BIN     BIN is the binary `kvs`
#
# Clients (curl, Python's requests, Node's fetch, Java, Go) play one scenario each, through each
# door: the node itself; nginx with its defaults; nginx that compresses everything. Then the node
# runs with 1,024 descriptors below 1,100 idle connections, and in a container with a read-only
# root and 512 MiB. What this machine lacks is skipped, which is printed.
#
# Exit status: 0 all that ran passed, 1 something failed, 2 wrong usage.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

[[ $# == 1 && -x $1 ]] || { printf 'usage: tests/outside/run.sh BIN\n' >&2; exit 2; }
bin=$(realpath "$1")
work=$(mktemp -d)
pids=()
container=kvs-outside-$$

clean() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    if docker inspect "$container" >/dev/null 2>&1; then docker rm -f "$container" >/dev/null; fi
    rm -rf "$work"
}
trap clean EXIT

say() { printf '%s\n' "$*"; }
skip() { printf 'SKIPPED: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null; }

# until_ready URL: waits for a node that is ready, at most 60 s.
until_ready() {
    local try
    for ((try = 0; try < 600; try++)); do
        if curl -fsS -o /dev/null "$1/health/ready" 2>/dev/null; then return; fi
        sleep 0.1
    done
    fail "$1 does not become ready; $(tail -n 5 "$work"/*.log)"
}

free_port() {
    python3 - <<'PY'
import socket

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])
PY
}

# start_node NAME [COMMAND...]: a node of development, started through COMMAND; sets `url`.
start_node() {
    local name=$1 port
    shift
    port=$(free_port)
    "$@" "$bin" serve --dev --set "http.listen=127.0.0.1:$port" \
        >"$work/$name.out" 2>"$work/$name.log" &
    pids+=($!)
    url=http://127.0.0.1:$port
    until_ready "$url"
}

# start_nginx NAME LINES: an nginx before `url`; sets `door`.
start_nginx() {
    local port dir=$work/nginx-$1
    port=$(free_port)
    mkdir -p "$dir"
    # as root, nginx would give its work to a user who cannot read this directory
    [[ $(id -u) != 0 ]] || printf 'user root;\n' >"$dir/nginx.conf"
    cat >>"$dir/nginx.conf" <<CONF
daemon off;
pid $dir/pid;
error_log $dir/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    $2
    server {
        listen 127.0.0.1:$port;
        location / { proxy_pass $url; }
    }
}
CONF
    nginx -c "$dir/nginx.conf" -p "$dir" 2>"$dir/start.log" &
    pids+=($!)
    door=http://127.0.0.1:$port
    until_ready "$door"
}

# clients URL DOOR: each client that this machine has plays its scenario.
clients() {
    "$here/clients/curl.sh" "$1" "$2" || fail "curl through $2"
    say "curl through $2: passed"
    if has python3 && python3 -c 'import requests' 2>/dev/null; then
        python3 "$here/clients/python.py" "$1" "$2" || fail "Python through $2"
        say "Python through $2: passed"
    else
        skip "there is no Python with requests"
    fi
    if has node; then
        node "$here/clients/node.mjs" "$1" "$2" || fail "Node through $2"
        say "Node through $2: passed"
    else
        skip "there is no node"
    fi
    if has java; then
        java "$here/clients/Java.java" "$1" "$2" || fail "Java through $2"
        say "Java through $2: passed"
    else
        skip "there is no java"
    fi
    if has go; then
        GOFLAGS=-mod=mod go run "$here/clients/go.go" "$1" "$2" || fail "Go through $2"
        say "Go through $2: passed"
    else
        skip "there is no go"
    fi
}

doors() {
    start_node plain
    clients "$url" direct
    if has nginx; then
        start_nginx defaults ""
        clients "$door" nginx
        start_nginx gzip "gzip on; gzip_types *; gzip_min_length 1;"
        clients "$door" nginx-gzip
    else
        skip "there is no nginx"
    fi
}

# A service that its manager gives 1,024 descriptors, below a crowd of idle connections.
descriptors() {
    if ! has prlimit; then
        skip "there is no prlimit"
        return
    fi
    start_node descriptors prlimit --nofile=1024:1024
    (ulimit -n 4096 && exec python3 - "$url" "$work/crowd") <<'PY' &
import pathlib, socket, sys, time, urllib.parse

at = urllib.parse.urlsplit(sys.argv[1])
idle = []
for _ in range(1100):
    try:
        idle.append(socket.create_connection((at.hostname, at.port), timeout=5))
    except OSError:
        break
pathlib.Path(sys.argv[2]).write_text(str(len(idle)))
time.sleep(600)
PY
    pids+=($!)
    local try
    for ((try = 0; try < 600; try++)); do
        [[ -s $work/crowd ]] && break
        sleep 0.1
    done
    [[ -s $work/crowd ]] || fail "the crowd does not form"
    head -c 262144 /dev/urandom >"$work/value"
    for ((try = 0; try < 50; try++)); do
        curl -fsS -o /dev/null -X PUT --data-binary @"$work/value" "$url/kv/crowd/$try" ||
            fail "put $try below $(<"$work/crowd") idle connections; $(tail -n 3 "$work/descriptors.log")"
    done
    say "50 puts of 256 KiB below $(<"$work/crowd") idle connections and nofile=1024: passed"
}

# An image that holds the binary and the libraries that it needs, and nothing else.
make_image() {
    local root=$work/root library
    mkdir -p "$root/data" "$root/tmp"
    install -D "$bin" "$root/kvs"
    # the binary of the tests carries debug symbols
    strip "$root/kvs" 2>/dev/null || true
    while IFS= read -r library; do
        install -D "$library" "$root$library"
    done < <(ldd "$bin" | grep -o '/[^ ]*')
    tar -C "$root" -c . | docker import - "$container:test" >/dev/null
}

container() {
    if ! docker info >/dev/null 2>&1; then
        skip "there is no docker daemon"
        return
    fi
    local port
    port=$(free_port)
    make_image
    docker run -d --name "$container" --read-only --memory 512m --memory-swap 512m \
        -v "$work/data:/data" -p "127.0.0.1:$port:8080" "$container:test" \
        /kvs serve --config /data/kvs.toml >/dev/null
    url=http://127.0.0.1:$port
    until_ready "$url"
    clients "$url" container
    large_values
    docker inspect -f '{{.State.OOMKilled}} {{.RestartCount}} {{.State.Running}}' "$container" |
        grep -qx 'false 0 true' || fail "the container ran out of memory"
    docker rm -f "$container" >/dev/null
    docker rmi "$container:test" >/dev/null
    say "40 puts of 16 MiB in a container with a read-only root and 512 MiB: passed"
}

# 40 puts of 16 MiB, 16 at a time: each is stored or refused with 503, and what was stored is there.
large_values() {
    head -c 16777216 /dev/urandom >"$work/large"
    seq 40 | xargs -P 16 -I{} curl -sS -o /dev/null -w '{} %{http_code}\n' \
        -X PUT --data-binary @"$work/large" "$url/kv/large/{}" >"$work/puts"
    if grep -qvE ' (201|503)$' "$work/puts"; then fail "large puts: $(grep -vE ' (201|503)$' "$work/puts")"; fi
    local stored key
    stored=$(grep -c ' 201$' "$work/puts")
    ((stored > 0)) || fail "no large put was stored"
    while read -r key _; do
        curl -fsS "$url/kv/large/$key" | cmp - "$work/large" || fail "large/$key is not what was put"
    done < <(grep ' 201$' "$work/puts")
    say "$stored of 40 large puts were stored, the others refused with 503"
}

mkdir -p "$work/data"
cat >"$work/data/kvs.toml" <<'TOML'
clustering_enabled = false
[node]
data_dir = "/data/node"
[http]
listen = "0.0.0.0:8080"
insecure = true
[storage]
cache_bytes = 33554432
[limits]
body_bytes_max = 4194304
body_memory_bytes_max = 50331648
answer_memory_bytes_max = 50331648
connections_max = 512
TOML
doors
descriptors
container
