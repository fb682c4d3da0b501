// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token without worth, for local networks and tests.
/// @notice Anyone mints as much as they like. Never list it anywhere.
contract TestToken is ERC20 {
    constructor() ERC20("Seedbank Test Token", "tSEED") {}

    /// @notice Makes tokens.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}
