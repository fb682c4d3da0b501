// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Byte counts under numbered positions, and the position that holds the byte at an offset.
/// @notice A tree of four children a node, their sums in one storage word of four 64-bit lanes. So a change or a search reads one word
///         a level: five levels for a thousand positions.
library SumTree {
    /// More than 2^64 - 1 bytes in one tree.
    error SumOverflow();
    /// The offset is not below the total.
    error OffsetBeyondTotal();

    struct Tree {
        /// Word of a node: key is level << 32 | number of the node in its level. Level 0 holds the positions' own sums.
        mapping(uint256 key => uint256) nodes;
        /// Levels in use; 0 while nothing was ever put.
        uint32 levels;
        uint64 total;
    }

    uint256 private constant LANE = type(uint64).max;

    /// @notice Sets the bytes of a position. Positions may come in any order but should be dense.
    function set(Tree storage tree, uint32 position, uint64 amount) internal {
        uint32 levels = tree.levels;
        // A new root above the old one, which becomes its first child.
        while (levels == 0 || uint256(position) >> (2 * levels) != 0) {
            if (levels != 0) tree.nodes[uint256(levels) << 32] = tree.total;
            ++levels;
        }
        tree.levels = levels;

        uint256 before;
        uint256 node = position;
        for (uint256 level = 0; level < levels; ++level) {
            uint256 shift = 64 * (node & 3);
            node >>= 2;
            uint256 key = level << 32 | node;
            uint256 word = tree.nodes[key];
            if (level == 0) {
                before = word >> shift & LANE;
                uint256 total = uint256(tree.total) - before + amount;
                if (total > LANE) revert SumOverflow();
                tree.total = uint64(total);
            }
            // No lane overflows: each is at most the total.
            uint256 lane = (word >> shift & LANE) - before + amount;
            tree.nodes[key] = word & ~(LANE << shift) | lane << shift;
        }
    }

    /// @notice The position that holds the byte at `offset` of all positions laid end to end, and the byte's offset in it.
    function find(Tree storage tree, uint64 offset) internal view returns (uint32 position, uint64 inside) {
        if (offset >= tree.total) revert OffsetBeyondTotal();
        uint256 node;
        uint256 rest = offset;
        for (uint256 level = tree.levels; level > 0; --level) {
            uint256 word = tree.nodes[(level - 1) << 32 | node];
            node <<= 2;
            while (rest >= word & LANE) {
                rest -= word & LANE;
                word >>= 64;
                ++node;
            }
        }
        return (uint32(node), uint64(rest));
    }
}
