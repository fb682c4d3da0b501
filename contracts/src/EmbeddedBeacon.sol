// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {EpochClock} from "./EpochClock.sol";
import {IRandomness} from "./interfaces/IRandomness.sol";

/// @title Seeds from the chain's own block hashes, for a chain with one sequencer.
/// @notice The seed of an epoch is the hash of the block before the first call in it. Whoever makes the blocks can try many until
///         it likes the hash: fit for a chain whose operator is trusted with that, and for nothing else. Whoever calls first chooses among
///         the blocks since the epoch began, so somebody without an interest in the seed should call as soon as it begins.
contract EmbeddedBeacon is IRandomness, EpochClock {
    struct Sealed {
        bytes32 seed;
        uint64 block;
    }

    /// @notice Blocks that must follow a seed before the epoch ends, else the chain stood still and the epoch doesn't count.
    uint32 public immutable blocksMin;
    mapping(uint32 epoch => Sealed) private seeds;
    /// @notice The number of the first block in which this contract was called at or after the epoch's end. Blocks between the two count
    ///         for the epoch, so an epoch in which the chain stood still is safe from being counted once somebody sealed or
    ///         proved in the next one.
    mapping(uint32 epoch => uint64) public endedBy;
    uint32 private lastTouched;

    constructor(uint64 genesis_, uint32 epochSeconds_, uint32 blocksMin_) EpochClock(genesis_, epochSeconds_) {
        blocksMin = blocksMin_;
    }

    /// @inheritdoc IRandomness
    function seal() external returns (bool) {
        uint32 epoch = currentEpoch();
        if (seeds[epoch].block != 0) return true;
        // The first call of an epoch ends the last one that had a seed: no block after this one can count for it.
        if (seeds[lastTouched].block != 0 && lastTouched != epoch && endedBy[lastTouched] == 0) {
            endedBy[lastTouched] = uint64(block.number);
        }
        lastTouched = epoch;
        bytes32 value = keccak256(
            abi.encode("seedbank embedded beacon 1", block.chainid, address(this), epoch, blockhash(block.number - 1))
        );
        seeds[epoch] = Sealed(value, uint64(block.number));
        emit SeedSealed(epoch, value, uint64(block.number));
        return true;
    }

    /// @inheritdoc IRandomness
    function seed(uint32 epoch) external view returns (bytes32) {
        return seeds[epoch].seed;
    }

    /// @inheritdoc IRandomness
    function counts(uint32 epoch) external view returns (bool) {
        Sealed storage found = seeds[epoch];
        if (found.block == 0) return false;
        uint256 end = endedBy[epoch] == 0 ? block.number : endedBy[epoch];
        return end - found.block >= blocksMin;
    }
}
