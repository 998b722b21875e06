#!/usr/bin/env bash
# Prepares a Debian or Ubuntu machine to build kvs, and sets the environment of every build.
#
#   deploy/prepare.sh [--no-install] [--gate]
#
# Installs only what is missing; leaves what is installed as it is.
#   --no-install   install nothing: say what is missing and stop
#   --gate         also prepare for tests/gate.sh (rustfmt, clippy, shellcheck, nftables, iproute2,
#                  and Chromium where apt has it)
# Other scripts source this file and call `prepare` with the same options.
#
# Exit status: 0 ready, 2 something is missing and was not installed; says what to run.
set -euo pipefail

kvs_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prepare_install=1
prepare_gate=0
prepare_updated=0
# With --no-install: what is missing, and the commands that install it, printed together at the end.
prepare_missing=()
prepare_commands=()

prepare_say() { printf 'prepare: %s\n' "$*"; }

# prepare_stop PROBLEM COMMAND...: prints both and ends the calling script.
prepare_stop() {
    printf 'prepare: %s\n' "$1" >&2
    shift
    if (($# > 0)); then
        printf 'prepare: run this, then start again:\n' >&2
        printf '    %s\n' "$@" >&2
    fi
    exit 2
}

# prepare_note MISSING COMMAND...: keeps both for the end.
prepare_note() {
    prepare_missing+=("$1")
    shift
    prepare_commands+=("$@")
}

# Sets the environment of every build. CC and CXX use ccache, so that RocksDB is compiled only once.
# C flags stay unset, because each set of flags would compile it again.
build_environment() {
    : "${HOME:?must be set: caches live below it}"
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/kvs/target}"
    export CC="ccache cc" CXX="ccache c++"
    mark_other_clone
    local cargo_bin="${CARGO_HOME:-$HOME/.cargo}/bin"
    if ! command -v cargo >/dev/null && [[ -x $cargo_bin/cargo ]]; then
        export PATH="$cargo_bin:$PATH"
    fi
}

# Clones share one target directory, and cargo compares only the times of sources: it would take what
# another clone built later for a build of these. So after another clone's build, rebuild this crate.
mark_other_clone() {
    local mark="$CARGO_TARGET_DIR/.built-from"
    if [[ -f $mark && $(<"$mark") != "$kvs_root" ]]; then
        find "$kvs_root/src" "$kvs_root/tests" -name '*.rs' -exec touch {} +
    fi
    mkdir -p "$CARGO_TARGET_DIR"
    printf '%s\n' "$kvs_root" >"$mark"
}

# Runs a command as root; fails if this user cannot become root.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        sudo "$@"
    else
        return 1
    fi
}

can_compile() {
    local dir status=0
    dir=$(mktemp -d)
    printf '#include <vector>\nint main() { return 0; }\n' >"$dir/probe.cc"
    c++ "$dir/probe.cc" -o "$dir/probe" >/dev/null 2>&1 || status=1
    printf 'int main(void) { return 0; }\n' >"$dir/probe.c"
    cc "$dir/probe.c" -o "$dir/probe" >/dev/null 2>&1 || status=1
    rm -rf "$dir"
    return "$status"
}

# Generating RocksDB's bindings at build time needs libclang and clang's own headers.
has_libclang() {
    compgen -G "${LIBCLANG_PATH:-/nonexistent}/libclang*.so*" >/dev/null ||
        [[ -f ${LIBCLANG_PATH:-/nonexistent} ]] ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib/*-linux-gnu/libclang-[0-9]*.so*' >/dev/null ||
        compgen -G '/usr/lib64/libclang.so*' >/dev/null ||
        compgen -G '/usr/lib/libclang.so*' >/dev/null ||
        compgen -G '/usr/local/lib/libclang.so*' >/dev/null || return 1
    [[ -n ${BINDGEN_EXTRA_CLANG_ARGS:-} ]] ||
        compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null ||
        compgen -G '/usr/lib*/clang/*/include/stddef.h' >/dev/null ||
        compgen -G '/usr/local/lib/clang/*/include/stddef.h' >/dev/null
}

