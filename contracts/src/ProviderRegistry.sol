// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IProviderRegistry, IStakeVault} from "./interfaces/IProviderRegistry.sol";

/// @title Who the providers are, how to reach them, and what they lose if they break their word.
/// @notice Nobody owns this contract. It keeps the books of all stakes and no token: those are in the market that made it. Stake is lost in
///         two ways only: its provider takes what its agreements don't need, or the market slashes it. Neither moves a token, so no
///         token can keep a miss from being recorded.
contract ProviderRegistry is IProviderRegistry {
    /// @notice The one contract that may slash, that says how much stake must stay, and that holds the tokens.
    IStakeVault public immutable market;

    mapping(address provider => Provider) private providers;
    address[] private listed;
    uint256 private constant PROFILE_BYTES_MAX = 4096;
    /// @inheritdoc IProviderRegistry
    uint256 public totalStake;

    /// @dev Made by the market, in its own constructor.
    constructor() {
        market = IStakeVault(msg.sender);
    }

    /// @inheritdoc IProviderRegistry
    function register(bytes32 endpointKey, bytes calldata endpointSignature, string calldata profile) external {
        if (endpointKey == 0) revert NoEndpointKey();
        if (bytes(profile).length > PROFILE_BYTES_MAX) revert ProfileTooLong(bytes(profile).length);
        if (endpointSignature.length != 64) revert EndpointSignatureLength(endpointSignature.length);
        Provider storage provider = providers[msg.sender];
        if (provider.endpointKey == 0) {
            listed.push(msg.sender);
            provider.operator = msg.sender;
        }
        provider.endpointKey = endpointKey;
        provider.endpointSignature = endpointSignature;
        provider.profile = profile;
        provider.leaving = false;
        emit Registered(msg.sender, endpointKey, endpointSignature, profile);
    }

    /// @inheritdoc IProviderRegistry
    function setOperator(address operator) external {
        registered(msg.sender).operator = operator;
        emit OperatorSet(msg.sender, operator);
    }

    /// @inheritdoc IProviderRegistry
    function addStake(address provider, uint128 amount) external {
        registered(provider).stake += amount;
        totalStake += amount;
        emit StakeAdded(provider, amount);
        market.lockStake(msg.sender, amount);
    }

    /// @inheritdoc IProviderRegistry
    function leave() external {
        registered(msg.sender).leaving = true;
        emit Leaving(msg.sender);
    }

    /// @inheritdoc IProviderRegistry
    function withdrawStake(uint128 amount, address to) external {
        Provider storage provider = registered(msg.sender);
        uint256 needed = market.stakeNeeded(msg.sender);
        if (provider.stake < amount || provider.stake - amount < needed) {
            revert StakeNeeded(needed, provider.stake);
        }
        provider.stake -= amount;
        totalStake -= amount;
        emit StakeWithdrawn(msg.sender, to, amount);
        market.unlockStake(to, amount);
    }

    /// @inheritdoc IProviderRegistry
    function slash(address provider, uint128 amount) external {
        if (msg.sender != address(market)) revert OnlyMarket();
        providers[provider].stake -= amount;
        totalStake -= amount;
        emit Slashed(provider, amount);
    }

    /// @inheritdoc IProviderRegistry
    function get(address provider) external view returns (Provider memory) {
        return providers[provider];
    }

    /// @inheritdoc IProviderRegistry
    function stakeOf(address provider) external view returns (uint128) {
        return providers[provider].stake;
    }

    /// @inheritdoc IProviderRegistry
    function acts(address key, address provider) external view returns (bool) {
        return key == provider || (key != address(0) && providers[provider].operator == key);
    }

    /// @inheritdoc IProviderRegistry
    function count() external view returns (uint256) {
        return listed.length;
    }

    /// @inheritdoc IProviderRegistry
    function page(uint256 from, uint256 size) external view returns (address[] memory found) {
        uint256 end = from + size > listed.length ? listed.length : from + size;
        found = new address[](end > from ? end - from : 0);
        for (uint256 number = from; number < end; ++number) {
            found[number - from] = listed[number];
        }
    }

    function registered(address provider) private view returns (Provider storage found) {
        found = providers[provider];
        if (found.endpointKey == 0) revert NotRegistered(provider);
    }
}
