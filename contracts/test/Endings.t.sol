// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {FragmentSets} from "../src/FragmentSets.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title Terms that run out, notice, and questions about one agreement.
contract EndingsTest is Fixture {
    uint32 private first;
    uint32 private second;

    function setUp() public override {
        super.setUp();
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 30);
        (proposal.retainedBytes, proposal.retainedUntil) = (1, 20);
        first = activate(proposal);
        second = open(ben, pat, 50, 30);
        nextEpoch();
        proveAs(pat);
    }

    function good(uint256 epochs) private {
        for (uint256 n = 0; n < epochs; ++n) {
            nextEpoch();
            proveAs(pat);
        }
    }

    function test_an_agreement_that_runs_out_is_closed_and_refunded() public {
        good(9);
        nextEpoch();
        nextEpoch();
        proveAs(pat);
        good(18);
        nextEpoch();
        market.advance(pat, 9);
        vm.expectEmit(address(market));
        emit IStorageMarket.AgreementClosed(first, 41, 100);
        moveAllOn();
        // One epoch was missed: refunded, and compensated with two epochs less a tenth.
        equal(market.free(anna), 1_000_000 - 2900 + 180, "anna");
        equal(market.free(pat), 29 * 150, "pat");
        equal(market.agreementOf(anna, pat), 0, "closed");
        equal(setOf(pat).agreements, 0, "empty");
        checkSums();
    }

    function test_a_client_gives_notice_and_pays_only_what_is_proven() public {
        vm.prank(ben);
        vm.expectEmit(address(market));
        emit IStorageMarket.EndMoved(second, 16, ben);
        market.terminate(second);
        equal(market.changesIn(pat, 41), 1, "only anna's end is there");
        good(4);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.free(ben), 1_000_000 - 5 * 50, "five epochs");
        equal(rateOf(pat), 100, "anna's goes on");
        proveAs(pat);
        checkSums();
    }

    function test_a_client_waits_for_what_it_wanted_retained() public {
        vm.prank(anna);
        market.terminate(first);
        equal(market.getAgreement(first).current.end, 20, "not before that");
    }

    function test_a_client_leaves_a_provider_that_stopped_proving_at_once() public {
        nextEpoch();
        nextEpoch();
        market.advance(pat, 9);
        equal(setOf(pat).misses, 1, "missed");
        vm.prank(anna);
        market.terminate(first);
        equal(market.getAgreement(first).current.end, 14, "the next epoch");
    }

    function test_a_provider_gives_notice_too() public {
        vm.prank(pat);
        market.terminate(second);
        equal(market.getAgreement(second).current.end, 16, "end");
        equal(registry.stakeOf(pat), 1_000_000, "nothing to pay");
        vm.prank(pat);
        registry.setOperator(hot);
        vm.prank(hot);
        market.terminate(second);
        equal(market.getAgreement(second).current.end, 16, "an end never moves back");
    }

    function test_a_provider_that_leaves_before_it_promised_pays_the_client_for_one_miss_once() public {
        vm.prank(pat);
        vm.expectEmit(address(market));
        emit IStorageMarket.LeftEarly(first, 200);
        market.terminate(first);
        equal(registry.stakeOf(pat), 999_800, "stake");
        equal(market.free(anna), 1_000_000 - 3000 + 200, "client");
        vm.prank(pat);
        market.terminate(first);
        equal(registry.stakeOf(pat), 999_800, "once");
        checkSums();
    }

    function test_only_the_two_sides_terminate() public {
        vm.prank(ben);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.terminate(first);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotOpen.selector, 9));
        market.terminate(9);
    }

    function test_terms_that_were_posted_begin_before_they_end() public {
        IStorageMarket.Revision memory revision = revisionOf(second);
        revision.ratePerEpoch = 20;
        revise(revision);
        nextEpoch();
        nextEpoch();
        market.advance(pat, 1);
        moveAllOn();
        market.advance(pat, 9);
        revision = revisionOf(second);
        revision.ratePerEpoch = 10;
        revise(revision);
        vm.prank(ben);
        market.terminate(second);
        equal(market.getAgreement(second).next.end, 15, "one epoch of the new terms");
        good(1);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.agreementOf(ben, pat), 0, "closed");
        checkSums();
    }

    function test_terminating_what_ends_now_closes_it() public {
        good(29);
        nextEpoch();
        vm.prank(anna);
        market.terminate(first);
        equal(market.agreementOf(anna, pat), 0, "closed");
        checkSums();
    }

    function test_moving_on_what_is_not_due_changes_nothing() public {
        bytes32 before = keccak256(abi.encode(market.getAgreement(first), setOf(pat)));
        moveAllOn();
        require(before == keccak256(abi.encode(market.getAgreement(first), setOf(pat))), "the same");
    }

    // --- questions ----------------------------------------------------------------------------------------------------

    function ask(address client, uint32 id) private {
        vm.prank(client);
        market.ask(id);
    }

    function test_an_answered_question_pays_the_bond() public {
        vm.expectEmit(address(market));
        emit IStorageMarket.Asked(second, 12, 50);
        ask(ben, second);
        (,, uint256 bonded,) = market.totals();
        equal(bonded, 50, "bonded");
        nextEpoch();
        market.advance(pat, 9);
        uint256 before = market.free(pat);
        vm.prank(STRANGER);
        market.answer(second, answersOf(second));
        equal(market.free(pat) - before, 50, "bond");
        equal(setOf(pat).questions, 0, "none open");
        market.prove(pat, proofsOf(pat));
        nextEpoch();
        vm.expectRevert(IStorageMarket.NoQuestion.selector);
        market.fail(second);
        checkSums();
    }

    /// A small agreement that lost its data inside a big set: the proof of the whole set hardly ever asks for it, a question always does.
    function test_an_unanswered_question_ends_the_one_agreement() public {
        ask(ben, second);
        nextEpoch();
        proveAs(pat);
        nextEpoch();
        vm.prank(STRANGER);
        vm.expectEmit(address(market));
        emit IStorageMarket.Unanswered(second, 12, 100);
        market.fail(second);
        equal(market.free(ben), 1_000_000 - 1500 + 100, "slashed for ben, and the bond is back");
        equal(registry.stakeOf(pat), 999_900, "stake");
        equal(market.getAgreement(second).current.end, 14, "ends");
        proveAs(pat);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.agreementOf(ben, pat), 0, "closed");
        equal(rateOf(pat), 100, "anna's goes on");
        checkSums();
    }

    /// The end of an agreement is no way around its last question.
    function test_a_question_in_the_last_epoch_is_judged_at_the_end() public {
        good(28);
        ask(ben, second);
        vm.prank(anna);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        market.ask(second);
        good(1);
        vm.prank(ben);
        vm.expectRevert(IStorageMarket.QuestionOpen.selector);
        market.ask(second);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(registry.stakeOf(pat), 999_900, "slashed");
        equal(market.free(ben), 1_000_000 - 1500 + 100, "ben");
        checkSums();
    }

    function test_no_question_about_an_epoch_after_the_end() public {
        good(29);
        vm.prank(ben);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.QuestionTime.selector, 41));
        market.ask(second);
    }

    function test_a_question_needs_its_bond() public {
        uint256 all = market.free(ben);
        vm.prank(ben);
        market.withdraw(all - 49, ben);
        vm.prank(ben);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.Balance.selector, 50, 49));
        market.ask(second);
    }

    function test_an_answer_is_for_its_epoch_and_its_agreement() public {
        IStorageMarket.Proof[] memory none = new IStorageMarket.Proof[](3);
        vm.expectRevert(IStorageMarket.NoQuestion.selector);
        market.answer(second, none);
        vm.expectRevert(IStorageMarket.NoQuestion.selector);
        market.questionOf(second);
        ask(ben, second);
        ask(anna, first);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.QuestionTime.selector, 12));
        market.answer(second, none);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.QuestionTime.selector, 12));
        market.fail(second);
        nextEpoch();
        market.advance(pat, 9);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.QuestionTime.selector, 12));
        market.fail(second);
        IStorageMarket.Proof[] memory ofAnna = answersOf(first);
        vm.expectRevert();
        market.answer(second, ofAnna);
        IStorageMarket.Proof[] memory right = answersOf(second);
        IStorageMarket.Proof[] memory fewer = new IStorageMarket.Proof[](1);
        fewer[0] = right[0];
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ProofCount.selector, 3, 1));
        market.answer(second, fewer);
        right[0].chunk[0] ^= 0x01;
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongChunk.selector, 0));
        market.answer(second, right);
        nextEpoch();
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.QuestionTime.selector, 12));
        market.answer(second, right);
    }

    function test_a_question_in_a_void_epoch_gives_the_bond_back_and_slashes_nobody() public {
        ask(ben, second);
        toEpoch(13);
        vm.expectEmit(address(market));
        emit IStorageMarket.QuestionVoid(second, 12);
        market.fail(second);
        equal(registry.stakeOf(pat), 1_000_000, "stake");
        equal(market.free(ben), 1_000_000 - 1500, "bond");
        equal(market.getAgreement(second).current.end, 41, "goes on");
        checkSums();
    }

    function test_a_question_about_nothing_is_answered_with_nothing() public {
        IStorageMarket.Revision memory revision = revisionOf(second);
        (revision.size, revision.ratePerEpoch) = (0, 0);
        revise(revision);
        ask(ben, second);
        nextEpoch();
        market.answer(second, new IStorageMarket.Proof[](0));
        equal(setOf(pat).questions, 0, "answered");
    }

    function test_a_dead_set_gives_bonds_back_and_takes_no_questions() public {
        for (uint256 n = 0; n < 3; ++n) {
            nextEpoch();
            if (n == 2) ask(ben, second);
        }
        nextEpoch();
        market.advance(pat, 9);
        require(setOf(pat).deadAt != 0, "dead");
        vm.prank(anna);
        vm.expectRevert(IStorageMarket.SetDead.selector);
        market.ask(first);
        vm.expectRevert(IStorageMarket.SetDead.selector);
        market.fail(second);
        market.closeDead(second);
        (,, uint256 bonded,) = market.totals();
        equal(bonded, 0, "bond is back");
        checkSums();
    }

    /// A client that asks in every epoch pays for it every time, and keeps no stake locked beyond what one miss more would take.
    function test_questions_lock_no_more_stake_than_they_could_cost() public {
        equal(market.stakeNeeded(pat), 150 * 14, "without a question");
        ask(ben, second);
        equal(market.stakeNeeded(pat), 150 * 16, "with one");
        vm.prank(pat);
        registry.withdrawStake(1_000_000 - 150 * 16, pat);
        nextEpoch();
        market.answer(second, answersOf(second));
        ask(ben, second);
        equal(market.free(ben), 1_000_000 - 1500 - 100, "ben paid two bonds");
        checkSums();
    }

    function test_a_slash_takes_no_more_than_there_is() public {
        vm.prank(pat);
        registry.withdrawStake(1_000_000 - 2100, pat);
        // Six misses, never three in a row, leave 300.
        for (uint256 n = 0; n < 6; ++n) {
            nextEpoch();
            nextEpoch();
            market.advance(pat, 9);
            if (n < 5) proveAs(pat);
        }
        proveAs(pat);
        equal(registry.stakeOf(pat), 300, "left");
        ask(ben, second);
        ask(anna, first);
        good(1);
        nextEpoch();
        market.fail(first);
        market.fail(second);
        equal(registry.stakeOf(pat), 0, "all of it, and nothing more");
        checkSums();
    }

    // --- an end stays where it was put ------------------------------------------------------------------------------

    /// Each end costs stake, which goes to the client: a provider that is its own client must not get out all that others rely on.
    function test_stake_does_not_come_out_by_leaving_early_again_and_again() public {
        vm.prank(pat);
        market.terminate(first);
        uint256 stake = registry.stakeOf(pat);
        IStorageMarket.Revision memory longer = revisionOf(first);
        longer.endEpoch += 1;
        expectRevisionSkipped(longer, IStorageMarket.Skip.Epochs);
        revise(longer);
        vm.prank(pat);
        market.terminate(first);
        equal(registry.stakeOf(pat), stake, "paid for once");
        checkSums();
    }

    function test_a_revision_in_the_pocket_does_not_undo_a_failed_question() public {
        vm.prank(ben);
        market.ask(second);
        good(2);
        IStorageMarket.Revision memory pocketed = revisionOf(second);
        market.fail(second);
        expectRevisionSkipped(pocketed, IStorageMarket.Skip.Epochs);
        revise(pocketed);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.agreementOf(ben, pat), 0, "it ended");
        checkSums();
    }

    function test_a_revision_in_the_pocket_does_not_take_back_the_way_out_after_a_miss() public {
        nextEpoch();
        nextEpoch();
        market.advance(pat, 9);
        equal(setOf(pat).misses, 1, "missed");
        IStorageMarket.Revision memory pocketed = revisionOf(first);
        vm.prank(anna);
        market.terminate(first);
        expectRevisionSkipped(pocketed, IStorageMarket.Skip.Epochs);
        revise(pocketed);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.agreementOf(anna, pat), 0, "out, retained or not");
        checkSums();
    }

    /// Whoever gave notice is let go, and what is held meanwhile may still change.
    function test_what_ends_may_be_revised_but_not_prolonged() public {
        vm.prank(pat);
        market.terminate(second);
        require(market.getAgreement(second).ending, "told");
        IStorageMarket.Revision memory other = revisionOf(second);
        (other.setRoot, other.size) = newSet(77, 3);
        revise(other);
        equal(market.getAgreement(second).sequence, other.sequence, "other data until then");
        other.sequence += 1;
        other.endEpoch += 1;
        expectRevisionSkipped(other, IStorageMarket.Skip.Epochs);
        revise(other);
    }

    /// Nor does one that would have ended within the notice anyway.
    function test_a_notice_later_than_the_end_prevents_a_later_end_too() public {
        uint32 soon = open(anna, quinn, 100, 2);
        vm.prank(quinn);
        market.terminate(soon);
        IStorageMarket.Revision memory longer = revisionOf(soon);
        longer.endEpoch += 10;
        expectRevisionSkipped(longer, IStorageMarket.Skip.Epochs);
        revise(longer);
    }
}
