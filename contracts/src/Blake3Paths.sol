// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IChunkPaths} from "./interfaces/IChunkPaths.sol";

/// @title BLAKE3 over one path of its own chunk tree.
/// @notice Recomputes a fragment's id, the plain BLAKE3 hash of its bytes, from one 1 KiB chunk and the chaining values beside
///         its path. Source of the algorithm: the BLAKE3 paper, sections 2.1 to 2.5 (compression, chunks, tree).
/// @dev No storage, no owner, no call. One path at a time: the form that can be read. How it is laid out:
///      - The 16 state words are four *rows* of four 32-bit words, one row in a 256-bit word, word j of a row in bits 64j to 64j+31.
///        So one addition, XOR or rotation serves four words, and the free bits above each word take what carries over.
///      - A rotation to the right by r: `x * (2^32 + 1)` writes each word twice side by side, a shift by r brings the wanted
///        32 bits down, a mask drops the rest.
///      - The 16 message words stand in memory from 0x80 on, each in 32 bytes of its own with zeros before it. A load that
///        begins 8j bytes after such a word's slot has that word in lane j and zeros elsewhere, so a row is four loads and
///        three ORs.
contract Blake3Paths is IChunkPaths {
    /// @inheritdoc IChunkPaths
    function root(bytes calldata chunk, uint64 index, uint64 length, bytes32[] calldata siblings)
        external
        pure
        returns (bytes32)
    {
        if (length == 0 || length >= 1 << 40) revert FragmentLength(length);
        uint256 chunks = (uint256(length) + 1023) >> 10;
        if (index >= chunks) revert ChunkIndex(index, length);
        uint256 chunkLength = index + 1 < chunks ? 1024 : uint256(length) - ((chunks - 1) << 10);
        if (chunk.length != chunkLength) revert ChunkLength(chunkLength, chunk.length);
        (uint256 depth, uint256 turns) = path(index, chunks);
        if (siblings.length != depth) revert PathLength(depth, siblings.length);

        // Nothing of Solidity's runs after this block, so all memory from 0x80 on is free. It must not be called memory-safe: then the
        // compiler may keep variables of its own there when the stack is full. Without, it refuses to compile in that case.
        assembly {
            // Bits of the four words of a row.
            function mask() -> m {
                m := 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff
            }
            // The first four words of the initialisation vector, as a row.
            function iv() -> i {
                i := 0x00000000a54ff53a000000003c6ef37200000000bb67ae85000000006a09e667
            }
            // Four message words as a row. The addresses have their lane's shift in them.
            function row(p, q, r, s) -> m {
                m := or(or(mload(p), mload(q)), or(mload(r), mload(s)))
            }
            // The function G of the paper, on four columns (or diagonals) at once.
            function mix(a, b, c, d, x, y) -> a_, b_, c_, d_ {
                a_ := and(add(add(a, b), x), mask())
                d_ := and(shr(16, mul(xor(d, a_), 0x100000001)), mask())
                c_ := and(add(c, d_), mask())
                b_ := and(shr(12, mul(xor(b, c_), 0x100000001)), mask())
                a_ := and(add(add(a_, b_), y), mask())
                d_ := and(shr(8, mul(xor(d_, a_), 0x100000001)), mask())
                c_ := and(add(c_, d_), mask())
                b_ := and(shr(7, mul(xor(b_, c_), 0x100000001)), mask())
            }
            // Each row turned by its number, so that diagonals stand as columns; and back.
            function diagonal(b, c, d) -> b_, c_, d_ {
                b_ := or(shr(64, b), shl(192, b))
                c_ := or(shr(128, c), shl(128, c))
                d_ := or(shr(192, d), shl(64, d))
            }
            // Seven rounds over the message in memory. `a` and `b` are the chaining value, `d` is counter, length and flags.
            function compress(a0, b0, d0) -> a, b {
                let c := iv()
                let d := d0
                a := a0
                b := b0
                a, b, c, d := mix(a, b, c, d, row(0x080, 0x0c8, 0x110, 0x158), row(0x0a0, 0x0e8, 0x130, 0x178))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x180, 0x1c8, 0x210, 0x258), row(0x1a0, 0x1e8, 0x230, 0x278))
                d, c, b := diagonal(d, c, b)
                a, b, c, d := mix(a, b, c, d, row(0x0c0, 0x0e8, 0x170, 0x118), row(0x140, 0x1c8, 0x090, 0x238))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x0a0, 0x208, 0x1b0, 0x278), row(0x1e0, 0x128, 0x250, 0x198))
                d, c, b := diagonal(d, c, b)
                a, b, c, d := mix(a, b, c, d, row(0x0e0, 0x1c8, 0x230, 0x178), row(0x100, 0x208, 0x0d0, 0x258))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x140, 0x1a8, 0x1f0, 0x198), row(0x120, 0x088, 0x270, 0x0b8))
                d, c, b := diagonal(d, c, b)
                a, b, c, d := mix(a, b, c, d, row(0x1c0, 0x208, 0x250, 0x238), row(0x160, 0x1a8, 0x0f0, 0x278))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x100, 0x1e8, 0x130, 0x0b8), row(0x080, 0x0c8, 0x190, 0x158))
                d, c, b := diagonal(d, c, b)
                a, b, c, d := mix(a, b, c, d, row(0x200, 0x1a8, 0x270, 0x258), row(0x220, 0x1e8, 0x1d0, 0x198))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x160, 0x128, 0x090, 0x158), row(0x0c0, 0x0e8, 0x0b0, 0x118))
                d, c, b := diagonal(d, c, b)
                a, b, c, d := mix(a, b, c, d, row(0x1a0, 0x1e8, 0x190, 0x278), row(0x240, 0x128, 0x210, 0x0b8))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x220, 0x088, 0x0d0, 0x118), row(0x0e0, 0x1c8, 0x150, 0x178))
                d, c, b := diagonal(d, c, b)
                a, b, c, d := mix(a, b, c, d, row(0x1e0, 0x128, 0x0b0, 0x198), row(0x260, 0x088, 0x1b0, 0x158))
                b, c, d := diagonal(b, c, d)
                a, b, c, d := mix(a, b, c, d, row(0x240, 0x0c8, 0x0f0, 0x178), row(0x1c0, 0x208, 0x110, 0x238))
                d, c, b := diagonal(d, c, b)
                a := xor(a, c)
                b := xor(b, d)
            }
            // Bytes swapped inside each of eight words: neighbours first, then halves.
            function swapped(w_) -> w {
                w := or(
                    shl(8, and(w_, 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff)),
                    and(shr(8, w_), 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff)
                )
                w := or(
                    shl(16, and(w, 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff)),
                    and(shr(16, w), 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff)
                )
            }
            // Eight little-endian words, given as 32 bytes, to memory from `to` on.
            function spread(to, bytes_) {
                let w := swapped(bytes_)
                mstore(to, shr(224, w))
                mstore(add(to, 0x20), and(shr(192, w), 0xffffffff))
                mstore(add(to, 0x40), and(shr(160, w), 0xffffffff))
                mstore(add(to, 0x60), and(shr(128, w), 0xffffffff))
                mstore(add(to, 0x80), and(shr(96, w), 0xffffffff))
                mstore(add(to, 0xa0), and(shr(64, w), 0xffffffff))
                mstore(add(to, 0xc0), and(shr(32, w), 0xffffffff))
                mstore(add(to, 0xe0), and(w, 0xffffffff))
            }
            // Two rows, as the eight message words that a parent has of this child, to memory from `to` on.
            function place(to, a, b) {
                mstore(to, and(a, 0xffffffff))
                mstore(add(to, 0x20), and(shr(64, a), 0xffffffff))
                mstore(add(to, 0x40), and(shr(128, a), 0xffffffff))
                mstore(add(to, 0x60), shr(192, a))
                mstore(add(to, 0x80), and(b, 0xffffffff))
                mstore(add(to, 0xa0), and(shr(64, b), 0xffffffff))
                mstore(add(to, 0xc0), and(shr(128, b), 0xffffffff))
                mstore(add(to, 0xe0), shr(192, b))
            }

            // What a load of the last message words reads behind them.
            mstore(0x280, 0)

            // The chunk. A chunk that is the whole fragment is the root as well.
            let rootFlag := shl(3, iszero(depth))
            let a := iv()
            let b := 0x000000005be0cd19000000001f83d9ab000000009b05688c00000000510e527f
            let counter := or(and(index, 0xffffffff), shl(64, shr(32, index)))
            {
                let from := chunk.offset
                let flags := 1 // CHUNK_START
                for { let left := chunkLength } gt(left, 64) { left := sub(left, 64) } {
                    spread(0x80, calldataload(from))
                    spread(0x180, calldataload(add(from, 0x20)))
                    a, b := compress(a, b, or(counter, or(shl(128, 64), shl(192, flags))))
                    flags := 0
                    from := add(from, 64)
                }
                // The last block, 1 to 64 bytes, padded with zeros: what stands behind it in the calldata isn't the chunk's.
                let size := sub(chunkLength, sub(from, chunk.offset))
                let first := calldataload(from)
                let second := calldataload(add(from, 0x20))
                switch gt(size, 32)
                case 1 { second := and(second, not(shr(shl(3, sub(size, 32)), not(0)))) }
                default {
                    first := and(first, not(shr(shl(3, size), not(0))))
                    second := 0
                }
                spread(0x80, first)
                spread(0x180, second)
                flags := or(flags, or(2, rootFlag)) // CHUNK_END
                a, b := compress(a, b, or(counter, or(shl(128, size), shl(192, flags))))
            }

            // The parents, up to the root. Bit i of `turns` tells whether the path comes from the right at level i.
            let sibling := siblings.offset
            for { let level := 0 } lt(level, depth) { level := add(level, 1) } {
                switch and(shr(level, turns), 1)
                case 1 {
                    spread(0x80, calldataload(sibling))
                    place(0x180, a, b)
                }
                default {
                    place(0x80, a, b)
                    spread(0x180, calldataload(sibling))
                }
                sibling := add(sibling, 0x20)
                let flags := or(4, shl(3, eq(add(level, 1), depth))) // PARENT, ROOT
                a, b :=
                    compress(
                    iv(),
                    0x000000005be0cd19000000001f83d9ab000000009b05688c00000000510e527f,
                    or(shl(128, 64), shl(192, flags))
                )
            }

            // The eight words of the root, each in little-endian order, are the hash.
            let w :=
                or(
                    or(
                        or(shl(224, a), shl(128, and(a, shl(64, 0xffffffff)))),
                        or(shl(32, and(a, shl(128, 0xffffffff))), shr(64, and(a, shl(192, 0xffffffff))))
                    ),
                    or(
                        or(shl(96, and(b, 0xffffffff)), and(b, shl(64, 0xffffffff))),
                        or(shr(96, and(b, shl(128, 0xffffffff))), shr(192, b))
                    )
                )
            mstore(0, swapped(w))
            return(0, 0x20)
        }
    }

    /// @dev The way from chunk `index` to the root of a tree over `chunks` chunks, whose left side is always the largest power of
    ///      two below `chunks` (the paper, section 2.1). Bit i of `turns`, counted from the chunk, is set if the path is the right child.
    function path(uint256 index, uint256 chunks) private pure returns (uint256 depth, uint256 turns) {
        while (chunks > 1) {
            uint256 left = 1;
            while (left << 1 < chunks) left <<= 1;
            turns <<= 1;
            if (index < left) {
                chunks = left;
            } else {
                index -= left;
                chunks -= left;
                turns |= 1;
            }
            ++depth;
        }
    }
}
