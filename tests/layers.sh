#!/usr/bin/env bash
# Hostile layers of ../shared/attacks through the optimised program ($STACK): all of them, within the time they are given.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${ATTACKS:-../shared/attacks}
if [ ! -d "$suite" ]; then
    echo "NOT RUN: $suite is missing"
    exit 0
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 "$suite/gen_tars.py" "$place/tars" --canary "$place/canary" >/dev/null
export CANARY=$place/canary STACK_ROOT=$place/root
python3 "$suite/oracle.py" "$place/tars" -q -- "$(realpath "$STACK")" image unpack '{tar}' '{root}' | tee "$place/judged"
grep -qE '^(9[7-9]|[0-9]{3,}) passed, 0 failed$' "$place/judged"
