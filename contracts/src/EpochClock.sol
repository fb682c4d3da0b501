// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEpochClock} from "./interfaces/IEpochClock.sol";

/// @title The numbering of time that all contracts of one deployment share.
/// @notice Epoch e is the time [genesis + e * epochSeconds, genesis + (e + 1) * epochSeconds).
abstract contract EpochClock is IEpochClock {
    /// Epochs can't be empty, and none begins before the deployment's first one.
    error ClockSettings();
    /// The deployment's first epoch has not begun.
    error BeforeGenesis();

    /// @inheritdoc IEpochClock
    uint64 public immutable genesis;
    /// @inheritdoc IEpochClock
    uint32 public immutable epochSeconds;

    constructor(uint64 genesis_, uint32 epochSeconds_) {
        if (epochSeconds_ == 0 || genesis_ == 0) revert ClockSettings();
        genesis = genesis_;
        epochSeconds = epochSeconds_;
    }

    /// @inheritdoc IEpochClock
    function currentEpoch() public view returns (uint32) {
        if (block.timestamp < genesis) revert BeforeGenesis();
        // 2^32 epochs of one second last 136 years.
        return uint32((block.timestamp - genesis) / epochSeconds);
    }
}
