// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice BLAKE3 as the paper writes it: one word after the other, rounds in a loop, the message permuted by a table. Slow, and
///         made so that nothing of it looks like the verifier: another layout, another tree walk, no assembly.
library Blake3Reference {
    uint32 private constant CHUNK_START = 1;
    uint32 private constant CHUNK_END = 2;
    uint32 private constant PARENT = 4;
    uint32 private constant ROOT = 8;

    function iv() internal pure returns (uint32[8] memory) {
        return [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    }

    function permutation() private pure returns (uint8[16] memory) {
        return [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    }

    function rotated(uint32 x, uint32 by) private pure returns (uint32) {
        return (x >> by) | (x << (32 - by));
    }

    /// The function G: mixes two message words into one column or diagonal.
    function g(uint32[16] memory v, uint256 a, uint256 b, uint256 c, uint256 d, uint32 x, uint32 y) internal pure {
        unchecked {
            v[a] = v[a] + v[b] + x;
            v[d] = rotated(v[d] ^ v[a], 16);
            v[c] = v[c] + v[d];
            v[b] = rotated(v[b] ^ v[c], 12);
            v[a] = v[a] + v[b] + y;
            v[d] = rotated(v[d] ^ v[a], 8);
            v[c] = v[c] + v[d];
            v[b] = rotated(v[b] ^ v[c], 7);
        }
    }

    function compress(uint32[8] memory chaining, uint32[16] memory m, uint64 counter, uint32 size, uint32 flags)
        internal
        pure
        returns (uint32[8] memory out)
    {
        uint32[8] memory start = iv();
        uint32[16] memory v;
        for (uint256 i = 0; i < 8; ++i) {
            v[i] = chaining[i];
        }
        for (uint256 i = 0; i < 4; ++i) {
            v[8 + i] = start[i];
        }
        v[12] = uint32(counter & 0xffffffff);
        v[13] = uint32(counter >> 32);
        v[14] = size;
        v[15] = flags;
        for (uint256 round = 0; round < 7; ++round) {
            for (uint256 i = 0; i < 4; ++i) {
                g(v, i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
            }
            for (uint256 i = 0; i < 4; ++i) {
                g(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i]);
            }
            uint8[16] memory order = permutation();
            uint32[16] memory permuted;
            for (uint256 i = 0; i < 16; ++i) {
                permuted[i] = m[order[i]];
            }
            m = permuted;
        }
        for (uint256 i = 0; i < 8; ++i) {
            out[i] = v[i] ^ v[i + 8];
        }
    }

    /// Chaining value of a chunk, or the whole hash if it is the only one.
    function chunk(bytes memory data, uint64 index, bool only) internal pure returns (uint32[8] memory value) {
        value = iv();
        uint256 blocks = data.length == 0 ? 1 : (data.length + 63) / 64;
        for (uint256 b = 0; b < blocks; ++b) {
            uint32[16] memory m;
            uint256 end = data.length < (b + 1) * 64 ? data.length : (b + 1) * 64;
            for (uint256 i = b * 64; i < end; ++i) {
                m[(i % 64) / 4] |= uint32(uint8(data[i])) << uint32(8 * (i % 4));
            }
            uint32 flags = b == 0 ? CHUNK_START : 0;
            if (b + 1 == blocks) flags |= CHUNK_END | (only ? ROOT : 0);
            value = compress(value, m, index, uint32(end - b * 64), flags);
        }
    }

    function parent(uint32[8] memory left, uint32[8] memory right, bool top) internal pure returns (uint32[8] memory) {
        uint32[16] memory m;
        for (uint256 i = 0; i < 8; ++i) {
            m[i] = left[i];
            m[8 + i] = right[i];
        }
        return compress(iv(), m, 0, 64, PARENT | (top ? ROOT : 0));
    }

    function toBytes(uint32[8] memory words) internal pure returns (bytes32) {
        uint256 out = 0;
        for (uint256 i = 0; i < 32; ++i) {
            out |= uint256((words[i / 4] >> (8 * (i % 4))) & 0xff) << (8 * (31 - i));
        }
        return bytes32(out);
    }

    function toWords(bytes32 value) internal pure returns (uint32[8] memory words) {
        for (uint256 i = 0; i < 32; ++i) {
            words[i / 4] |= uint32(uint8(value[i])) << uint32(8 * (i % 4));
        }
    }

    /// How many levels a path has. Bottom up: of `width` nodes on a level, neighbours are joined, and one that is left over goes up as it is.
    function depth(uint64 index, uint64 length) internal pure returns (uint256 levels) {
        uint256 width = (uint256(length) + 1023) / 1024;
        uint256 at = index;
        while (width > 1) {
            if ((at ^ 1) < width) ++levels;
            at /= 2;
            width = (width + 1) / 2;
        }
    }

    /// The hash of the fragment that has this chunk and these siblings.
    function root(bytes memory data, uint64 index, uint64 length, bytes32[] memory siblings)
        internal
        pure
        returns (bytes32)
    {
        uint256 width = (uint256(length) + 1023) / 1024;
        uint256 at = index;
        uint256 used = 0;
        uint32[8] memory value = chunk(data, index, width == 1);
        while (width > 1) {
            if ((at ^ 1) < width) {
                uint32[8] memory beside = toWords(siblings[used++]);
                value = at & 1 == 1 ? parent(beside, value, width == 2) : parent(value, beside, width == 2);
            }
            at /= 2;
            width = (width + 1) / 2;
        }
        return toBytes(value);
    }
}
