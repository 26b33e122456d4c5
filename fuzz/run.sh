#!/usr/bin/env bash
# Runs every fuzz target (or those named) for FUZZ_SECONDS each, 60 if unset. What breaks one is kept in artifacts/.
# The flags are those of cargo-fuzz without a sanitizer: the library has no unsafe code outside of `sys`.
set -euo pipefail
cd "$(dirname "$0")"
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/fuzz
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --release --target "$host" --target-dir "$target" --bins
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    names=(stack_file dotenv interpolation ports volumes units)
fi
for name in "${names[@]}"; do
    mkdir -p "corpus/$name" "artifacts/$name"
    if [ "$name" = stack_file ]; then
        find ../examples -name '*.yaml' -exec cp {} "corpus/$name/" \;
    fi
    printf '\n══ %s\n' "$name"
    "$target/$host/release/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" -rss_limit_mb=512 -timeout=5 \
        -max_total_time="${FUZZ_SECONDS:-60}" -print_final_stats=1
done
