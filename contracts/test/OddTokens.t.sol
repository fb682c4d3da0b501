// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "../src/TestToken.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {CallingToken, FalseToken, FeeToken, StoppingToken} from "./Tokens.sol";
import {vm} from "./Vm.sol";

/// @title Tokens that don't behave. Each must hurt its own users at most, and none may keep a set from going on.
abstract contract OddTokenTest is Fixture {
    uint32 internal id;

    function begin() internal {
        id = open(anna, pat, 100, 30);
        nextEpoch();
        proveAs(pat);
    }

    /// A miss, a death, a refund and a compensation, none of which moves a token.
    function dieAndClose() internal {
        for (uint256 n = 0; n < 4; ++n) {
            nextEpoch();
            market.advance(pat, 9);
        }
        require(setOf(pat).deadAt != 0, "dead");
        market.closeDead(id);
        equal(market.agreementOf(anna, pat), 0, "closed");
    }
}

contract FeeTokenTest is OddTokenTest {
    function newToken() internal override returns (TestToken) {
        return new FeeToken();
    }

    function test_a_fee_is_the_senders_and_the_sums_hold() public {
        equal(market.free(anna), 990_000, "what arrived");
        equal(registry.stakeOf(pat), 990_000, "what arrived");
        begin();
        dieAndClose();
        checkSums();
        uint256 free = market.free(anna);
        vm.prank(anna);
        market.withdraw(free, anna);
        equal(token.balanceOf(anna), free - free / 100, "less the fee");
        checkSums();
    }
}

contract StoppingTokenTest is OddTokenTest {
    function newToken() internal override returns (TestToken) {
        return new StoppingToken();
    }

    function test_a_stopped_token_stops_deposits_and_withdrawals_only() public {
        begin();
        StoppingToken(address(token)).stop(true);
        vm.expectRevert(StoppingToken.Stopped.selector);
        vm.prank(anna);
        market.withdraw(1, anna);
        uint256 before = market.free(anna);
        dieAndClose();
        require(market.free(anna) > before, "refunded all the same");
        vm.prank(pat);
        registry.withdrawStake(500, pat);
        StoppingToken(address(token)).stop(false);
        vm.prank(anna);
        market.withdraw(1, anna);
        checkSums();
    }

    function test_a_blocked_account_blocks_itself_only_and_sends_elsewhere() public {
        begin();
        StoppingToken(address(token)).blockAccount(pat);
        proveNext();
        vm.expectRevert(StoppingToken.Stopped.selector);
        vm.prank(pat);
        market.withdraw(1, pat);
        vm.prank(pat);
        market.withdraw(1, quinn);
        vm.prank(anna);
        market.withdraw(1, anna);
        checkSums();
    }

    function proveNext() private {
        nextEpoch();
        proveAs(pat);
    }
}

contract FalseTokenTest is OddTokenTest {
    function newToken() internal override returns (TestToken) {
        return new FalseToken();
    }

    function test_a_transfer_that_says_false_is_none() public {
        begin();
        FalseToken(address(token)).refuse(true);
        token.mint(address(this), 10);
        token.approve(address(market), 10);
        vm.expectRevert();
        market.deposit(anna, 10);
        uint256 before = market.free(anna);
        vm.expectRevert();
        vm.prank(anna);
        market.withdraw(10, anna);
        equal(market.free(anna), before, "still there");
        checkSums();
    }
}

contract CallingTokenTest is OddTokenTest {
    function newToken() internal override returns (TestToken) {
        return new CallingToken();
    }

    /// Every function that handles money refuses a call out of the middle of a transfer.
    function test_a_token_that_calls_back_gets_nowhere() public {
        begin();
        CallingToken calling = CallingToken(address(token));
        bytes[] memory calls = new bytes[](6);
        calls[0] = abi.encodeCall(market.withdraw, (1, STRANGER));
        calls[1] = abi.encodeCall(market.deposit, (STRANGER, 0));
        calls[2] = abi.encodeCall(market.advance, (pat, 9));
        calls[3] = abi.encodeCall(market.moveOn, (new uint32[](1)));
        calls[4] = abi.encodeCall(market.closeDead, (id));
        calls[5] = abi.encodeCall(market.prove, (pat, new IStorageMarket.Proof[](3)));
        for (uint256 n = 0; n < calls.length; ++n) {
            calling.callOnTransfer(address(market), calls[n]);
            vm.prank(anna);
            market.withdraw(10, anna);
            require(!calling.called(), "refused");
            require(bytes4(calling.refusal()) == bytes4(keccak256("ReentrancyGuardReentrantCall()")), "by the guard");
            checkSums();
        }
    }

    /// A deposit is counted as what arrived, whatever else arrives in the middle of it.
    function test_a_deposit_inside_a_deposit_is_not_counted_twice() public {
        CallingToken calling = CallingToken(address(token));
        token.mint(address(token), 100);
        vm.prank(address(token));
        token.approve(address(market), 100);
        token.mint(address(this), 50);
        token.approve(address(market), 50);
        calling.callOnTransfer(address(market), abi.encodeCall(market.deposit, (STRANGER, 100)));
        market.deposit(anna, 50);
        require(!calling.called(), "refused");
        equal(market.free(STRANGER), 0, "refused");
        equal(market.free(anna), 1_000_050, "once");
        checkSums();
    }
}
