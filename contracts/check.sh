#!/usr/bin/env bash
# check.sh: what a change of the contracts must pass. The long runs beside it: mutate.sh, symbolic.sh, slither (see slither.md).
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --loglevel=error
export PATH=$PWD/node_modules/.bin:$PATH
# First, for it compiles the contracts alone: what they compile to must not hang on the tests beside them.
./build.sh --check
forge fmt --check
forge test
