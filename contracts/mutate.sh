#!/usr/bin/env bash
# mutate.sh [NAME...]: applies each patch of test/mutations to a copy of the contracts and wants the tests to fail. The first line of a patch names
# the tests that are asked: "tests: GLOB" for forge's --match-path. A mutant that compiles and survives fails the run.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
[ -d node_modules ] || npm ci --no-audit --no-fund --loglevel=error
# The program itself: npm's wrapper around it answers 0 whatever happened.
export PATH=$(echo "$PWD"/node_modules/@foundry-rs/forge-*/bin):$PATH
# Tests load the contracts instead of containing them, so that a mutant alone is compiled.
export FOUNDRY_DYNAMIC_TEST_LINKING=true
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r foundry.toml tools src test "$copy"
ln -s "$here/node_modules" "$copy/node_modules"

if [ $# -gt 0 ]; then patches=("${@/#/test/mutations/}"); patches=("${patches[@]/%/.patch}"); else patches=(test/mutations/*.patch); fi
# Tests that fail without any patch would "notice" every one.
declare -A pass
unpatched() {
    rm -rf "$copy/src"
    cp -r src "$copy/src"
    (cd "$copy" && forge test --match-path "$1" >log 2>&1) || { cat "$copy/log" >&2; echo "$1 fails on its own" >&2; exit 2; }
    grep -q 'PASS' "$copy/log" || { echo "$1 matches no test" >&2; exit 2; }
}
killed=0
survivors=()
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    tests=$(sed -n '1s/^tests: //p' "$patch")
    [ -n "$tests" ] || { echo "$name names no tests" >&2; exit 2; }
    if [ -z "${pass[$tests]:-}" ]; then
        unpatched "$tests"
        pass[$tests]=yes
    fi
    rm -rf "$copy/src"
    cp -r src "$copy/src"
    patch --quiet --directory="$copy" --strip=1 <"$patch"
    log=$copy/log
    # One that makes a loop endless says nothing either way: write another.
    if (cd "$copy" && timeout 1800 forge test --match-path "$tests" >log 2>&1); then
        survivors+=("$name")
        echo "survived  $name"
    elif grep -q 'Compiler run failed' "$log" || ! grep -q 'FAIL' "$log"; then
        # A mutant that is no contract proves nothing.
        cat "$log" >&2
        echo "$name does not compile, or its tests did not run" >&2
        exit 2
    else
        killed=$((killed + 1))
        by=$(grep -E '^\[FAIL|^ invariant_' "$log" | grep -oE '(test(Fuzz)?|invariant)_[A-Za-z0-9_]+' | sort -u | head -n 2 | paste -sd' ' || true)
        echo "killed    $name  by $by"
    fi
done
echo "$killed killed, ${#survivors[@]} survived"
[ ${#survivors[@]} -eq 0 ]
