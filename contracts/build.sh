#!/usr/bin/env bash
# build.sh: compiles the contracts and writes abi/*.json. With --check it compares them with the committed ones instead.
set -euo pipefail
cd "$(dirname "$0")"
[ -d node_modules ] || npm ci --no-audit --no-fund
# The program itself: npm's wrapper around it answers 0 whatever happened.
export PATH=$(echo "$PWD"/node_modules/@foundry-rs/forge-*/bin):$PATH
forge build --sizes src >/dev/null
mkdir -p abi
exec node tools/artifacts.cjs "$@"
