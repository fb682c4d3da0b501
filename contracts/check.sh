#!/usr/bin/env bash
# check.sh: what a change of the contracts must pass. The long runs beside it: mutate.sh, symbolic/run.sh, slither (see slither.md).
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --loglevel=error
# The program itself: npm's wrapper around it answers 0 whatever happened.
export PATH=$(echo "$PWD"/node_modules/@foundry-rs/forge-*/bin):$PATH
# First, for it compiles the contracts alone: what they compile to must not hang on the tests beside them.
./build.sh --check
forge fmt --check
# Tests load the contracts instead of containing them: else each is compiled once more for every test that makes it.
FOUNDRY_DYNAMIC_TEST_LINKING=true forge test
