// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {EpochClock} from "./EpochClock.sol";
import {IRandomness} from "./interfaces/IRandomness.sol";

/// @title Seeds from a future block's hash, in two steps, for a chain with many block producers.
/// @notice The first call of an epoch names a block `delay` ahead; a call after that block and within the 256 blocks that a chain
///         remembers takes its hash. If nobody calls in that time, the next call names another block. A producer can drop its own
///         block to draw again, at the price of the block: a fallback where no beacon of signatures is at hand. `delay` must be longer than
///         one producer's run of blocks (64 on BTTC), else it would choose.
contract BlockhashBeacon is IRandomness, EpochClock {
    struct Draw {
        bytes32 seed;
        uint64 target;
        uint64 sealedIn;
    }

    /// Blocks whose hashes a chain remembers.
    uint256 private constant REMEMBERED = 256;
    /// @notice Blocks between the naming of a block and that block.
    uint32 public immutable delay;
    /// @notice Blocks that must follow a seed before the epoch ends, else the chain stood still and the epoch doesn't count.
    uint32 public immutable blocksMin;
    mapping(uint32 epoch => Draw) private draws;
    /// @notice The number of the first block in which this contract was called at or after the epoch's end. Blocks between the two count
    ///         for the epoch, so an epoch in which the chain stood still is safe from being counted once somebody sealed or
    ///         proved in the next one.
    mapping(uint32 epoch => uint64) public endedBy;
    uint32 private lastTouched;

    /// The block whose hash will be the epoch's seed was named.
    event DrawOpened(uint32 indexed epoch, uint64 target);

    constructor(uint64 genesis_, uint32 epochSeconds_, uint32 delay_, uint32 blocksMin_)
        EpochClock(genesis_, epochSeconds_)
    {
        if (delay_ == 0 || delay_ >= REMEMBERED) revert ClockSettings();
        delay = delay_;
        blocksMin = blocksMin_;
    }

    /// @inheritdoc IRandomness
    function seal() external returns (bool) {
        uint32 epoch = currentEpoch();
        Draw storage draw = draws[epoch];
        if (draw.sealedIn != 0) return true;
        if (draws[lastTouched].sealedIn != 0 && lastTouched != epoch && endedBy[lastTouched] == 0) {
            endedBy[lastTouched] = uint64(block.number);
        }
        lastTouched = epoch;
        if (draw.target != 0 && block.number > draw.target && block.number - draw.target <= REMEMBERED) {
            draw.seed = keccak256(
                abi.encode("seedbank blockhash beacon 1", block.chainid, address(this), epoch, blockhash(draw.target))
            );
            draw.sealedIn = uint64(block.number);
            emit SeedSealed(epoch, draw.seed, uint64(block.number));
            return true;
        }
        if (draw.target == 0 || block.number > draw.target) {
            draw.target = uint64(block.number) + delay;
            emit DrawOpened(epoch, draw.target);
        }
        return false;
    }

    /// @inheritdoc IRandomness
    function seed(uint32 epoch) external view returns (bytes32) {
        return draws[epoch].seed;
    }

    /// @inheritdoc IRandomness
    function counts(uint32 epoch) external view returns (bool) {
        Draw storage draw = draws[epoch];
        if (draw.sealedIn == 0) return false;
        uint256 end = endedBy[epoch] == 0 ? block.number : endedBy[epoch];
        return end - draw.sealedIn >= blocksMin;
    }
}
