#!/usr/bin/env bash
# Seedbank beside what people use: the same trees are pushed, pushed again after a change, and pulled with Seedbank
# (8 providers, any 4 of 8 fragments, fsync on), with restic to a local repository and with rclone and its crypt to a
# local folder. Rounds alternate between the three; every restored tree is compared with what was pushed.
#
# Needs: restic and rclone (Debian: apt-get install restic rclone), python3, a release build, and about 16 GiB below
# TMPDIR. Run it on an idle machine.
#
#   bench/compare.sh [RESULTS.md]          prints a Markdown table; with a file, rewrites its block between the markers
#                                          <!-- compare --> and <!-- /compare -->, or makes the file
#   ROUNDS=5 LARGE_MIB=1024 SMALL_FILES=20000 bench/compare.sh
#   TOOLS="seedbank restic" TREES="large small" bench/compare.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seedbank=${SEEDBANK:-$root/target/release/seedbank}
export ROUNDS=${ROUNDS:-5} LARGE_MIB=${LARGE_MIB:-1024} SMALL_FILES=${SMALL_FILES:-20000}
export TOOLS=${TOOLS:-seedbank restic rclone} TREES=${TREES:-large small mixed}

for needed in python3 $TOOLS; do
    [ "$needed" = seedbank ] && needed=$seedbank
    command -v "$needed" >/dev/null || { echo "compare.sh: $needed is missing" >&2; exit 1; }
done

work=$(mktemp -d "${TMPDIR:-/tmp}/seedbank-compare-XXXXXX")
export WORK=$work SEEDBANK=$seedbank
worker=
clean() {
    # It stops its round's network itself.
    if [ -n "$worker" ] && kill -TERM "$worker" 2>/dev/null; then wait "$worker" || true; fi
    # The network of a round that was cut short.
    if [ -d "$work/round/seedbank-home" ]; then
        "$seedbank" --home "$work/round/seedbank-home" --quiet down >/dev/null 2>&1 || true
    fi
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

python3 "$root/bench/compare.py" >"$work/table.md" &
worker=$!
wait "$worker"
worker=
if [ $# -ge 1 ]; then
    python3 - "$1" "$work/table.md" <<'PYTHON'
import pathlib, sys
path, table = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text()
begin, end = "<!-- compare -->", "<!-- /compare -->"
block = f"{begin}\n{table}{end}"
text = path.read_text() if path.exists() else block + "\n"
if begin not in text or end not in text:
    sys.exit(f"compare.sh: {path} has no block between {begin} and {end}")
path.write_text(text[: text.index(begin)] + block + text[text.index(end) + len(end):])
PYTHON
else
    cat "$work/table.md"
fi
