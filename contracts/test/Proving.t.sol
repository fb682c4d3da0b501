// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {FragmentSets} from "../src/FragmentSets.sol";
import {IChunkPaths} from "../src/interfaces/IChunkPaths.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title Proofs, misses, void epochs and the end of a set.
contract ProvingTest is Fixture {
    uint32 private first;
    uint32 private second;

    function setUp() public override {
        super.setUp();
        first = open(anna, pat, 100, 300);
        second = open(ben, pat, 50, 300);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
    }

    /// The arithmetic that every prover repeats: the agreement by a unit of the pay, then a byte of its set by another draw.
    function test_a_challenge_falls_on_pay_and_then_on_a_byte() public {
        uint32[2] memory hits;
        for (uint32 epoch = 11; epoch < 41; ++epoch) {
            (uint32[] memory ids, uint64[] memory offsets) = market.challengesOf(pat);
            for (uint256 n = 0; n < 3; ++n) {
                bytes32 seed = beacon.seed(epoch);
                bytes32 domain = keccak256("seedbank challenge 1");
                uint256 drawn = uint256(keccak256(abi.encode(domain, block.chainid, market, pat, epoch, seed, n)));
                // The first has units 0 to 99, the second 100 to 149.
                uint32 id = drawn % 150 < 100 ? first : second;
                equal(ids[n], id, "agreement");
                uint64 size = market.getAgreement(id).current.size;
                equal(offsets[n], uint256(keccak256(abi.encode(drawn))) % size, "byte");
                ++hits[id == first ? 0 : 1];
            }
            nextEpoch();
        }
        require(hits[0] > 45 && hits[1] > 15, "both are asked for");
    }

    function test_a_proven_epoch_pays_the_rate_of_the_whole_set_at_once() public {
        vm.expectEmit(address(market));
        emit IStorageMarket.Proven(pat, 11, 150);
        market.prove(pat, proofsOf(pat));
        equal(market.free(pat), 150, "paid");
        (uint256 earned, uint256 locked) = market.standing(first);
        equal(earned, 100, "earned");
        equal(locked, 29_900, "locked");
        (bool proven, bool missed) = market.outcome(pat, 11);
        require(proven && !missed, "outcome");
        checkSums();
    }

    function test_anyone_may_send_it_and_the_provider_is_paid() public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        vm.prank(STRANGER);
        market.prove(pat, proofs);
        equal(market.free(STRANGER), 0, "stranger");
        equal(market.free(pat), 150, "provider");
    }

    function test_an_epoch_is_paid_once() public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        market.prove(pat, proofs);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.AlreadyProven.selector, 11));
        market.prove(pat, proofs);
    }

    function test_the_proof_of_another_epoch_is_none() public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        nextEpoch();
        market.advance(pat, 9);
        vm.expectRevert();
        market.prove(pat, proofs);
    }

    /// Early: before the epoch has a seed nothing can be proven, and the seed can't be known.
    function test_without_a_seed_there_is_no_proof() public {
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NoSeed.selector, 12));
        toEpoch(12);
        market.challengesOf(pat);
    }

    function test_a_proof_seals_the_seed_if_nobody_did() public {
        toEpoch(12);
        require(beacon.seed(12) == 0, "not sealed");
        vm.expectRevert();
        market.prove(pat, new IStorageMarket.Proof[](3));
        sealEpoch();
        market.prove(pat, proofsOf(pat));
    }

    function test_the_proof_of_another_provider_is_none() public {
        open(anna, quinn, 100, 5);
        nextEpoch();
        market.advance(quinn, 9);
        market.advance(pat, 9);
        moveAllOn();
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        vm.expectRevert(FragmentSets.WrongSetPath.selector);
        market.prove(quinn, proofs);
    }

    function test_exactly_the_chunks_asked_for_in_order() public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        IStorageMarket.Proof[] memory fewer = new IStorageMarket.Proof[](2);
        (fewer[0], fewer[1]) = (proofs[0], proofs[1]);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ProofCount.selector, 3, 2));
        market.prove(pat, fewer);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ProofCount.selector, 3, 0));
        market.prove(pat, new IStorageMarket.Proof[](0));
        (proofs[0], proofs[1]) = (proofs[1], proofs[0]);
        vm.expectRevert();
        market.prove(pat, proofs);
    }

    function refused(IStorageMarket.Proof[] memory proofs, bytes memory reason) private {
        vm.expectRevert(reason);
        market.prove(pat, proofs);
    }

    function refused(IStorageMarket.Proof[] memory proofs, bytes4 reason) private {
        vm.expectRevert(reason);
        market.prove(pat, proofs);
    }

    function test_every_part_of_a_proof_counts() public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        // The chunk.
        proofs[1].chunk[31] ^= 0x01;
        refused(proofs, abi.encodeWithSelector(IStorageMarket.WrongChunk.selector, 1));
        // Its number.
        proofs = proofsOf(pat);
        proofs[2].chunk[63] ^= 0x01;
        refused(proofs, abi.encodeWithSelector(IStorageMarket.WrongChunk.selector, 2));
        // The way up in the fragment.
        proofs = proofsOf(pat);
        proofs[0].siblings = new bytes32[](1);
        refused(proofs, abi.encodeWithSelector(IChunkPaths.PathLength.selector, 0, 1));
        // The leaf.
        proofs = proofsOf(pat);
        proofs[0].fragment.fragment ^= bytes32(uint256(1));
        refused(proofs, FragmentSets.WrongSetPath.selector);
        proofs = proofsOf(pat);
        proofs[0].fragment.length += 1;
        refused(proofs, FragmentSets.WrongSetPath.selector);
        proofs = proofsOf(pat);
        proofs[0].fragment.retainUntil += 1;
        refused(proofs, FragmentSets.WrongSetPath.selector);
    }

    function test_after_its_epoch_a_proof_is_too_late() public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        nextEpoch();
        vm.expectRevert();
        market.prove(pat, proofs);
        market.advance(pat, 9);
        (bool proven, bool missed) = market.outcome(pat, 11);
        require(!proven && missed, "missed for good");
    }

    function test_nothing_is_proven_while_agreements_are_due() public {
        uint32 third = open(anna, quinn, 100, 5);
        nextEpoch();
        market.advance(quinn, 9);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.TermsDue.selector, 1));
        market.prove(quinn, new IStorageMarket.Proof[](3));
        uint32[] memory ids = new uint32[](3);
        (ids[0], ids[1], ids[2]) = (third, 99, third);
        market.moveOn(ids);
        market.prove(quinn, proofsOf(quinn));
    }

    function test_who_holds_nothing_proves_nothing() public {
        vm.expectRevert(IStorageMarket.NothingToProve.selector);
        market.prove(quinn, new IStorageMarket.Proof[](3));
        market.advance(quinn, 9);
        equal(setOf(quinn).epoch, 0, "advancing it changes nothing");
    }

    function test_a_set_left_with_something_due_is_behind() public {
        open(anna, quinn, 100, 5);
        nextEpoch();
        nextEpoch();
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.Behind.selector, 12, 13));
        market.prove(quinn, new IStorageMarket.Proof[](3));
    }

    // --- misses -------------------------------------------------------------------------------------------------------

    function test_a_miss_costs_two_epochs_and_goes_to_who_recorded_it_and_to_the_clients() public {
        nextEpoch();
        vm.expectEmit(address(market));
        emit IStorageMarket.Missed(pat, 11, 300, 30, STRANGER);
        vm.prank(STRANGER);
        market.advance(pat, 9);
        equal(market.free(STRANGER), 30, "bounty");
        equal(registry.stakeOf(pat), 999_700, "stake");
        (,,, uint256 compensation) = market.totals();
        equal(compensation, 270, "for the clients");
        equal(market.free(pat), 0, "no pay");
        // The clients get theirs when their agreements are settled.
        revise(revisionOf(first));
        market.prove(pat, proofsOf(pat));
        nextEpoch();
        proveAs(pat);
        equal(market.free(anna), 1_000_000 - 30_000 + 180, "anna's part");
        (,,, compensation) = market.totals();
        equal(compensation, 90, "ben's part");
        checkSums();
    }

    /// A provider that lost everything earns nothing from the next epoch on.
    function test_a_provider_that_lost_everything_earns_nothing_and_dies() public {
        market.prove(pat, proofsOf(pat));
        for (uint32 epoch = 12; epoch <= 15; ++epoch) {
            nextEpoch();
            market.advance(pat, 9);
        }
        equal(setOf(pat).deadAt, 15, "after three misses");
        equal(market.free(pat), 150, "nothing more");
        vm.expectRevert(IStorageMarket.SetDead.selector);
        market.prove(pat, new IStorageMarket.Proof[](3));
        vm.expectRevert(IStorageMarket.SetDead.selector);
        market.terminate(first);
        market.closeDead(first);
        market.closeDead(second);
        // One of 300 epochs was paid; three misses of two epochs, less a tenth.
        equal(market.free(anna), 1_000_000 - 100 + 540, "anna");
        equal(market.free(ben), 1_000_000 - 50 + 270, "ben");
        equal(totalLocked(), 0, "locked");
        checkSums();
        vm.prank(pat);
        registry.withdrawStake(1_000_000 - 900, pat);
    }

    function test_a_proof_ends_a_row_of_misses() public {
        for (uint256 n = 0; n < 3; ++n) {
            if (n != 0) nextEpoch();
            nextEpoch();
            nextEpoch();
            market.advance(pat, 9);
            equal(setOf(pat).misses, 2, "two");
            market.prove(pat, proofsOf(pat));
            equal(setOf(pat).misses, 0, "none");
        }
    }

    function test_a_set_dies_when_its_stake_does_not_cover_another_miss() public {
        vm.prank(pat);
        registry.withdrawStake(1_000_000 - 2100, pat);
        for (uint256 n = 1; n <= 7; ++n) {
            equal(setOf(pat).deadAt, 0, "alive");
            nextEpoch();
            market.advance(pat, 9);
            equal(registry.stakeOf(pat), 2100 - 300 * n, "slashed once more");
            if (n < 7) market.prove(pat, proofsOf(pat));
            if (n < 7) nextEpoch();
            if (n < 7) market.advance(pat, 9);
        }
        require(setOf(pat).deadAt != 0, "dead");
        market.closeDead(first);
        market.closeDead(second);
        checkSums();
    }

    // --- void epochs --------------------------------------------------------------------------------------------------

    function test_an_epoch_without_a_seed_is_neither_paid_nor_slashed() public {
        market.prove(pat, proofsOf(pat));
        toEpoch(14);
        vm.expectEmit(address(market));
        emit IStorageMarket.VoidEpoch(pat, 12);
        market.advance(pat, 9);
        equal(setOf(pat).epoch, 14, "all are closed");
        equal(registry.stakeOf(pat), 1_000_000, "stake");
        equal(setOf(pat).misses, 0, "misses");
        equal(lockedOf(first), 29_900, "the client keeps what was not proven");
    }

    function test_an_epoch_in_which_the_chain_stood_still_is_void() public {
        toEpoch(12);
        beacon.seal();
        vm.roll(vm.getBlockNumber() + BLOCKS_MIN - 2);
        toEpoch(13);
        market.advance(pat, 1);
        equal(registry.stakeOf(pat), 999_700, "epoch 11 was missed");
        market.advance(pat, 1);
        equal(registry.stakeOf(pat), 999_700, "epoch 12 is void");
    }

    /// The first call after a silence says that the past epochs are past: blocks after it make none of them count.
    function test_a_void_epoch_stays_void_however_many_blocks_follow() public {
        toEpoch(12);
        beacon.seal();
        toEpoch(13);
        market.advance(pat, 1);
        vm.roll(vm.getBlockNumber() + 100);
        market.advance(pat, 9);
        equal(registry.stakeOf(pat), 999_700, "only epoch 11 was missed");
    }

    function test_a_long_silence_is_closed_in_pieces() public {
        market.prove(pat, proofsOf(pat));
        toEpoch(11 + 250);
        for (uint256 n = 0; n < 5; ++n) {
            market.advance(pat, 50);
            equal(setOf(pat).epoch, 61 + 50 * n, "fifty at a time");
        }
        sealEpoch();
        market.prove(pat, proofsOf(pat));
        (uint256 earned,) = market.standing(first);
        equal(earned, 200, "across a word of 256 epochs");
        nextEpoch();
        proveAs(pat);
        (earned,) = market.standing(first);
        equal(earned, 300, "and on");
    }

    /// Standing is read right in the last epoch of a word of 256 too.
    function test_standing_at_the_end_of_a_word() public {
        toEpoch(255);
        proveAs(pat);
        (uint256 earned,) = market.standing(first);
        equal(earned, 100, "epoch 255");
        toEpoch(256);
        market.advance(pat, 1);
        (earned,) = market.standing(first);
        equal(earned, 100, "and after it");
    }

    // --- due agreements that nobody moves on --------------------------------------------------------------------------

    function stall() private returns (uint32 third) {
        market.prove(pat, proofsOf(pat));
        third = open(anna, quinn, 100, 20);
        uint32 fourth = open(ben, quinn, 60, 20);
        nextEpoch();
        proveAs(quinn);
        IStorageMarket.Revision memory revision = revisionOf(fourth);
        revision.ratePerEpoch = 40;
        revise(revision);
    }

    function test_due_agreements_hold_a_set_up_only_as_long_as_it_takes_a_set_to_die() public {
        uint32 third = stall();
        for (uint32 epoch = 13; epoch <= 16; ++epoch) {
            nextEpoch();
            market.advance(quinn, 9);
            equal(setOf(quinn).epoch, 13, "waits for ben's agreement");
            equal(setOf(quinn).deadAt, 0, "alive");
        }
        nextEpoch();
        vm.prank(STRANGER);
        market.advance(quinn, 9);
        equal(setOf(quinn).deadAt, 14, "dead");
        equal(registry.stakeOf(quinn), 1_000_000 - 320, "with one miss, of the rates that held");
        market.closeDead(third);
        equal(market.free(anna), 1_000_000 - 30_000 - 100 + 180, "anna is out, without ben's agreement");
        market.closeDead(market.agreementOf(ben, quinn));
        equal(market.free(ben), 1_000_000 - 15_000 - 60 + 108, "ben too");
        equal(setOf(quinn).agreements, 0, "empty");
        checkSums();
        // Nothing of the old set is left in the way of a new one.
        open(anna, quinn, 100, 20);
        for (uint256 n = 0; n < 19; ++n) {
            nextEpoch();
            proveAs(quinn);
        }
        checkSums();
    }

    function test_a_halted_chain_kills_no_set() public {
        stall();
        toEpoch(40);
        market.advance(quinn, 99);
        equal(setOf(quinn).deadAt, 0, "alive");
        moveAllOn();
        market.advance(quinn, 99);
        equal(registry.stakeOf(quinn), 1_000_000, "not slashed");
    }

    /// A dead set's changes to come must be forgotten, or a later set of the same provider would wait for them for ever.
    function test_a_provider_begins_anew_after_its_set_died() public {
        market.prove(pat, proofsOf(pat));
        IStorageMarket.Revision memory revision = revisionOf(first);
        revision.endEpoch = 25;
        revise(revision);
        for (uint32 epoch = 12; epoch <= 15; ++epoch) {
            nextEpoch();
            moveAllOn();
            market.advance(pat, 9);
        }
        require(setOf(pat).deadAt != 0, "dead");
        market.closeDead(first);
        market.closeDead(second);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotOpen.selector, second));
        market.closeDead(second);
        equal(market.changesIn(pat, 25), 0, "anna's end");
        equal(market.changesIn(pat, 311), 0, "ben's end");
        uint32 third = open(anna, pat, 100, 20);
        equal(market.getAgreement(third).position, 1, "in a position that was left");
        for (uint256 n = 0; n < 20; ++n) {
            nextEpoch();
            proveAs(pat);
        }
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(setOf(pat).agreements, 0, "ended");
        checkSums();
    }

    function test_a_living_set_is_not_closed_as_dead() public {
        vm.expectRevert(IStorageMarket.SetAlive.selector);
        market.closeDead(first);
    }

    // --- chance -------------------------------------------------------------------------------------------------------

    /// With share f lost of what it is paid for a provider proves an epoch with probability (1 - f)^K. Here three tenths of what earns two thirds,
    /// so a fifth, and K = 3: 0.512.
    function test_who_lost_a_fifth_is_paid_as_often_as_the_formula_says() public {
        uint64 size = market.getAgreement(first).current.size;
        uint256 lucky = 0;
        uint256 epochs = 1000;
        for (uint256 n = 0; n < epochs; ++n) {
            vm.roll(vm.getBlockNumber() + 1);
            toEpoch(uint32(400 + n));
            beacon.seal();
            (uint32[] memory ids, uint64[] memory offsets) = market.challengesOf(pat);
            bool held = true;
            for (uint256 m = 0; m < 3; ++m) {
                if (ids[m] == first && offsets[m] < uint256(size) * 3 / 10) held = false;
            }
            if (held) ++lucky;
        }
        // Three standard deviations of a binomial with p = 0.512 are 47.
        require(lucky > 465 && lucky < 559, vm.toString(lucky));
    }

    function testFuzz_no_bit_of_a_proof_can_be_flipped(uint256 which, uint256 bit) public {
        IStorageMarket.Proof[] memory proofs = proofsOf(pat);
        IStorageMarket.Proof memory proof = proofs[which % 3];
        uint256 part = bit % 6;
        bit >>= 8;
        if (part == 0) proof.chunk[bit % 64] ^= bytes1(uint8(1 << (bit >> 8 & 7)));
        if (part == 1) proof.fragment.fragment ^= bytes32(1 << (bit & 255));
        if (part == 2) proof.fragment.length ^= uint64(1 << (bit & 63));
        if (part == 3) proof.fragment.retainUntil ^= uint32(1 << (bit & 31));
        if (part == 4) proof.fragment.turns ^= uint64(1 << (bit & 63));
        if (part == 5) {
            uint256 levels = proof.fragment.hashes.length;
            if (levels == 0) proof.fragment.hashes = new bytes32[](1);
            else if (bit & 1 == 0) proof.fragment.hashes[bit % levels] ^= bytes32(1 << (bit >> 8 & 255));
            else proof.fragment.sums[bit % levels] ^= uint64(1 << (bit >> 8 & 63));
        }
        vm.expectRevert();
        market.prove(pat, proofs);
    }
}
