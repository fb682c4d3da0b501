#!/bin/sh
# Regenerates the ISA-L vectors and compares them with the committed ones; needs a C compiler and libisal-dev.
# Exits 0 when they are the same, 1 when they differ or ISA-L cannot decode what it encoded. `check.sh --write`
# replaces the committed file instead.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
committed="$here/../../../testdata/erasure/isal-vectors.txt"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${CC:-cc}" -std=c11 -O2 -Wall -Wextra -Werror -o "$work/vectors" "$here/vectors.c" -lisal
"$work/vectors" > "$work/isal-vectors.txt"

if [ "${1:-}" = "--write" ]; then
    mkdir -p "$(dirname "$committed")"
    cp "$work/isal-vectors.txt" "$committed"
elif ! diff -u "$committed" "$work/isal-vectors.txt"; then
    echo "the committed vectors are not what ISA-L computes" >&2
    exit 1
fi
