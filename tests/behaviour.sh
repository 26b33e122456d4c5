#!/usr/bin/env bash
# Runs the behaviour suite beside the repository, if it is there, in namespaces and under a root of its own.
# By default those cases of which tests/floors/behaviour.txt says that they pass; with --all every one.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$(realpath -m "${BEHAVIOUR:-../shared/behaviour}")
if [ ! -x "$suite/run.sh" ]; then
    echo "skipped: no behaviour suite at $suite"
    exit 0
fi
cases=()
if [ "${1:-}" = --all ]; then
    shift
else
    while read -r name; do cases+=(--only "$name"); done < <(grep -v '^#' tests/floors/behaviour.txt)
fi

STACK=$(realpath "${STACK:?the binary}")
root=$(mktemp -d "${TMPDIR:-/tmp}/behaviour-root.XXXXXX")
export STACK STACK_ROOT=$root
tidy() {
    local name
    for name in $("$STACK" ls -aq 2>/dev/null); do "$STACK" -p "$name" down -v --remove-orphans -t 0 >/dev/null 2>&1 || true; done
    rm -rf "$root"
}
trap tidy EXIT
unshare --net --mount --propagation private bash -euc '
    ip link set lo up
    mkdir "$STACK_ROOT/bin" && ln -s "$STACK" "$STACK_ROOT/bin/stack"
    export PATH="$STACK_ROOT/bin:$PATH"
    suite=$1; shift
    "$suite/prepare.sh" stack >/dev/null
    exec "$suite/run.sh" --cmd stack "$@"
' bash "$suite" ${cases[@]+"${cases[@]}"} --jobs 2 "$@"
