#!/usr/bin/env bash
# Runs what README.md says: the tour, command by command against a fresh cluster of three nodes, and
# then deploy/demo.sh.
#
#   tests/readme.sh --bin PATH [--http-base 18081] [--tour | --demo]
#
# A block of the tour is a ```sh block below a line `<!-- run: tour -->`. A command that ends in
# `# => TEXT` must print TEXT; every command must succeed. --tour and --demo run only that part.
# Uses the TCP and UDP ports from http-base to http-base + 2 and from http-base + 1000 to
# http-base + 1005. Exit status: 0 all as the README says, 1 not, 2 usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin='' http_base=18081 parts='tour demo'
while (($# > 0)); do
    case $1 in
        -h | --help)
            sed -n '2,/^set /p' tests/readme.sh | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        --bin) bin=${2:-} && shift ;;
        --http-base) http_base=${2:-} && shift ;;
        --tour) parts=tour ;;
        --demo) parts=demo ;;
        *) bin='' && break ;;
    esac
    shift || true
done
if [[ ! -x $bin || ! $http_base =~ ^[1-9][0-9]{3,4}$ ]]; then
    printf 'usage: tests/readme.sh --bin PATH [--http-base PORT] [--tour | --demo]\n' >&2
    exit 2
fi
bin=$(realpath "$bin")

work=$(mktemp -d)
at_exit() {
    local status=$?
    local cluster
    for cluster in "$work/state/kvs-local" "$work/demo"; do
        if [[ -f $cluster/cluster ]]; then
            if ((status != 0)); then tail -n 20 "$cluster"/n*/log >&2 || true; fi
            deploy/local.sh wipe --dir "$cluster" >/dev/null || true
        fi
    done
    rm -rf "$work"
    exit "$status"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# a copy: a build that runs meanwhile must not change what is tried here
mkdir "$work/bin"
cp "$bin" "$work/bin/kvs"
bin=$work/bin/kvs

# The tour's commands, one a line, with this run's ports in the place of the README's.
tour_commands() {
    awk '/^<!-- run: tour -->$/ { wanted = 1; next }
        /^```sh$/ && wanted { inside = 1; wanted = 0; next }
        /^```$/ { inside = 0 }
        inside' README.md |
        sed -e "s/127\.0\.0\.1:8081/127.0.0.1:$http_base/g" \
            -e "s/127\.0\.0\.1:8082/127.0.0.1:$((http_base + 1))/g" \
            -e "s/127\.0\.0\.1:8083/127.0.0.1:$((http_base + 2))/g"
}

# expect COMMAND TEXT: runs it and looks for TEXT in what it prints.
expect() {
    local printed
    printf '$ %s\n' "$1"
    printed=$(eval "$1") || {
        printf 'README.md: this command failed: %s\n%s\n' "$1" "$printed" >&2
        exit 1
    }
    printf '%s\n' "$printed"
    if [[ $printed != *"$2"* ]]; then
        printf 'README.md: this command should print "%s": %s\n' "$2" "$1" >&2
        exit 1
    fi
}

run_tour() {
    local line commands=() checked=0
    mapfile -t commands < <(tour_commands)
    export PATH="$work/bin:$PATH" XDG_STATE_HOME="$work/state" KVS_URL="http://127.0.0.1:$http_base"
    deploy/local.sh up --nodes 3 --http-base "$http_base" --bin "$bin"
    for line in "${commands[@]}"; do
        if [[ $line == *'  # => '* ]]; then
            expect "${line%%  \# => *}" "${line#*  \# => }"
            checked=$((checked + 1))
        else
            expect "$line" ''
        fi
    done
    # an empty tour would pass without showing anything
    if ((${#commands[@]} < 20 || checked < 10)); then
        printf 'README.md: only %d commands, %d of them checked\n' "${#commands[@]}" "$checked" >&2
        exit 1
    fi
    deploy/local.sh wipe
    printf 'the tour holds: %d commands, %d of them checked\n' "${#commands[@]}" "$checked"
}

run_demo() {
    deploy/demo.sh --bin "$bin" --no-install --down --http-base "$http_base" --dir "$work/demo"
}

for part in $parts; do "run_$part"; done
