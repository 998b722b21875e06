#!/usr/bin/env bash
# Plants each known bug and demands that the tests notice it.
#
#   tests/mutants/run.sh [--check] [--part N/M] [--resume] [NAME...]
#
#   --check      only see that every patch can still be applied
#   --part N/M   take each M-th mutant, beginning with the N-th: 1/2 and 2/2 together take all
#   --resume     skip mutants that an earlier run on the same files noticed
#
# A mutant is a patch beside this script, NAME.patch. Its first lines say which law it breaks, how,
# and which suite must notice: `lib PATH`, `sim PATH` (seeds 0 to 59 where PATH is `fresh`) or
# `it PATH`. PATH is where the names of the suite's tests begin; a `lib` suite of which no test
# begins so takes all tests whose names hold it. The patch is applied to a copy of this tree, must
# build, and the suite must then fail; before that, the same suite must pass without it. Mutants of
# one suite follow each other. Everything is built in KVS_MUTANTS_TARGET (~/.cache/kvs/mutants), so
# that no ordinary build is disturbed; the file `noticed` there lists what was noticed so far.
#
# Exit status: 0 every mutant was noticed, 1 one lives, or a patch no longer fits, 2 usage.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

stop() {
    printf 'mutants: %s\n' "$*" >&2
    exit 2
}

only_check='' resume='' part=1 parts=1
names=()
while (($# > 0)); do
    case $1 in
        --check) only_check=1 ;;
        --resume) resume=1 ;;
        --part)
            [[ ${2:-} =~ ^([1-9][0-9]?)/([1-9][0-9]?)$ ]] || stop "--part takes N/M, such as 1/2"
            part=${BASH_REMATCH[1]} parts=${BASH_REMATCH[2]}
            ((part <= parts)) || stop "there is no part $part of $parts"
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /p' "$here/run.sh" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        -*) stop "no such option: $1" ;;
        *) names+=("$1") ;;
    esac
    shift
