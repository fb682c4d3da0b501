// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title The numbering of time.
interface IEpochClock {
    /// @notice Unix time in seconds at which epoch 0 begins.
    function genesis() external view returns (uint64);

    /// @notice Length of an epoch in seconds.
    function epochSeconds() external view returns (uint32);

    /// @notice The epoch that the current block lies in.
    function currentEpoch() external view returns (uint32);
}
