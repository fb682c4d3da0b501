#!/usr/bin/env bash
# run.sh: alloy's own client, unchanged, against the embedded chain and, where `npm ci` in contracts brought it, against anvil under the same rules.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --locked
cargo build --locked --manifest-path interop/Cargo.toml
client=interop/target/debug/seedbank-interop
folder=$(mktemp -d)
node=
trap '[ -z "$node" ] || kill "$node"; rm -rf "$folder"' EXIT

# Waits until a node says where it serves.
address() {
    until [[ $(<"$folder/said") =~ 127\.0\.0\.1:[0-9]+ ]]; do
        kill -0 "$node" || { cat "$folder/errors" >&2; return 1; }
        sleep 0.1
    done
    echo "${BASH_REMATCH[0]}"
}

against() {
    local name=$1
    shift
    "$@" >"$folder/said" 2>"$folder/errors" &
    node=$!
    echo "$name"
    "$client" "http://$(address)"
    kill "$node"
    wait "$node" || true
    node=
}

against 'embedded chain' "${CARGO_TARGET_DIR:-target}/debug/seedbank" --home "$folder/home" chain run --listen 127.0.0.1:0 --json
anvil=$(echo contracts/node_modules/@foundry-rs/anvil-*/bin/anvil)
[ ! -x "$anvil" ] || against 'anvil --hardfork berlin' "$anvil" --hardfork berlin --port 0 --accounts 1