# Prints the libclang packages that apt offers: the release's default version, else the newest.
libclang_packages() {
    local version lib
    version=$(apt-cache depends libclang-dev 2>/dev/null |
        sed -n 's/.*Depends: libclang-\([0-9]\{1,\}\)-dev.*/\1/p' | head -n 1)
    if [[ -z $version ]]; then
        version=$(apt-cache pkgnames libclang-common- 2>/dev/null |
            sed -n 's/^libclang-common-\([0-9]\{1,\}\)-dev$/\1/p' | sort -n | tail -n 1)
    fi
    [[ -n $version ]] || return 1
    lib=$(apt-cache pkgnames "libclang1-$version" | grep -E "^libclang1-$version(t64)?\$" |
        sort | tail -n 1) || return 1
    printf '%s\n' "$lib" "libclang-common-$version-dev"
}

has_ca_certificates() {
    [[ -s ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} ]] || [[ -s /etc/pki/tls/cert.pem ]]
}

# Prints the missing packages; `libclang` stands for its two.
missing_packages() {
    can_compile || echo build-essential
    has_libclang || echo libclang
    command -v ccache >/dev/null || echo ccache
    command -v git >/dev/null || echo git
    command -v curl >/dev/null || echo curl
    has_ca_certificates || echo ca-certificates
    if ((prepare_gate)); then missing_conveniences; fi
}

# Prints the missing packages without which the gate still runs, but skips checks and says so.
missing_conveniences() {
    local path="$PATH:/usr/sbin:/sbin"
    PATH=$path command -v shellcheck >/dev/null || echo shellcheck
    PATH=$path command -v nft >/dev/null || echo nftables
    PATH=$path command -v ip >/dev/null || echo iproute2
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive as_root env DEBIAN_FRONTEND=noninteractive apt-get "$@" </dev/null
}

# Replaces `libclang` by the names that this release gives its packages.
named_packages() {
    local name
    for name in "$@"; do
        if [[ $name == libclang ]]; then
            libclang_packages || echo libclang-dev
        else
            echo "$name"
        fi
    done
}

prepare_packages() {
    local missing=() names=() command_line root_note=
    if [[ $(id -u) != 0 ]]; then root_note='    # as root'; fi
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]} == 0)); then
        prepare_say "found compiler, libclang, ccache, git and curl"
        return
    fi
    if ((!prepare_install && prepare_gate)) &&
        [[ ${missing[*]} == "$(missing_conveniences | xargs)" ]]; then
        prepare_say "continuing without ${missing[*]}, because of --no-install"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        prepare_stop "missing: ${missing[*]}; and this system has no apt-get. Install a C and C++ \
compiler, libclang with its headers, ccache, git and curl with your system's package manager"
    fi
    mapfile -t names < <(named_packages "${missing[@]}")
    command_line="apt-get install --no-install-recommends ${names[*]}"
    if ((!prepare_install)); then
        prepare_note "${missing[*]}" "apt-get update$root_note" "$command_line$root_note"
        return
    fi
    if [[ $(id -u) != 0 ]] && ! as_root true; then
        prepare_stop "missing: ${missing[*]}; installing them needs root, and sudo does not work here" \
            "apt-get update$root_note" "$command_line$root_note"
    fi
    if ((!prepare_updated)); then
        prepare_say "updating apt's package lists (apt-get update)"
        apt_get update -q >/dev/null ||
            prepare_say "apt-get update failed; continuing with the present lists"
        prepare_updated=1
        mapfile -t names < <(named_packages "${missing[@]}")
        command_line="apt-get install --no-install-recommends ${names[*]}"
    fi
    prepare_say "installing ${names[*]}"
    apt_get install -q -y --no-install-recommends "${names[@]}" >/dev/null ||
        prepare_stop "apt-get install failed (no network?)" "apt-get update$root_note" \
            "$command_line$root_note"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) ||
        prepare_stop "installed, but still not usable: ${missing[*]}" "$command_line"
}

has_browser() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null
}

