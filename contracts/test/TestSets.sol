// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {FragmentSets} from "../src/FragmentSets.sol";
import {IChunkPaths} from "../src/interfaces/IChunkPaths.sol";

/// @notice Chunk paths that cost nothing: the chunk of a test's fragment is its name and its own number. Everything about money and time is
///         tested with these, everything about BLAKE3 with the real ones.
contract CheapPaths is IChunkPaths {
    function root(bytes calldata chunk, uint64 index, uint64 length, bytes32[] calldata siblings)
        external
        pure
        returns (bytes32)
    {
        if (siblings.length != 0) revert PathLength(0, siblings.length);
        if (chunk.length != 64) revert ChunkLength(64, chunk.length);
        (bytes32 name, uint256 number) = abi.decode(chunk, (bytes32, uint256));
        return number == index ? TestSets.id(name, length) : bytes32(0);
    }
}

/// @title A client's side of FragmentSets: roots and paths from leaves, built the plain way.
library TestSets {
    struct Leaf {
        bytes32 id;
        uint64 length;
        uint32 retainUntil;
    }

    function id(bytes32 name, uint64 length) internal pure returns (bytes32) {
        return keccak256(abi.encode("test fragment", name, length));
    }

    function sizeOf(Leaf[] memory leaves) internal pure returns (uint64 total) {
        for (uint256 n = 0; n < leaves.length; ++n) {
            total += leaves[n].length;
        }
    }

    function rootOf(Leaf[] memory leaves) internal pure returns (bytes32 root) {
        (root,,,) = build(leaves, 0);
    }

    /// The root, the path to the fragment that holds a byte, that byte's offset in it, and the number of its leaf.
    function build(Leaf[] memory leaves, uint64 offset)
        internal
        pure
        returns (bytes32 root, FragmentSets.Path memory path, uint64 inside, uint256 number)
    {
        inside = offset;
        while (inside >= leaves[number].length) inside -= leaves[number++].length;
        path.fragment = leaves[number].id;
        path.length = leaves[number].length;
        path.retainUntil = leaves[number].retainUntil;

        uint256 count = leaves.length;
        bytes32[] memory hashes = new bytes32[](count);
        uint64[] memory sums = new uint64[](count);
        for (uint256 n = 0; n < count; ++n) {
            hashes[n] = keccak256(abi.encode(FragmentSets.LEAF, leaves[n].id, leaves[n].length, leaves[n].retainUntil));
            sums[n] = leaves[n].length;
        }
        bytes32[] memory beside = new bytes32[](40);
        uint64[] memory besideSums = new uint64[](40);
        uint256 levels = 0;
        uint256 spot = number;
        while (count > 1) {
            if (spot ^ 1 < count) {
                beside[levels] = hashes[spot ^ 1];
                besideSums[levels] = sums[spot ^ 1];
                if (spot & 1 == 1) path.turns |= uint64(1 << levels);
                ++levels;
            }
            for (uint256 n = 0; n < count / 2; ++n) {
                hashes[n] = keccak256(
                    abi.encode(FragmentSets.NODE, hashes[2 * n], sums[2 * n], hashes[2 * n + 1], sums[2 * n + 1])
                );
                sums[n] = sums[2 * n] + sums[2 * n + 1];
            }
            if (count & 1 == 1) {
                hashes[count / 2] = hashes[count - 1];
                sums[count / 2] = sums[count - 1];
            }
            count = (count + 1) / 2;
            spot /= 2;
        }
        root = keccak256(abi.encode(FragmentSets.ROOT, hashes[0], sums[0]));
        path.hashes = new bytes32[](levels);
        path.sums = new uint64[](levels);
        for (uint256 n = 0; n < levels; ++n) {
            (path.hashes[n], path.sums[n]) = (beside[n], besideSums[n]);
        }
    }
}
