#!/usr/bin/env bash
# symbolic/run.sh: proves with halmos (`pip install halmos==0.3.3`) that the accumulators count right and that the verifier's function G is
# BLAKE3's, for every input. Not part of CI: minutes of a solver, over code that hardly changes.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
[ -d node_modules ] || npm ci --no-audit --no-fund --loglevel=error
# The program itself: npm's wrapper around it answers 0 whatever happened.
export PATH=$(echo "$PWD"/node_modules/@foundry-rs/forge-*/bin):$PATH
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r foundry.toml tools "$copy"
mkdir "$copy/src"
cp src/Epochs.sol "$copy/src"
cp -r symbolic "$copy/test"
ln -s "$here/node_modules" "$copy/node_modules"

# The kernel's functions as they stand in the verifier, within reach of a test.
{
    echo '// SPDX-License-Identifier: MIT OR Apache-2.0'
    echo 'pragma solidity 0.8.37;'
    echo 'library Kernel {'
    echo 'function g(uint256 a0, uint256 b0, uint256 c0, uint256 d0, uint256 x0, uint256 y0) internal pure'
    echo 'returns (uint256 a1, uint256 b1, uint256 c1, uint256 d1) { assembly ("memory-safe") {'
    sed -n '/function mask()/,/^            }/p; /function mix(/,/^            }/p' src/Blake3Paths.sol
    echo 'a1, b1, c1, d1 := mix(a0, b0, c0, d0, x0, y0) } } }'
} >"$copy/test/Kernel.sol"

cd "$copy"
forge build --ast >build.log 2>&1 || { cat build.log >&2; exit 1; }
halmos --match-contract 'Symbolic$' --loop 256 --solver-timeout-assertion "${TIMEOUT:-600s}" "$@" 2>&1 | tee halmos.log | grep -aE '\[(PASS|FAIL|TIMEOUT|ERROR)\]|^Symbolic test'
# Every check that is written down ran and holds.
[ "$(grep -ac '\[PASS\]' halmos.log)" -eq "$(cat test/*.sym.sol | grep -c 'function check_')" ]
