#!/usr/bin/env bash
# Plants each known bug and checks that the tests notice it.
#
#   tests/mutants/run.sh [--check] [--part N/M] [--resume] [NAME...]
#
#   --check      only check that every patch still applies
#   --part N/M   take every M-th mutant, starting with the N-th: 1/2 and 2/2 together take all
#   --resume     skip mutants that an earlier run on the same files has found noticed
#
# A mutant is a patch beside this script, NAME.patch. Lines above the diff name the law that it
# breaks, how it breaks it, and the suite that must notice:
#
#   Suite: lib PATH | sim PATH | it PATH
#
# The suite consists of the tests whose path starts with PATH; without such a test the run stops.
# `sim fresh` plays the seeds 0 to 59. First each suite must pass on a copy of this tree. Then each
# patch is applied to the copy, must build, and its suite must fail. Builds use the directory
# KVS_MUTANTS_TARGET (~/.cache/kvs/mutants), so ordinary builds stay as they are; its file `noticed`
# lists the results for --resume.
#
# Exit status: 0 every mutant was noticed, 1 one survives or a patch no longer applies, 2 usage.
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
    [[ -f $here/$name.patch ]] || stop "there is no tests/mutants/$name.patch"
done

said() { sed -n "s/^$1: //p" "$here/$2.patch"; }

# mutants of one suite follow each other, so that cargo builds less
mapfile -t names < <(for name in "${names[@]}"; do
    printf '%s\t%s\n' "$(said Suite "$name")" "$name"
done | sort -u | cut -f 2)
chosen=()
for ((at = part - 1; at < ${#names[@]}; at += parts)); do chosen+=("${names[at]}"); done
((${#chosen[@]} > 0)) || stop "part $part of $parts is empty: there are fewer mutants than parts"
names=("${chosen[@]}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy="$work/kvs"
mkdir "$copy"
{ git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -type f -print0; } |
    tar --null --files-from=- --create --ignore-failed-read 2>/dev/null | tar -x -C "$copy"

# change NAME [--reverse]: plants a mutant or removes it. Touches the files so that cargo rebuilds.
change() {
    local name=$1 file
    shift
    (cd "$copy" && git apply "$@" "$here/$name.patch") || return 1
    sed -n 's|^+++ b/||p' "$here/$name.patch" | while read -r file; do touch "$copy/$file"; done
}

for name in "${names[@]}"; do
    [[ -n $(said Law "$name") && -n $(said Breaks "$name") && -n $(said Suite "$name") ]] ||
        stop "$name.patch lacks one of the lines Law:, Breaks: and Suite:"
    if ! { change "$name" && change "$name" --reverse; }; then
        printf 'mutants: %s.patch no longer applies: make it again\n' "$name" >&2
        exit 1
    fi
done
if [[ $only_check ]]; then
    printf 'mutants: all %d patches apply\n' "${#names[@]}"
    exit 0
fi

# shellcheck source=deploy/prepare.sh
. deploy/prepare.sh
build_environment
export CARGO_TARGET_DIR=${KVS_MUTANTS_TARGET:-$HOME/.cache/kvs/mutants} CARGO_TERM_COLOR=never
export KVS_SIM_FIRST=0 KVS_SIM_SEEDS=60 RUST_BACKTRACE=0

# Identifies the tree under test: --resume must not use results of another tree.
hashes() { find . -type f -print0 | sort -z | xargs -0 sha256sum; }
tree=$(cd "$copy" && hashes | sha256sum | cut -c 1-64)
mkdir -p "$CARGO_TARGET_DIR"
results=$CARGO_TARGET_DIR/noticed
touch "$results"
is_done() { [[ $resume ]] && grep -Fqx "$tree $1" "$results"; }
left=()
for name in "${names[@]}"; do is_done "$name" || left+=("$name"); done
printf 'mutants: %d to try, %d noticed earlier\n' "${#left[@]}" "$((${#names[@]} - ${#left[@]}))"
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
        if [[ -z $found ]]; then
            printf 'mutants: no test of %s has a path that starts with "%s"\n' "$name" "$filter"
            return 3
        fi
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
        printf 'mutants: the suite "%s" fails without a mutant\n' "$name $filter" >&2
        exit 1
    fi
    printf '  %-22s passes, %d s\n' "$name $filter" $((SECONDS - begin))
done <"$work/suites"

lives=0 at=0 all=$SECONDS
printf '\n| mutant | suite | seconds | noticed by |\n|---|---|---|---|\n'
for mutant in "${names[@]}"; do
    read -r name filter <<<"$(said Suite "$mutant")"
    begin=$SECONDS
    change "$mutant"
    if ! suite build "$name" >"$work/log" 2>&1; then
        cat "$work/log"
        printf 'mutants: %s does not build\n' "$mutant" >&2
        exit 1
    fi
    status=0
    suite run "$name" "$filter" >"$work/log" 2>&1 </dev/null || status=$?
    # a suite without tests fails too, but has noticed nothing
    if ((status == 3)); then
        cat "$work/log"
        exit 1
    fi
    if ((status == 0)); then
        noticed='**none: it survives**'
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
    printf '\nmutants: %d survive: add tests that notice them\n' "$lives" >&2
    exit 1
fi
printf '\nmutants: all %d were noticed, %d s\n' "${#names[@]}" $((SECONDS - all))
