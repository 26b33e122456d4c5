#!/usr/bin/env bash
# All checks, one section each, and a summary. Ends with 1 if a section failed.
set -uo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
tools=${STACK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/stack-tools}
export STACK=$target/$host/release/stack PATH=$tools/bin:$PATH
summary=()
failed=0

section() {
    local name=$1 begin=$SECONDS
    shift
    printf '\n\033[1m══ %s\033[0m\n' "$name"
    if "$@"; then
        summary+=("ok      $name ($((SECONDS - begin)) s)")
    else
        summary+=("FAILED  $name ($((SECONDS - begin)) s)")
        failed=1
    fi
}

# Debian packages by name, installed only if one is missing.
tools() {
    local missing=() package
    for package in apache2-utils binutils busybox-static curl docker-registry docker.io iproute2 iptables jq make mmdebstrap nftables nginx-light nodejs openssh-client openssl postgresql procps python3 redis-server skopeo zstd; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" || return
    fi
    if ! command -v cargo-deny >/dev/null; then
        CARGO_TARGET_DIR=$tools/target cargo install --quiet cargo-deny --locked --root "$tools" || return
        rm -rf "$tools/target"
    fi
    cargo --version && cargo-deny --version && busybox | sed -n 1p
}

licences() {
    cargo deny --log-level error --locked check bans licenses sources || return
    local log
    if log=$(cargo deny --log-level error --locked check advisories 2>&1); then
        echo "$log"
    elif grep -qE 'failed to (fetch|clone|open)|unable to fetch|advisory database' <<<"$log"; then
        echo 'advisories: not checked, the database could not be reached'
    else
        echo "$log"
        return 1
    fi
}

section 'tools' tools
section 'formatting' cargo fmt --check
section 'clippy' cargo clippy --locked --all-targets -- -D warnings
section 'licences, bans, sources' licences
section 'release build' cargo build --locked --release
section 'unit and integration tests' cargo test --locked --no-fail-fast
section 'stack files: facts of the Compose Specification' tests/facts.sh
section 'hostile layers' tests/layers.sh
section 'behaviour of docker compose' tests/behaviour.sh

printf '\n\033[1m══ summary\033[0m\n'
printf '%s\n' "${summary[@]}"
exit $failed
