// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {StorageMarket} from "../src/StorageMarket.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title Balances, and how agreements begin.
contract ActivationTest is Fixture {
    uint256 private constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    function test_deposit_and_withdrawal_move_free_balance_only() public {
        vm.prank(anna);
        market.withdraw(400_000, STRANGER);
        equal(token.balanceOf(STRANGER), 400_000, "arrived");
        equal(market.free(anna), 600_000, "left");
        vm.prank(anna);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.Balance.selector, 600_001, 600_000));
        market.withdraw(600_001, anna);
        checkSums();
    }

    function test_anyone_may_deposit_for_anyone() public {
        fund(STRANGER, 7);
        equal(market.free(STRANGER), 7, "free");
    }

    function test_a_proposal_locks_its_escrow_and_begins_with_the_next_epoch() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        proposal.escrow += 123;
        vm.expectEmit(address(market));
        emit IStorageMarket.AgreementOpened(1, anna, pat, proposal);
        uint32 id = activate(proposal);
        equal(id, 1, "first id");
        equal(market.free(anna), 1_000_000 - 623, "free");
        equal(totalLocked(), 623, "locked");
        equal(rateOf(pat), 0, "nothing is paid in this epoch");
        equal(setOf(pat).rateMax, 100, "stake is needed from now on");
        equal(market.changesIn(pat, 11), 1, "begins");
        equal(market.changesIn(pat, 16), 1, "ends");
        nextEpoch();
        market.advance(pat, 9);
        equal(setOf(pat).due, 1, "due");
        moveAllOn();
        equal(rateOf(pat), 100, "rate");
        IStorageMarket.Agreement memory agreement = market.getAgreement(id);
        equal(agreement.current.from, 11, "from");
        equal(agreement.current.end, 16, "end");
        equal(agreement.next.from, 0, "nothing next");
        checkSums();
    }

    function test_an_agreement_opened_in_epoch_zero_goes_on() public {
        vm.warp(GENESIS);
        uint32 id = open(anna, pat, 100, 2);
        nextEpoch();
        proveAs(pat);
        nextEpoch();
        proveAs(pat);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        require(market.getAgreement(id).client == address(0), "closed");
        equal(market.free(pat), 200, "paid");
    }

    function test_only_the_provider_or_its_operator_activates() public {
        IStorageMarket.Proposal[] memory proposals = new IStorageMarket.Proposal[](1);
        bytes[] memory signatures = new bytes[](1);
        proposals[0] = proposalOf(anna, pat, 100, 5);
        signatures[0] = signed(ANNA_KEY, market.proposalDigest(proposals[0]));
        vm.prank(anna);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.activate(proposals, signatures);
        vm.prank(pat);
        registry.setOperator(hot);
        vm.prank(hot);
        market.activate(proposals, signatures);
        equal(market.agreementOf(anna, pat), 1, "open");
    }

    function test_batches_need_one_signature_for_each_item() public {
        vm.expectRevert(IStorageMarket.BatchLengths.selector);
        market.activate(new IStorageMarket.Proposal[](1), new bytes[](0));
        vm.expectRevert(IStorageMarket.BatchLengths.selector);
        market.revise(new IStorageMarket.Revision[](1), new bytes[](1), new bytes[](0));
        vm.expectRevert(IStorageMarket.BatchLengths.selector);
        market.revise(new IStorageMarket.Revision[](1), new bytes[](0), new bytes[](1));
    }

    function test_one_bad_proposal_does_not_stop_a_batch() public {
        IStorageMarket.Proposal[] memory proposals = new IStorageMarket.Proposal[](3);
        bytes[] memory signatures = new bytes[](3);
        proposals[0] = proposalOf(anna, pat, 100, 5);
        proposals[1] = proposalOf(anna, pat, 100, 5);
        proposals[2] = proposalOf(ben, pat, 100, 5);
        for (uint256 n = 0; n < 3; ++n) {
            signatures[n] = signed(keyOf(proposals[n].client), market.proposalDigest(proposals[n]));
        }
        vm.expectEmit(address(market));
        emit IStorageMarket.ActivationSkipped(1, market.proposalDigest(proposals[1]), IStorageMarket.Skip.Exists);
        vm.prank(pat);
        market.activate(proposals, signatures);
        equal(setOf(pat).agreements, 2, "two of three");
    }

    // --- what is passed over ------------------------------------------------------------------------------------------

    function skipped(IStorageMarket.Proposal memory proposal, IStorageMarket.Skip reason) private {
        bytes memory signature = signed(keyOf(proposal.client), market.proposalDigest(proposal));
        skipped(proposal, signature, reason);
    }

    function skipped(IStorageMarket.Proposal memory proposal, bytes memory signature, IStorageMarket.Skip reason)
        private
    {
        uint256 locked = totalLocked();
        uint32 before = market.agreementOf(proposal.client, proposal.provider);
        expectActivationSkipped(proposal, reason);
        activate(proposal, signature);
        equal(totalLocked(), locked, "nothing was locked");
        equal(market.agreementOf(proposal.client, proposal.provider), before, "nothing was opened");
    }

    function test_a_proposal_opens_one_agreement_only() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 1);
        proposal.acceptBy = 100;
        proposal.endEpoch = 50;
        proposal.escrow = 5000;
        uint32 id = activate(proposal);
        nextEpoch();
        proveAs(pat);
        vm.prank(anna);
        market.terminate(id);
        for (uint256 n = 0; n < 5; ++n) {
            nextEpoch();
            if (n < 4) proveAs(pat);
        }
        market.advance(pat, 9);
        moveAllOn();
        require(market.getAgreement(id).client == address(0), "closed");
        skipped(proposal, IStorageMarket.Skip.Stale);
    }

    function test_a_proposal_after_its_time_is_stale() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        nextEpoch();
        skipped(proposal, IStorageMarket.Skip.Stale);
    }

    function test_an_agreement_has_at_least_one_epoch() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 0, 0);
        skipped(proposal, IStorageMarket.Skip.Epochs);
    }

    /// Challenges fall on what is paid for, so it must have bytes.
    function test_an_agreement_has_bytes_and_no_more_to_retain_than_these() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        proposal.size = 0;
        skipped(proposal, IStorageMarket.Skip.Size);
        proposal.size = type(uint64).max - 1;
        proposal.retainedBytes = type(uint64).max;
        skipped(proposal, IStorageMarket.Skip.Size);
        proposal.retainedBytes = type(uint64).max - 1;
        require(activate(proposal) != 0, "any size is fine");
    }

    /// The sum of what a set is paid always has room: no agreement keeps others from moving on.
    function test_agreements_of_any_size_and_rate_move_on_together() public {
        uint96 most = type(uint96).max;
        fund(anna, most);
        fund(ben, most);
        fund(pat, 28 * uint256(most));
        vm.prank(pat);
        registry.addStake(pat, 28 * uint128(most));
        IStorageMarket.Proposal memory first = proposalOf(anna, pat, most, 1);
        IStorageMarket.Proposal memory second = proposalOf(ben, pat, most, 1);
        first.size = second.size = type(uint64).max;
        require(activate(first) != 0 && activate(second) != 0, "both are open");
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(rateOf(pat), 2 * uint256(most), "both have begun");
        (uint32[] memory ids,) = market.challengesOf(pat);
        equal(ids.length, 3, "asked");
    }

    function test_escrow_covers_every_epoch_and_is_there() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        proposal.escrow = 499;
        skipped(proposal, IStorageMarket.Skip.Escrow);
        proposal.escrow = 1_000_001;
        skipped(proposal, IStorageMarket.Skip.Escrow);
    }

    /// The chain-wide form of a client that over-promises: many signed proposals, money for one.
    function test_of_many_proposals_only_those_with_money_open() public {
        IStorageMarket.Proposal memory first = proposalOf(anna, pat, 100_000, 6);
        IStorageMarket.Proposal memory second = proposalOf(anna, quinn, 100_000, 6);
        vm.prank(pat);
        registry.addStake(pat, 0);
        fund(pat, 1_000_000);
        fund(quinn, 1_000_000);
        vm.prank(pat);
        registry.addStake(pat, 1_000_000);
        vm.prank(quinn);
        registry.addStake(quinn, 1_000_000);
        require(activate(first) != 0, "the first is open");
        skipped(second, IStorageMarket.Skip.Escrow);
    }

    function test_stake_covers_the_rates_of_all_agreements_pending_ones_too() public {
        // 1,000,000 / 14 = 71,428.
        fund(anna, 10_000_000);
        fund(ben, 10_000_000);
        open(anna, pat, 71_000, 5);
        skipped(proposalOf(ben, pat, 429, 5), IStorageMarket.Skip.Stake);
        open(ben, pat, 428, 5);
    }

    function test_a_leaving_provider_opens_nothing() public {
        vm.prank(pat);
        registry.leave();
        skipped(proposalOf(anna, pat, 100, 5), IStorageMarket.Skip.Leaving);
        vm.prank(pat);
        registry.register(bytes32(uint256(1)), new bytes(64), "{}");
        open(anna, pat, 100, 5);
    }

    function test_a_dead_set_opens_nothing_until_it_is_empty() public {
        uint32 id = open(anna, pat, 100, 50);
        nextEpoch();
        proveAs(pat);
        for (uint256 n = 0; n < 4; ++n) {
            nextEpoch();
            market.advance(pat, 9);
        }
        require(setOf(pat).deadAt != 0, "dead");
        skipped(proposalOf(ben, pat, 100, 5), IStorageMarket.Skip.NotOpen);
        market.closeDead(id);
        open(ben, pat, 100, 5);
    }

    function test_a_set_that_is_behind_opens_nothing() public {
        open(anna, pat, 100, 50);
        nextEpoch();
        nextEpoch();
        skipped(proposalOf(ben, pat, 100, 5), IStorageMarket.Skip.Behind);
        equal(setOf(pat).due, 1, "because something is due");
    }

    // --- signatures ---------------------------------------------------------------------------------------------------

    function test_forged_proposals_are_passed_over() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        skipped(proposal, signed(BEN_KEY, market.proposalDigest(proposal)), IStorageMarket.Skip.Signature);
        skipped(proposal, "", IStorageMarket.Skip.Signature);
        skipped(proposal, new bytes(65), IStorageMarket.Skip.Signature);
        skipped(proposal, new bytes(64), IStorageMarket.Skip.Signature);
        bytes memory long = bytes.concat(signed(ANNA_KEY, market.proposalDigest(proposal)), hex"00");
        skipped(proposal, long, IStorageMarket.Skip.Signature);
        bytes32 digest = market.proposalDigest(proposal);
        proposal.ratePerEpoch = 99;
        skipped(proposal, signed(ANNA_KEY, digest), IStorageMarket.Skip.Signature);
    }

    /// What recovers to nobody must not pass for a client of address zero: an agreement without a client could never be moved on, and would
    /// keep everybody else in its set.
    function test_nobody_is_no_client() public {
        IStorageMarket.Proposal memory proposal = proposalOf(address(0), pat, 0, 5);
        skipped(proposal, new bytes(65), IStorageMarket.Skip.Signature);
    }

    function test_a_high_s_is_no_signature() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ANNA_KEY, market.proposalDigest(proposal));
        bytes memory high = abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        skipped(proposal, high, IStorageMarket.Skip.Signature);
    }

    function test_the_short_form_is_the_same_consent_once() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 1);
        proposal.acceptBy = 100;
        bytes32 digest = market.proposalDigest(proposal);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ANNA_KEY, digest);
        activate(proposal, abi.encodePacked(r, bytes32(uint256(s) | uint256(v - 27) << 255)));
        equal(market.agreementOf(anna, pat), 1, "open");
        nextEpoch();
        proveAs(pat);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.agreementOf(anna, pat), 0, "closed");
        skipped(proposal, signed(ANNA_KEY, digest), IStorageMarket.Skip.Stale);
    }

    function test_a_signature_for_another_chain_or_market_is_none() public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        StorageMarket other = new StorageMarket(parameters());
        skipped(proposal, signed(ANNA_KEY, other.proposalDigest(proposal)), IStorageMarket.Skip.Signature);
        bytes32 here = market.proposalDigest(proposal);
        vm.chainId(199);
        bytes32 there = market.proposalDigest(proposal);
        vm.chainId(31337);
        require(here != there, "the chain is in the digest");
        skipped(proposal, signed(ANNA_KEY, there), IStorageMarket.Skip.Signature);
    }

    function test_digests_are_eip_712() public {
        IStorageMarket.Proposal memory p = proposalOf(anna, pat, 100, 5);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Seedbank StorageMarket"),
                keccak256("1"),
                block.chainid,
                address(market)
            )
        );
        bytes32 inner = keccak256(
            bytes.concat(
                keccak256(
                    "Proposal(address client,address provider,bytes32 setRoot,uint64 size,uint96 ratePerEpoch,uint32 endEpoch,uint128 escrow,uint64 retainedBytes,uint32 retainedUntil,uint32 acceptBy,uint256 nonce)"
                ),
                abi.encode(p.client, p.provider, p.setRoot, p.size, p.ratePerEpoch, p.endEpoch),
                abi.encode(p.escrow, p.retainedBytes, p.retainedUntil, p.acceptBy, p.nonce)
            )
        );
        require(market.proposalDigest(p) == keccak256(abi.encodePacked(hex"1901", domain, inner)), "proposal");
        IStorageMarket.Revision memory r = IStorageMarket.Revision(1, 2, bytes32(uint256(3)), 4, 5, 6, 7, 8, 9);
        inner = keccak256(
            bytes.concat(
                keccak256(
                    "Revision(uint32 agreement,uint32 sequence,bytes32 setRoot,uint64 size,uint96 ratePerEpoch,uint32 fromEpoch,uint32 endEpoch,uint64 retainedBytes,uint32 retainedUntil)"
                ),
                abi.encode(1, 2, 3, 4, 5, 6, 7, 8, 9)
            )
        );
        require(market.revisionDigest(r) == keccak256(abi.encodePacked(hex"1901", domain, inner)), "revision");
    }

    // --- hot keys -----------------------------------------------------------------------------------------------------

    function test_a_hot_key_commits_no_more_than_its_cap() public {
        IStorageMarket.Proposal memory first = proposalOf(anna, pat, 100, 5);
        IStorageMarket.Proposal memory second = proposalOf(anna, quinn, 100, 5);
        skipped(first, signed(HOT_KEY, market.proposalDigest(first)), IStorageMarket.Skip.Signature);
        vm.prank(anna);
        market.authorize(hot, 900, uint64(block.timestamp));
        activate(first, signed(HOT_KEY, market.proposalDigest(first)));
        equal(market.agreementOf(anna, pat), 1, "within the cap");
        skipped(second, signed(HOT_KEY, market.proposalDigest(second)), IStorageMarket.Skip.Signature);
        second.ratePerEpoch = 80;
        second.escrow = 400;
        activate(second, signed(HOT_KEY, market.proposalDigest(second)));
        equal(market.agreementOf(anna, quinn), 2, "what was left of the cap");
        (uint128 cap,) = market.authorities(anna, hot);
        equal(cap, 0, "used up");
    }

    function test_a_hot_keys_time_ends() public {
        vm.prank(anna);
        market.authorize(hot, 900, uint64(block.timestamp - 1));
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        skipped(proposal, signed(HOT_KEY, market.proposalDigest(proposal)), IStorageMarket.Skip.Signature);
    }

    function test_a_hot_key_is_one_clients_only() public {
        vm.prank(ben);
        market.authorize(hot, 900, type(uint64).max);
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        skipped(proposal, signed(HOT_KEY, market.proposalDigest(proposal)), IStorageMarket.Skip.Signature);
    }

    // --- deployment ---------------------------------------------------------------------------------------------------

    function test_senseless_parameters_are_refused() public {
        for (uint256 fault = 0; fault < 6; ++fault) {
            StorageMarket.Parameters memory wrong = parameters();
            if (fault == 0) wrong.challenges = 0;
            if (fault == 1) wrong.slashEpochs = 0;
            if (fault == 2) wrong.missesMax = 0;
            if (fault == 3) wrong.noticeEpochs = 0;
            if (fault == 4) wrong.stakeEpochs = 5;
            if (fault == 5) wrong.bountyBasisPoints = 10_001;
            vm.expectRevert(IStorageMarket.Settings.selector);
            new StorageMarket(wrong);
        }
    }

    function testFuzz_whatever_is_proposed_the_market_holds_what_it_owes(
        uint64 size,
        uint96 rate,
        uint32 end,
        uint128 escrow
    ) public {
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 5);
        (proposal.size, proposal.ratePerEpoch, proposal.endEpoch, proposal.escrow) =
        (size, rate % 100_000, end % 40, escrow % 2_000_000);
        uint32 id = activate(proposal);
        checkSums();
        equal(totalLocked(), id == 0 ? 0 : proposal.escrow, "locked");
        if (id != 0) require(uint256(proposal.ratePerEpoch) * (proposal.endEpoch - 11) <= proposal.escrow, "covered");
    }
}
