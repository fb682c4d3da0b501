// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IEpochClock} from "./IEpochClock.sol";

/// @title Where an epoch's challenges come from.
/// @notice One seed an epoch for all providers, unknown before the epoch begins and never changed. Its clock is the deployment's. A beacon of signatures
///         (drand on BN254) fits behind the same functions.
interface IRandomness is IEpochClock {
    /// An epoch's seed is known now.
    event SeedSealed(uint32 indexed epoch, bytes32 seed, uint64 block);

    /// @notice The seed of an epoch, or zero while (or if for ever) it has none.
    function seed(uint32 epoch) external view returns (bytes32);

    /// @notice Whether an epoch that is over counts: it had a seed, and enough blocks after it for everyone to prove. What
    ///         happens in an epoch that doesn't count is neither paid nor punished.
    function counts(uint32 epoch) external view returns (bool);

    /// @notice Seals the current epoch's seed if that can be done now; anyone may call it, and it does nothing the second time.
    /// @return Whether the current epoch has its seed.
    function seal() external returns (bool);
}
