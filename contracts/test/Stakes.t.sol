// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ProviderRegistry} from "../src/ProviderRegistry.sol";
import {IProviderRegistry} from "../src/interfaces/IProviderRegistry.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title The registry: who providers are, and their stake.
contract StakesTest is Fixture {
    bytes32 private constant KEY = bytes32(uint256(0x5eed));

    function test_an_entry_holds_what_was_registered() public {
        bytes memory signature = abi.encodePacked(bytes32(uint256(1)), bytes32(uint256(2)));
        vm.expectEmit(address(registry));
        emit IProviderRegistry.Registered(anna, KEY, signature, "{\"region\":\"here\"}");
        vm.prank(anna);
        registry.register(KEY, signature, "{\"region\":\"here\"}");
        IProviderRegistry.Provider memory provider = registry.get(anna);
        require(provider.endpointKey == KEY && provider.operator == anna && !provider.leaving, "entry");
        require(keccak256(provider.endpointSignature) == keccak256(signature), "signature");
        equal(registry.count(), 3, "count");
        address[] memory page = registry.page(1, 5);
        require(page.length == 2 && page[0] == quinn && page[1] == anna, "page");
        equal(registry.page(3, 5).length, 0, "beyond the end");
        equal(registry.page(0, 2).length, 2, "a whole page");
    }

    function test_a_changed_entry_keeps_stake_and_operator_and_is_listed_once() public {
        vm.prank(pat);
        registry.setOperator(hot);
        vm.prank(pat);
        registry.leave();
        vm.prank(pat);
        registry.register(KEY, new bytes(64), "new");
        IProviderRegistry.Provider memory provider = registry.get(pat);
        require(provider.operator == hot && provider.stake == 1_000_000 && !provider.leaving, "kept");
        equal(registry.count(), 2, "count");
    }

    function test_a_senseless_entry_is_refused() public {
        vm.expectRevert(IProviderRegistry.NoEndpointKey.selector);
        registry.register(0, new bytes(64), "");
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.EndpointSignatureLength.selector, 63));
        registry.register(KEY, new bytes(63), "");
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.ProfileTooLong.selector, 4097));
        registry.register(KEY, new bytes(64), string(new bytes(4097)));
        registry.register(KEY, new bytes(64), string(new bytes(4096)));
    }

    /// One address may name a key that another has named: nobody squats by being first. Who dials checks the key's signature over
    /// {chain, registry, address}, which only its owner can make.
    function test_a_key_is_not_taken_by_whoever_names_it_first() public {
        vm.prank(anna);
        registry.register(KEY, new bytes(64), "");
        vm.prank(ben);
        registry.register(KEY, new bytes(64), "");
        require(registry.get(anna).endpointKey == registry.get(ben).endpointKey, "both");
    }

    function test_only_the_registered_have_operators_stake_and_exits() public {
        bytes memory reason = abi.encodeWithSelector(IProviderRegistry.NotRegistered.selector, anna);
        vm.startPrank(anna);
        vm.expectRevert(reason);
        registry.setOperator(hot);
        vm.expectRevert(reason);
        registry.leave();
        vm.expectRevert(reason);
        registry.addStake(anna, 1);
        vm.expectRevert(reason);
        registry.withdrawStake(0, anna);
        vm.stopPrank();
    }

    function test_operators_act_and_nobody_else() public {
        require(registry.acts(pat, pat) && !registry.acts(quinn, pat) && !registry.acts(address(0), pat), "pat");
        vm.prank(pat);
        registry.setOperator(hot);
        require(registry.acts(hot, pat) && registry.acts(pat, pat) && !registry.acts(hot, quinn), "operator");
        vm.prank(pat);
        registry.setOperator(address(0));
        require(!registry.acts(address(0), pat), "nobody");
        // Hot keys take no stake out.
        vm.prank(hot);
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.NotRegistered.selector, hot));
        registry.withdrawStake(1, hot);
    }

    function test_stake_comes_from_free_balance_and_goes_back_to_it() public {
        vm.prank(anna);
        registry.addStake(pat, 300);
        equal(registry.stakeOf(pat), 1_000_300, "anyone may add");
        equal(market.free(anna), 999_700, "from their own balance");
        vm.prank(pat);
        registry.withdrawStake(500, ben);
        equal(market.free(ben), 1_000_500, "to whom the provider says");
        equal(registry.totalStake(), 1_999_800, "total");
        checkSums();
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.Balance.selector, 1, 0));
        registry.addStake(pat, 1);
    }

    function test_only_the_market_slashes_and_only_the_registry_moves_stake() public {
        vm.expectRevert(IProviderRegistry.OnlyMarket.selector);
        registry.slash(pat, 1);
        vm.expectRevert(IStorageMarket.OnlyRegistry.selector);
        market.lockStake(anna, 1);
        vm.expectRevert(IStorageMarket.OnlyRegistry.selector);
        market.unlockStake(address(this), 1);
        require(address(ProviderRegistry(address(registry)).market()) == address(market), "made by the market");
    }

    function test_stake_that_agreements_need_stays() public {
        open(anna, pat, 100, 5);
        equal(market.stakeNeeded(pat), 1400, "pending agreements count");
        vm.startPrank(pat);
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.StakeNeeded.selector, 1400, 1_000_000));
        registry.withdrawStake(998_601, pat);
        registry.withdrawStake(998_600, pat);
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.StakeNeeded.selector, 1400, 1400));
        registry.withdrawStake(1401, pat);
        vm.stopPrank();
    }

    function test_stake_stays_while_a_set_is_behind_and_its_owner_brings_it_up() public {
        open(anna, pat, 100, 5);
        nextEpoch();
        nextEpoch();
        equal(market.stakeNeeded(pat), type(uint256).max, "behind");
        vm.startPrank(pat);
        vm.expectRevert();
        registry.withdrawStake(1, pat);
        market.advance(pat, 9);
        moveAllOn();
        market.advance(pat, 9);
        // Epoch 11 was missed, and is paid for before anything leaves.
        equal(registry.stakeOf(pat), 999_800, "slashed");
        registry.withdrawStake(998_400, pat);
        vm.stopPrank();
        checkSums();
    }

    function test_without_agreements_all_stake_is_free() public {
        open(anna, pat, 100, 1);
        nextEpoch();
        proveAs(pat);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        vm.prank(pat);
        registry.withdrawStake(1_000_000, pat);
        equal(registry.stakeOf(pat), 0, "all of it");
    }

    /// No third party keeps anyone from leaving: whatever others do, the owner alone gets everything out.
    function test_a_stranger_can_not_block_an_exit() public {
        uint32 id = open(anna, pat, 100, 5);
        vm.startPrank(STRANGER);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.ask(id);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.terminate(id);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.reserve(id, 0);
        vm.stopPrank();
        fund(STRANGER, 10);
        vm.startPrank(STRANGER);
        token.mint(STRANGER, 5);
        registry.addStake(pat, 5);
        vm.stopPrank();
        vm.prank(pat);
        market.terminate(id);
        for (uint256 n = 0; n < 6; ++n) {
            nextEpoch();
            market.advance(pat, 9);
            moveAllOn();
            if (setOf(pat).agreements != 0 && setOf(pat).deadAt == 0) proveAs(pat);
        }
        uint128 stake = registry.stakeOf(pat);
        vm.prank(pat);
        registry.withdrawStake(stake, pat);
        uint256 free = market.free(pat);
        vm.prank(pat);
        market.withdraw(free, pat);
        require(token.balanceOf(pat) == 1_000_005 + 400, "stake, gift and pay");
    }
}
