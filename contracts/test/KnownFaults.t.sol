// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title Faults of an earlier storage network's contracts, each with the test that this one does not have it. Those about vouchers are in
///        VoucherFaults.t.sol.
contract KnownFaultsTest is Fixture {
    /// There: the provider says about itself that it stored the data, and that is the only proof.
    function test_a_providers_word_proves_nothing() public {
        uint32 id = open(anna, pat, 100, 30);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        vm.prank(pat);
        vm.expectRevert();
        market.prove(pat, new IStorageMarket.Proof[](3));
        nextEpoch();
        market.advance(pat, 9);
        (uint256 earned,) = market.standing(id);
        equal(earned, 0, "nothing earned");
        require(registry.stakeOf(pat) < 1_000_000, "and something lost");
    }

    /// There: the whole term is paid up front, with no escrow, no partial release, no refund and no penalty.
    function test_nothing_is_paid_before_it_is_proven_and_the_rest_comes_back() public {
        uint32 id = open(anna, pat, 100, 30);
        equal(market.free(pat), 0, "no pay up front");
        nextEpoch();
        proveAs(pat);
        equal(market.free(pat), 100, "one epoch");
        vm.prank(anna);
        market.terminate(id);
        for (uint256 n = 0; n < 5; ++n) {
            nextEpoch();
            if (n < 4) proveAs(pat);
        }
        market.advance(pat, 9);
        moveAllOn();
        equal(market.free(anna), 1_000_000 - 500, "the rest came back");
        checkSums();
    }

    /// There: a client pays everyone as soon as 20 of 30 said they are done. Here nobody is paid for what another did.
    function test_one_provider_is_not_paid_for_anothers_proof() public {
        open(anna, pat, 100, 30);
        open(anna, quinn, 100, 30);
        nextEpoch();
        proveAs(pat);
        equal(market.free(pat), 100, "pat");
        equal(market.free(quinn), 0, "quinn");
    }

    /// There: a renewal of one unit extends any contract by any number of days, and the chain's record does not change.
    function test_a_renewal_costs_what_the_term_costs() public {
        uint32 id = open(anna, pat, 100, 5);
        nextEpoch();
        proveAs(pat);
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.endEpoch = 1000;
        expectRevisionSkipped(revision, IStorageMarket.Skip.Escrow);
        revise(revision);
        vm.prank(anna);
        market.reserve(id, 500);
        revision.endEpoch = 21;
        revise(revision);
        equal(market.getAgreement(id).next.end, 21, "five epochs more for five epochs' pay");
    }

    /// There: an oracle with an owner sets the price, per month where the code multiplied by days. Here the price is what both signed, in token
    /// units per epoch, and nothing converts it.
    function test_the_price_is_what_was_signed() public {
        uint32 id = open(anna, pat, 123, 10);
        for (uint256 n = 0; n < 10; ++n) {
            nextEpoch();
            proveAs(pat);
        }
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.free(pat), 1230, "ten epochs at 123");
        equal(market.getAgreement(id).escrow, 0, "closed");
        equal(market.free(anna), 1_000_000 - 1230, "nothing else");
    }

    /// There: the debtor upgrades its own vault, an owner sets states, contracts can be paused. Here no function exists that could: the
    /// market's and registry's state-changing functions are these, and each is tested for who may call it.
    function test_nobody_owns_pauses_or_upgrades() public {
        string[8] memory wanted = [
            "owner()",
            "pause()",
            "upgradeTo(address)",
            "upgradeToAndCall(address,bytes)",
            "transferOwnership(address)",
            "setStatus(uint32,uint8)",
            "setParameters(bytes)",
            "initialize()"
        ];
        for (uint256 n = 0; n < wanted.length; ++n) {
            bytes memory call = abi.encodePacked(bytes4(keccak256(bytes(wanted[n]))), new bytes(96));
            (bool done,) = address(market).call(call);
            require(!done, wanted[n]);
            (done,) = address(registry).call(call);
            require(!done, wanted[n]);
        }
    }

    /// There: a score decides who gets agreements, and reviewers approve providers. Here stake and a signature are all it takes.
    function test_anyone_becomes_a_provider() public {
        vm.prank(hot);
        registry.register(bytes32(uint256(9)), new bytes(64), "{}");
        fund(hot, 1400);
        vm.prank(hot);
        registry.addStake(hot, 1400);
        open(anna, hot, 100, 5);
    }

    /// There: an expired contract's job deletes a fragment that another contract still needs, and a finite list of questions, made by the
    /// client and kept by a guard, is all that is ever asked. Here each epoch's questions come from a seed that nobody had before.
    function test_every_epoch_asks_something_else() public {
        open(anna, pat, 100, 30);
        bytes32 before;
        for (uint256 n = 0; n < 10; ++n) {
            nextEpoch();
            market.advance(pat, 9);
            moveAllOn();
            (, uint64[] memory offsets) = market.challengesOf(pat);
            bytes32 now_ = keccak256(abi.encode(offsets));
            require(now_ != before, "other bytes");
            before = now_;
            proveAs(pat);
        }
    }

    /// There: anyone overwrites anyone's file record. Here an agreement changes with both signatures or by its own side's notice only.
    function test_a_stranger_changes_nothing_of_an_agreement() public {
        uint32 id = open(anna, pat, 100, 30);
        nextEpoch();
        proveAs(pat);
        bytes32 before = keccak256(abi.encode(market.getAgreement(id)));
        vm.startPrank(STRANGER);
        revise(revisionOf(id), HOT_KEY, HOT_KEY);
        moveAllOn();
        market.advance(pat, 9);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.terminate(id);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.announceRelease(id, 1);
        vm.expectRevert(IStorageMarket.SetAlive.selector);
        market.closeDead(id);
        vm.expectRevert(IStorageMarket.NoQuestion.selector);
        market.fail(id);
        vm.stopPrank();
        require(before == keccak256(abi.encode(market.getAgreement(id))), "the same");
    }
}
