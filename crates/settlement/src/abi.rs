//! Bindings to the contracts, made from the artifacts that are committed beside their sources. No other file of this crate
//! names a function, an event or an error by anything but these types.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::too_many_arguments,
    reason = "made by a macro; the contracts' own comments say what everything means"
)]

pub(crate) mod anchor {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        AuditAnchor,
        "../../contracts/abi/AuditAnchor.json"
    );
}

pub(crate) mod datasets {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        DatasetRegistry,
        "../../contracts/abi/DatasetRegistry.json"
    );
}

pub(crate) mod directory {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        Directory,
        "../../contracts/abi/Directory.json"
    );
}

pub(crate) mod beacon {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        EmbeddedBeacon,
        "../../contracts/abi/EmbeddedBeacon.json"
    );
}

pub(crate) mod blockhash_beacon {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        BlockhashBeacon,
        "../../contracts/abi/BlockhashBeacon.json"
    );
}

pub(crate) mod registry {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        ProviderRegistry,
        "../../contracts/abi/ProviderRegistry.json"
    );
}

pub(crate) mod channels {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        RetrievalChannels,
        "../../contracts/abi/RetrievalChannels.json"
    );
}

pub(crate) mod market {
    alloy_sol_types::sol!(
        #[sol(ignore_unlinked)]
        #[derive(Debug)]
        StorageMarket,
        "../../contracts/abi/StorageMarket.json"
    );
}

/// The ERC-20 functions that this crate uses, of any token.
pub(crate) mod token {
    alloy_sol_types::sol! {
        #[derive(Debug)]
        interface Token {
            function name() external view returns (string);
            function symbol() external view returns (string);
            function decimals() external view returns (uint8);
            function totalSupply() external view returns (uint256);
            function balanceOf(address account) external view returns (uint256);
            function allowance(address owner, address spender) external view returns (uint256);
            function approve(address spender, uint256 amount) external returns (bool);
            function transfer(address to, uint256 amount) external returns (bool);
            /// Only test tokens have it.
            function mint(address to, uint256 amount) external;

            error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
            error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
        }
    }
}
