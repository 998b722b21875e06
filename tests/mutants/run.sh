#!/usr/bin/env bash
# Plants each known bug and demands that the tests notice it.
#
#   tests/mutants/run.sh [--check] [NAME...]
#
#   --check   only see that every patch can still be applied
#
# A mutant is a patch beside this script, NAME.patch. Its first lines say which law it breaks, how,
# and which suite is to notice: `lib FILTER`, `sim` (the first 60 seeds and the kept ones) or
# `it FILTER`. It is applied to a copy of this tree, must build, and the suite must then fail; before
# that, the same suites must pass without it. Everything is built in KVS_MUTANTS_TARGET
# (~/.cache/kvs/mutants), so that no ordinary build is disturbed.
#
# Exit status: 0 every mutant was noticed, 1 one lives, or a patch does not fit any more, 2 usage.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

stop() {
    printf 'mutants: %s\n' "$*" >&2
    exit 2
}

only_check=
names=()
for argument in "$@"; do
    case $argument in
        --check) only_check=1 ;;
        -h | --help)
            sed -n '2,/^set /p' "$here/run.sh" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        -*) stop "no such option: $argument" ;;
        *) names+=("$argument") ;;
    esac
done
if ((${#names[@]} == 0)); then
    for patch in "$here"/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi
for name in "${names[@]}"; do
    [[ -f $here/$name.patch ]] || stop "there is no mutant $name"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy="$work/kvs"
mkdir "$copy"
{ git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -type f -print0; } |
    tar --null --files-from=- --create --ignore-failed-read 2>/dev/null | tar -x -C "$copy"

said() { sed -n "s/^$1: //p" "$here/$2.patch"; }

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

# suite BUILD-OR-RUN NAME [FILTER]
suite() {
    local step=$1 name=$2 filter=${3:-} target
    case $name in
        lib) target=(--lib) ;;
        *) target=(--test "$name") ;;
    esac
    if [[ $step == build ]]; then
        cargo test --locked --quiet "${target[@]}" --no-run
    else
        timeout 900 cargo test --locked --quiet "${target[@]}" -- ${filter:+"$filter"}
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

lives=0
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
    if suite run "$name" "$filter" >"$work/log" 2>&1; then
        noticed='**nobody: it lives**'
        lives=$((lives + 1))
    else
        noticed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^    \([a-z_:0-9]*\)$/\1/p' "$work/log" |
            sort -u | head -n 3 | paste -sd ' ')
    fi
    printf '| %s | %s | %d | %s |\n' "$mutant" "$name${filter:+ $filter}" $((SECONDS - begin)) "$noticed"
    change "$mutant" --reverse
done
if ((lives > 0)); then
    printf '\nmutants: %d live: the tests have a hole there\n' "$lives" >&2
    exit 1
fi
printf '\nmutants: all %d were noticed\n' "${#names[@]}"
