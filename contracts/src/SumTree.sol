// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Amounts under numbered positions, and the position that holds a unit of their sum.
/// @notice A Fenwick tree. Position p is number p + 1, and a number n with lowest set bit 2^l stands for the 2^l numbers that end with it: their
///         sum is what is stored. A search reads one sum a level, a change touches about half as many: ten levels for a thousand positions.
library SumTree {
    /// The unit is not below the total.
    error UnitBeyondTotal();

    struct Tree {
        /// Sums by number, two to a word: so the last step of a search reads what an earlier one has read.
        mapping(uint256 pair => uint128[2]) sums;
        /// Positions below 2^levels were used. What number 2^levels would hold is the total.
        uint32 levels;
        uint128 total;
    }

    /// @notice Puts another amount under a position than the one that is there. Positions may come in any order but should be dense.
    ///         Reverts if the total passes 2^128 - 1.
    function change(Tree storage tree, uint32 position, uint128 before, uint128 amount) internal {
        uint32 levels = tree.levels;
        uint128 total = tree.total;
        while (position >> levels != 0) {
            // All there was is now the first half.
            uint256 half = 1 << levels;
            tree.sums[half >> 1][half & 1] = total;
            ++levels;
        }
        tree.levels = levels;
        tree.total = total - before + amount;
        for (uint256 number = uint256(position) + 1; number < 1 << levels; number += number & (~number + 1)) {
            uint128[2] storage pair = tree.sums[number >> 1];
            pair[number & 1] = pair[number & 1] - before + amount;
        }
    }

    /// @notice The position that holds a unit of all amounts laid end to end.
    function find(Tree storage tree, uint128 unit) internal view returns (uint32) {
        if (unit >= tree.total) revert UnitBeyondTotal();
        uint256 position = 0;
        for (uint256 step = (1 << tree.levels) >> 1; step != 0; step >>= 1) {
            uint256 number = position + step;
            uint128 sum = tree.sums[number >> 1][number & 1];
            if (unit >= sum) {
                unit -= sum;
                position = number;
            }
        }
        return uint32(position);
    }
}
