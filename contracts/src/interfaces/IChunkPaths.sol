// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title What a fragment's id is, as far as a possession proof is concerned.
/// @notice A market checks possession through this one function, so that a set on a dear chain may use another hash.
interface IChunkPaths {
    /// The fragment has no bytes or more than a fragment may have.
    error FragmentLength(uint64 length);
    /// The fragment has no chunk of that number.
    error ChunkIndex(uint64 index, uint64 length);
    /// The chunk must have exactly the bytes that it has in the fragment: 1,024, or what is left for the last one.
    error ChunkLength(uint256 expected, uint256 actual);
    /// The path must have exactly one sibling for each level between the chunk and the root.
    error PathLength(uint256 expected, uint256 actual);

    /// @notice The id of the only fragment of `length` bytes whose chunk `index` is `chunk` beside these siblings.
    /// @dev `index` and `length` decide about the tree's shape, so they must come from something committed, never from
    ///      the prover: a path binds the length only through the shape and the last chunk.
    /// @param chunk The bytes [1024 * index, min(1024 * (index + 1), length)) of the fragment.
    /// @param index Number of the chunk, from 0.
    /// @param length Bytes of the whole fragment, 1 to 2^40 - 1.
    /// @param siblings Chaining values beside the path, from the chunk's sibling up to the root's child.
    /// @return The fragment's id if all of it is true, else some other value.
    function root(bytes calldata chunk, uint64 index, uint64 length, bytes32[] calldata siblings)
        external
        view
        returns (bytes32);
}
