// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title What the registry asks of the market, which holds all the money.
interface IStakeVault {
    /// @notice Stake that a provider must keep now; the highest number there is while it is not known.
    function stakeNeeded(address provider) external view returns (uint256);

    /// @notice Turns free balance of an account into stake. Only the registry may.
    function lockStake(address account, uint128 amount) external;

    /// @notice Turns stake into free balance of an account. Only the registry may.
    function unlockStake(address account, uint128 amount) external;
}

/// @title Identity, address and stake of providers.
interface IProviderRegistry {
    /// A provider must name the Ed25519 key by which it is dialled.
    error NoEndpointKey();
    /// An Ed25519 signature has 64 bytes.
    error EndpointSignatureLength(uint256 length);
    /// A profile has at most PROFILE_BYTES_MAX bytes.
    error ProfileTooLong(uint256 length);
    /// Nobody registered under this address.
    error NotRegistered(address provider);
    /// Agreements and questions need `needed` of the stake of `stake`.
    error StakeNeeded(uint256 needed, uint256 stake);
    /// Only the market slashes.
    error OnlyMarket();

    event Registered(address indexed provider, bytes32 indexed endpointKey, bytes endpointSignature, string profile);
    event OperatorSet(address indexed provider, address operator);
    event StakeAdded(address indexed provider, uint256 amount);
    event StakeWithdrawn(address indexed provider, address to, uint256 amount);
    event Slashed(address indexed provider, uint256 amount);
    event Leaving(address indexed provider);

    /// @notice A provider's entry.
    struct Provider {
        /// Key that may prove, activate and sign revisions, but not withdraw.
        address operator;
        uint128 stake;
        /// Set by `leave`: no new agreements.
        bool leaving;
        /// The Ed25519 key by which the provider is dialled; zero if nobody registered.
        bytes32 endpointKey;
        /// That key's signature over {chain id, this contract, the provider's address}. The chain can't check it: whoever dials
        /// does, in both directions, so that nobody can squat another's key.
        bytes endpointSignature;
        /// JSON: addresses, region, operator's name, prices. Not checked here.
        string profile;
    }

    /// @notice Makes or changes the caller's entry.
    function register(bytes32 endpointKey, bytes calldata endpointSignature, string calldata profile) external;

    /// @notice Names the caller's hot key.
    function setOperator(address operator) external;

    /// @notice Adds to a provider's stake from the caller's free balance in the market. Anyone may; it changes nothing else.
    function addStake(address provider, uint128 amount) external;

    /// @notice Says that the caller takes no new agreements. Registering again takes it back.
    function leave() external;

    /// @notice Moves stake that no agreement needs to the free balance of `to` in the market. Only its provider.
    function withdrawStake(uint128 amount, address to) external;

    /// @notice Takes part of a stake away. Only the market may, which hands it on.
    function slash(address provider, uint128 amount) external;

    /// @notice A provider's entry; all zero if nobody registered.
    function get(address provider) external view returns (Provider memory);

    /// @notice A provider's stake.
    function stakeOf(address provider) external view returns (uint128);

    /// @notice All stakes together.
    function totalStake() external view returns (uint256);

    /// @notice Whether `key` may prove and sign revisions for `provider`.
    function acts(address key, address provider) external view returns (bool);

    /// @notice How many ever registered.
    function count() external view returns (uint256);

    /// @notice Addresses in the order of registration.
    function page(uint256 from, uint256 size) external view returns (address[] memory);
}