# Installs Chromium for the tests that show web pages in it. They are skipped without it, and say so;
# so whatever fails here, the gate goes on.
prepare_browser() {
    local without='continuing without Chromium: the tests with a real browser are skipped'
    if has_browser || ((!prepare_install)) || ! command -v apt-get >/dev/null || ! as_root true; then
        has_browser || prepare_say "$without"
        return 0
    fi
    if ((!prepare_updated)) && ! apt-cache show chromium >/dev/null 2>&1; then
        apt_get update -q >/dev/null 2>&1 || true
        prepare_updated=1
    fi
    prepare_say "installing chromium"
    # only the download may take long, and only that may be cut
    if as_root timeout 300 apt-get install -q -y --download-only --no-install-recommends chromium \
        >/dev/null 2>&1 </dev/null; then
        apt_get install -q -y --no-install-recommends chromium >/dev/null 2>&1 || true
    fi
    has_browser || prepare_say "$without"
}

# Succeeds if the Rust in use is at least version $1.
rust_is_new_enough() {
    local have
    have=$(cd "$kvs_root" && rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    [[ -n $have ]] && command -v cargo >/dev/null &&
        [[ $(printf '%s\n' "$1" "$have" | sort -V | head -n 1) == "$1" ]]
}

prepare_rust() {
    local wanted
    local install="curl --proto =https --tlsv1.2 -fsSL https://sh.rustup.rs |
        sh -s -- -y --profile minimal -c rustfmt -c clippy --no-modify-path"
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$kvs_root/Cargo.toml")
    if ! rust_is_new_enough "$wanted"; then
        if command -v rustup >/dev/null; then
            install="rustup toolchain install stable --profile minimal -c rustfmt -c clippy"
        fi
        if ((!prepare_install)); then
            prepare_note "Rust $wanted or newer" "$install"
            return
        fi
        prepare_say "installing Rust (stable; kvs needs $wanted or newer) with rustup"
        bash -o pipefail -c "$install" </dev/null ||
            prepare_stop "installing Rust failed; see above (no network?). Install Rust $wanted or newer, \
with rustup (https://rustup.rs) or otherwise, so that \`cargo\` is on the PATH" "$install"
        build_environment
        # an override or the user's default may still select an older one
        if ! rust_is_new_enough "$wanted"; then export RUSTUP_TOOLCHAIN=stable; fi
        rust_is_new_enough "$wanted" || prepare_stop "the Rust in use is still older than $wanted" "$install"
    fi
    prepare_say "found $(cd "$kvs_root" && rustc --version)"
    if ((prepare_gate)); then prepare_rust_components; fi
}

prepare_rust_components() {
    local missing=()
    (cd "$kvs_root" && cargo fmt --version) >/dev/null 2>&1 || missing+=(rustfmt)
    (cd "$kvs_root" && cargo clippy --version) >/dev/null 2>&1 || missing+=(clippy)
    ((${#missing[@]} > 0)) || return 0
    if ! command -v rustup >/dev/null; then
        prepare_stop "missing: ${missing[*]}; this Rust does not come from rustup: install them with \
its package manager, or use the Rust from https://rustup.rs"
    fi
    if ((!prepare_install)); then
        prepare_note "${missing[*]}" "rustup component add ${missing[*]}"
        return
    fi
    prepare_say "installing ${missing[*]}"
    (cd "$kvs_root" && rustup component add "${missing[@]}") ||
        prepare_stop "rustup component add failed; see above" "rustup component add ${missing[*]}"
}

# Prepares the machine and sets the environment, or ends the script with status 2.
prepare() {
    while (($# > 0)); do
        case $1 in
            --no-install) prepare_install=0 ;;
            --gate) prepare_gate=1 ;;
            *) prepare_stop "unknown option $1 (known: --no-install, --gate)" ;;
        esac
        shift
    done
    build_environment
    prepare_packages
    prepare_rust
    if ((prepare_gate)); then prepare_browser; fi
    if ((${#prepare_missing[@]} > 0)); then
        local list
        printf -v list '; %s' "${prepare_missing[@]}"
        prepare_stop "missing, and not installed because of --no-install: ${list#; }" \
            "${prepare_commands[@]}"
    fi
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
        -h | --help)
            sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
    esac
    prepare "$@"
    prepare_say "ready. To build by hand, set the same environment as the scripts:"
    printf '    export CARGO_TARGET_DIR=%q CC=%q CXX=%q\n' "$CARGO_TARGET_DIR" "$CC" "$CXX"
fi