done
if ((${#names[@]} == 0)); then
    for patch in "$here"/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi
for name in "${names[@]}"; do
    [[ -f $here/$name.patch ]] || stop "there is no mutant $name"
done

said() { sed -n "s/^$1: //p" "$here/$2.patch"; }

# by suite, then by name
mapfile -t names < <(for name in "${names[@]}"; do
    printf '%s\t%s\n' "$(said Suite "$name")" "$name"
done | sort -u | cut -f 2)
chosen=()
for ((at = part - 1; at < ${#names[@]}; at += parts)); do chosen+=("${names[at]}"); done
((${#chosen[@]} > 0)) || stop "part $part of $parts holds no mutant"
names=("${chosen[@]}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy="$work/kvs"
mkdir "$copy"
{ git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -type f -print0; } |
    tar --null --files-from=- --create --ignore-failed-read 2>/dev/null | tar -x -C "$copy"

# change NAME [--reverse]: plants a mutant, or takes it back; what changed looks new to cargo.
change() {
    local name=$1 file
    shift
    (cd "$copy" && git apply "$@" "$here/$name.patch") || return 1
    sed -n 's|^+++ b/||p' "$here/$name.patch" | while read -r file; do touch "$copy/$file"; done
}

for name in "${names[@]}"; do
    [[ -n $(said Law "$name") && -n $(said Breaks "$name") && -n $(said Suite "$name") ]] ||
        stop "$name.patch does not say its law, what it breaks and its suite"
    if ! { change "$name" && change "$name" --reverse; }; then
        printf 'mutants: %s.patch does not fit any more: make it anew\n' "$name" >&2
        exit 1
    fi
done
if [[ $only_check ]]; then
    printf 'mutants: all %d patches fit\n' "${#names[@]}"
    exit 0
fi

# shellcheck source=deploy/prepare.sh
. deploy/prepare.sh
build_environment
export CARGO_TARGET_DIR=${KVS_MUTANTS_TARGET:-$HOME/.cache/kvs/mutants} CARGO_TERM_COLOR=never
export KVS_SIM_FIRST=0 KVS_SIM_SEEDS=60 RUST_BACKTRACE=0

# What the tests are run on: results of other files say nothing about these.
hashes() { find . -type f -print0 | sort -z | xargs -0 sha256sum; }
tree=$(cd "$copy" && hashes | sha256sum | cut -c 1-64)
mkdir -p "$CARGO_TARGET_DIR"
results=$CARGO_TARGET_DIR/noticed
touch "$results"
is_done() { [[ $resume ]] && grep -Fqx "$tree $1" "$results"; }
left=()
for name in "${names[@]}"; do is_done "$name" || left+=("$name"); done
printf 'mutants: %d to try, %d noticed before\n' "${#left[@]}" "$((${#names[@]} - ${#left[@]}))"
if ((${#left[@]} == 0)); then exit 0; fi
names=("${left[@]}")

# suite BUILD-OR-RUN NAME [PATH]
suite() {
    local step=$1 name=$2 filter=${3:-} target tests found chosen=()
    case $name in
        lib) target=(--lib) ;;
        *) target=(--test "$name") ;;
    esac
    if [[ $step == build ]]; then
        cargo test --locked --quiet "${target[@]}" --no-run
    else
        tests=$(cargo test --locked --quiet "${target[@]}" -- --list | sed -n 's/: test$//p')
        found=$(awk -v path="$filter" 'index($0, path) == 1' <<<"$tests")
        if [[ -z $found && $name == lib ]]; then found=$(grep -F -- "$filter" <<<"$tests"); fi
        [[ $found ]] || { printf 'no test of %s begins with %s\n' "$name" "$filter" && return 3; }
        mapfile -t chosen <<<"$found"
        timeout 900 cargo test --locked --quiet "${target[@]}" -- --exact "${chosen[@]}"
    fi
}

cd "$copy"
touch src/lib.rs src/main.rs
printf 'without a mutant:\n'
for name in "${names[@]}"; do said Suite "$name"; done | sort -u >"$work/suites"
while read -r name filter; do
    begin=$SECONDS
    if ! { suite build "$name" && suite run "$name" "$filter"; } >"$work/log" 2>&1 </dev/null; then
        cat "$work/log"
        printf 'mutants: the suite "%s" fails without any mutant\n' "$name $filter" >&2
        exit 1
    fi
    printf '  %-22s passes, %d s\n' "$name $filter" $((SECONDS - begin))
done <"$work/suites"

lives=0 at=0 all=$SECONDS
printf '\n| mutant | suite | seconds | noticed by |\n|---|---|---|---|\n'
for mutant in "${names[@]}"; do
    read -r name filter <<<"$(said Suite "$mutant")"
    change "$mutant"
    if ! suite build "$name" >"$work/log" 2>&1; then
        cat "$work/log"
        printf 'mutants: %s does not build\n' "$mutant" >&2
        exit 1
    fi
    begin=$SECONDS
    status=0
    suite run "$name" "$filter" >"$work/log" 2>&1 </dev/null || status=$?
    # a suite without tests must not pass for one that fails
    if ((status == 3)); then
        cat "$work/log"
        exit 1
    fi
    if ((status == 0)); then
        noticed='**nobody: it lives**'
        lives=$((lives + 1))
    else
        noticed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^    \([a-z_:0-9]*\)$/\1/p' "$work/log" |
            sort -u | head -n 3 | paste -sd ' ')
        [[ $noticed ]] || noticed="exit status $status"
        printf '%s %s\n' "$tree" "$mutant" >>"$results"
    fi
    at=$((at + 1))
    printf 'mutants: %d of %d, %d s so far\n' "$at" "${#names[@]}" $((SECONDS - all)) >&2
    printf '| %s | %s | %d | %s |\n' "$mutant" "$name${filter:+ $filter}" $((SECONDS - begin)) "$noticed"
    change "$mutant" --reverse
done
if ((lives > 0)); then
    printf '\nmutants: %d live: the tests have a hole there\n' "$lives" >&2
    exit 1
fi
printf '\nmutants: all %d were noticed, %d s\n' "${#names[@]}" $((SECONDS - all))
