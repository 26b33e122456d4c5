#!/usr/bin/env bash
# Holds `stack config` against the suite of facts beside the repository, if it is there. Fewer passes than the floor fail.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${FACTS:-../shared/compose-facts}
if [ ! -x "$suite/run.sh" ]; then
    echo "skipped: no suite of facts at $suite"
    exit 0
fi
"$suite/run.sh" "${STACK:?the binary}" --show 0 --floor tests/floors/facts.json "$@"
