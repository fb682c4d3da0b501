// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title The fragments that a provider holds for one client, as one root.
/// @notice A Merkle tree that also adds up bytes: leaves are {fragment id, length, retainUntil}, sorted strictly by id, so a byte offset
///         belongs to exactly one fragment, and its path shows which. A node without a partner moves up as it is. The root commits to the total.
library FragmentSets {
    /// The leaf and its siblings don't lead to the root.
    error WrongSetPath();
    /// The offset lies outside the fragment that was shown.
    error WrongFragment();
    /// A path has one sum for each hash and no turn above them, and at most 40 levels: sets have at most 2^40 fragments.
    error SetPathLength();

    /// @notice One fragment of a set and its way to the root.
    struct Path {
        /// The fragment's id: the BLAKE3 hash of its bytes.
        bytes32 fragment;
        /// Its length in bytes.
        uint64 length;
        /// The epoch up to which client and provider agreed to keep it, or 0.
        uint32 retainUntil;
        /// Bit i is set if at level i, counted from the leaf, the path is the right child.
        uint64 turns;
        /// Hashes beside the path, from the leaf up.
        bytes32[] hashes;
        /// Bytes below each of them.
        uint64[] sums;
    }

    bytes32 internal constant LEAF = keccak256("seedbank set leaf 1");
    bytes32 internal constant NODE = keccak256("seedbank set node 1");
    bytes32 internal constant ROOT = keccak256("seedbank set root 1");

    /// @notice Reverts unless the path's fragment holds byte `offset` of the set of `total` bytes with that root.
    /// @return inside The byte's offset in the fragment.
    function locate(Path calldata path, bytes32 root, uint64 total, uint64 offset)
        internal
        pure
        returns (uint64 inside)
    {
        uint256 levels = path.hashes.length;
        if (levels != path.sums.length || levels > 40 || path.turns >> levels != 0) revert SetPathLength();
        bytes32 hash = keccak256(abi.encode(LEAF, path.fragment, path.length, path.retainUntil));
        // Checked arithmetic: sums that pass 2^64 are no path.
        uint64 sum = path.length;
        uint64 before = 0;
        for (uint256 level = 0; level < levels; ++level) {
            if (path.turns >> level & 1 == 1) {
                hash = keccak256(abi.encode(NODE, path.hashes[level], path.sums[level], hash, sum));
                before += path.sums[level];
            } else {
                hash = keccak256(abi.encode(NODE, hash, sum, path.hashes[level], path.sums[level]));
            }
            sum += path.sums[level];
        }
        if (sum != total || keccak256(abi.encode(ROOT, hash, sum)) != root) revert WrongSetPath();
        if (offset < before || offset - before >= path.length) revert WrongFragment();
        return offset - before;
    }
}
