#!/usr/bin/env bash
# Fuzzes the targets of crates/fuzzing by coverage, two at a time, each for some seconds:
#
#     fuzz/run.sh [SECONDS] [TARGET...]       10 seconds and all targets, if nothing else is said
#     SEEDBANK_SEED=N fuzz/run.sh ...         another order of inputs; the same for every change if nothing is said
#     fuzz/run.sh keep [TARGET...]            adds what earlier runs found to fuzz/corpus, as few files as will do
#
# A stable toolchain and a C++ compiler are all that is needed. What was found lies in fuzz/found/TARGET; an input that
# fails lies in fuzz/failed, and is run again with `SEEDBANK_FUZZ_TARGET=TARGET PROGRAM FILE`.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

mode=${1:-10}
[ $# -eq 0 ] || shift
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(ls corpus)
fi

# Coverage and comparisons of everything that is Rust, as libFuzzer wants them; on stable, because no sanitizer is asked
# for: our own code has no unsafe parts in what runs here. Naming the target keeps the flags off build scripts.
export RUSTFLAGS='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares'
export CARGO_TARGET_DIR="${SEEDBANK_FUZZ_TARGET_DIR:-$PWD/target}"
host=$(rustc -vV | sed --quiet 's/^host: //p')
cargo build --release --locked --target "$host"
program="$CARGO_TARGET_DIR/$host/release/seedbank-fuzz"

run() {
    local target=$1 log
    mkdir -p "found/$target" failed
    log=$(mktemp)
    # The kept inputs come second: they are read, and new ones go to the first folder.
    if SEEDBANK_FUZZ_TARGET=$target "$program" -seed="${SEEDBANK_SEED:-1}" -max_total_time="$mode" \
        -max_len=4096 -rss_limit_mb=512 -timeout=10 -artifact_prefix="failed/$target-" -print_final_stats=1 \
        "found/$target" "corpus/$target" >"$log" 2>&1; then
        printf '%-16s %12s executions, %s new inputs\n' "$target" \
            "$(sed --quiet 's/^stat::number_of_executed_units: *//p' "$log")" \
            "$(sed --quiet 's/^stat::new_units_added: *//p' "$log")"
        rm "$log"
    else
        echo "$target FAILED:"
        tail --lines=60 "$log"
        return 1
    fi
}

keep() {
    local target=$1 kept
    kept=$(mktemp --directory)
    mkdir -p "found/$target" failed
    SEEDBANK_FUZZ_TARGET=$target "$program" -set_cover_merge=1 -use_counters=0 -max_len=2048 \
        -artifact_prefix="failed/$target-" "$kept" "corpus/$target" "found/$target" 2>/dev/null
    if compgen -G "failed/$target-*" >/dev/null; then
        echo "$target: some inputs fail; see failed"
        return 1
    fi
    # Inputs with a name of their own stay: seeds, and what once failed. The others are named by their hash.
    find "corpus/$target" -type f -regextype posix-extended ! -regex '.*/[0-9a-f]{40}' -exec cp {} "$kept" ';'
    rm -r "corpus/$target" "found/$target"
    mv "$kept" "corpus/$target"
    chmod 755 "corpus/$target"
    printf '%-16s %6d inputs\n' "$target" "$(find "corpus/$target" -type f | wc --lines)"
}

if [ "$mode" = keep ]; then
    for target in "${targets[@]}"; do keep "$target"; done
    exit
fi
failed=0
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc --lines)" -ge 2 ]; do wait -n || failed=1; done
    run "$target" &
done
while [ -n "$(jobs -rp)" ]; do wait -n || failed=1; done
exit "$failed"
