#!/usr/bin/env bash
# build.sh: compiles the contracts and writes abi/*.json. With --check it compares them with the committed ones instead.
set -euo pipefail
cd "$(dirname "$0")"
[ -d node_modules ] || npm ci --no-audit --no-fund
PATH=$PWD/node_modules/.bin:$PATH forge build --sizes src >/dev/null
mkdir -p abi
exec node tools/artifacts.cjs "$@"
