#!/usr/bin/env bash
# Every benchmark in order, on an idle machine: about 20 minutes and 30 GiB below TMPDIR. Raw output goes to
# bench/results/, one file for each part; docs/benchmarks.md is filled from these.
#
#   bench/all.sh                 everything
#   bench/all.sh local memory    only these
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seedbank=${SEEDBANK:-$root/target/release/seedbank}
results=${RESULTS:-$root/bench/results}
mkdir -p "$results"
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(stages transport local memory metadata network payments compare)

if [ -z "${SEEDBANK:-}" ]; then
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
fi

# What a result has to be read with.
{
    date --utc --iso-8601=seconds
    git -C "$root" log -1 --format='%H %s' 2>/dev/null || true
    uname -sr
    lscpu | grep -E '^(Model name|CPU\(s\)|L[123])' || true
    free -h | head -2
    df -hT "${TMPDIR:-/tmp}" | tail -1
    echo "load $(cut -d' ' -f1-3 /proc/loadavg)"
} >"$results/machine.txt"

# measure NAME ARGS...: one run, as people read it.
measure() {
    local name=$1
    shift
    echo "== $name: seedbank bench $*" >&2
    {
        echo "\$ seedbank bench $*"
        echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
        "$seedbank" --quiet bench "$@"
    } >"$results/$name.txt"
}

for part in "${parts[@]}"; do
    case $part in
        stages) measure stages stages ;;
        transport) measure transport transport --size 1GiB ;;
        local) measure local local ;;
        memory) measure memory memory ;;
        metadata) measure metadata metadata ;;
        payments) measure payments payments ;;
        network)
            home=$(mktemp -d "${TMPDIR:-/tmp}/seedbank-all-XXXXXX")
            "$seedbank" --home "$home" --quiet up --detach >/dev/null
            measure network --home "$home" network || failed=$?
            "$seedbank" --home "$home" --quiet down >/dev/null
            rm -rf "$home"
            [ -z "${failed:-}" ] || exit "$failed"
            ;;
        compare) SEEDBANK=$seedbank "$root/bench/compare.sh" "$results/compare.md" ;;
        *)
            echo "all.sh: there is no part called $part" >&2
            exit 2
            ;;
    esac
done
echo "results are in $results" >&2
