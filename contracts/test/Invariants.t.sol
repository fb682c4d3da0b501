// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "../src/TestToken.sol";
import {IProviderRegistry} from "../src/interfaces/IProviderRegistry.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Handler, OpenMarket} from "./Handler.sol";
import {vm} from "./Vm.sol";

/// @title What holds after any history. See docs/settlement.md for the list, and test/mutations for the faults that each one notices.
contract InvariantsTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private handler;
    OpenMarket private market;
    IProviderRegistry private registry;
    TestToken private token;

    function setUp() public {
        handler = new Handler();
        handler.setUp();
        market = handler.theMarket();
        registry = market.registry();
        token = TestToken(address(market.token()));
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), deeds());
    }

    /// What makes much of the rest possible stands more than once.
    function deeds() private pure returns (bytes4[] memory chosen) {
        bytes4[27] memory all = [
            Handler.doActivate.selector,
            Handler.doActivate.selector,
            Handler.doRevise.selector,
            Handler.doRevise.selector,
            Handler.doProve.selector,
            Handler.doGoodEpochs.selector,
            Handler.doGoodEpochs.selector,
            Handler.doGoodEpochs.selector,
            Handler.doMoveOn.selector,
            Handler.doAdvance.selector,
            Handler.doWait.selector,
            Handler.doAskAndSee.selector,
            Handler.doDonate.selector,
            Handler.doSleep.selector,
            Handler.doAsk.selector,
            Handler.doAnswer.selector,
            Handler.doFail.selector,
            Handler.doTerminate.selector,
            Handler.doCloseDead.selector,
            Handler.doReserve.selector,
            Handler.doAnnounceRelease.selector,
            Handler.doRelease.selector,
            Handler.doReleaseWhole.selector,
            Handler.doDeposit.selector,
            Handler.doWithdraw.selector,
            Handler.doStake.selector,
            Handler.doUnstake.selector
        ];
        chosen = new bytes4[](all.length);
        for (uint256 n = 0; n < all.length; ++n) {
            chosen[n] = all[n];
        }
    }

    // --- the invariants -----------------------------------------------------------------------------------------------

    /// First: what is locked is what open agreements may still pay, by the market's own reading and by the books of what was done.
    function invariant_locked_is_the_unproven_escrow_of_open_agreements() public view {
        uint256 standing = 0;
        uint256 written = 0;
        for (uint32 id = 1; id < handler.agreements(); ++id) {
            require(handler.isOpen(id) == (market.getAgreement(id).client != address(0)), "open where the books say so");
            if (!handler.isOpen(id)) continue;
            (, uint256 one) = market.standing(id);
            standing += one;
            written += handler.unproven(id);
        }
        (, uint256 locked,,) = market.totals();
        equal(locked, standing, "totalLocked against standings");
        equal(locked, written, "totalLocked against the books");
    }

    function invariant_everything_else() public view {
        holdsWhatItOwes();
        sumsAreSumsOfParts();
        setsAreSumsOfAgreements();
        slashedIsBountyAndCompensation();
        nothingWentWrongInside();
    }

    function holdsWhatItOwes() private view {
        (uint256 free, uint256 locked, uint256 bonded, uint256 compensation) = market.totals();
        uint256 owed = free + locked + bonded + compensation + registry.totalStake();
        equal(token.balanceOf(address(market)), owed + handler.donated(), "balance");
        equal(handler.deposited(), owed + handler.withdrawn(), "deposits");
    }

    function sumsAreSumsOfParts() private view {
        (uint256 free,, uint256 bonded,) = market.totals();
        address[2] memory providers = handler.providers();
        address[2] memory clients = handler.clients();
        uint256 accounts = market.free(address(handler));
        for (uint256 n = 0; n < 2; ++n) {
            accounts += market.free(clients[n]) + market.free(providers[n]);
        }
        equal(free, accounts, "totalFree");
        equal(registry.totalStake(), uint256(registry.stakeOf(providers[0])) + registry.stakeOf(providers[1]), "stakes");
        uint256 bonds = 0;
        for (uint32 id = 1; id < handler.agreements(); ++id) {
            bonds += market.getQuestion(id).bond;
        }
        equal(bonded, bonds, "totalBonded");
    }

    function setsAreSumsOfAgreements() private view {
        address[2] memory providers = handler.providers();
        for (uint256 n = 0; n < 2; ++n) {
            checkSet(providers[n]);
        }
    }

    function checkSet(address provider) private view {
        (IStorageMarket.ProofSet memory set, uint128 rate) = market.getSet(provider);
        uint256[5] memory sums;
        uint32 last = set.epoch;
        for (uint32 id = 1; id < handler.agreements(); ++id) {
            IStorageMarket.Agreement memory agreement = market.getAgreement(id);
            if (agreement.client == address(0) || agreement.provider != provider) continue;
            (uint96 current, uint96 next) = (agreement.current.ratePerEpoch, agreement.next.ratePerEpoch);
            sums[0] += 1;
            sums[1] += current;
            sums[2] += current > next ? current : next;
            sums[3] += market.getQuestion(id).epoch != 0 ? 1 : 0;
            // An agreement changes when it ends, and before that when what is next begins. What was due when a set died never will.
            uint32 end = agreement.next.from != 0 ? agreement.next.end : agreement.current.end;
            if (agreement.next.from != 0 && (set.deadAt == 0 || agreement.next.from > set.epoch)) ++sums[4];
            if (set.deadAt == 0 || end > set.epoch) ++sums[4];
            if (end > last) last = end;
        }
        uint256 changes = set.deadAt == 0 ? set.due : 0;
        for (uint32 epoch = set.epoch + 1; epoch <= last && sums[0] != 0; ++epoch) {
            changes += market.changesIn(provider, epoch);
        }
        equal(set.agreements, sums[0], "agreements");
        equal(rate, sums[1], "rate");
        equal(set.rateMax, sums[2], "rateMax");
        equal(set.questions, sums[3], "questions");
        equal(changes, sums[4], "changes to come");
        challengesFallOnPay(provider);
        if (sums[0] == 0) {
            for (uint32 epoch = market.currentEpoch(); epoch < market.currentEpoch() + 45; ++epoch) {
                equal(market.changesIn(provider, epoch), 0, "an empty set has nothing to come");
            }
        }
    }

    /// Every unit of what a set's epoch earns belongs to the agreement that earns it, so a challenge falls on an agreement as often as its
    /// share of the pay says. Looked at where one agreement's units end and the next one's begin.
    function challengesFallOnPay(address provider) private view {
        for (uint32 id = 1; id < handler.agreements(); ++id) {
            IStorageMarket.Agreement memory agreement = market.getAgreement(id);
            if (agreement.client == address(0) || agreement.provider != provider) continue;
            uint96 rate = agreement.current.ratePerEpoch;
            if (rate == 0) continue;
            uint128 first = earnedBefore(provider, agreement.position);
            equal(market.holderOf(provider, first), id, "first unit's agreement");
            equal(market.holderOf(provider, first + rate - 1), id, "last unit's agreement");
            require(agreement.current.size != 0, "what is paid for has bytes");
        }
    }

    /// What agreements at lower positions earn.
    function earnedBefore(address provider, uint32 position) private view returns (uint128 sum) {
        for (uint32 id = 1; id < handler.agreements(); ++id) {
            IStorageMarket.Agreement memory agreement = market.getAgreement(id);
            if (agreement.client == address(0) || agreement.provider != provider) continue;
            if (agreement.position < position) sum += agreement.current.ratePerEpoch;
        }
    }

    function slashedIsBountyAndCompensation() private view {
        uint256 slashed = handler.slashedForMisses() + handler.slashedForQuestions();
        equal(handler.staked(), registry.totalStake() + handler.unstaked() + slashed, "stake");
        (,,, uint256 compensation) = market.totals();
        equal(compensation, handler.slashedForMisses() - handler.bounties() - handler.compensated(), "compensation");
    }

    function nothingWentWrongInside() private view {
        string memory what = handler.violation();
        if (bytes(what).length != 0) revert(what);
    }

    /// Whatever happened: time alone ends every agreement, everybody takes everything out, and nothing but crumbs of rounding stays.
    function afterInvariant() public {
        leaveNothing();
    }

    function leaveNothing() private {
        handler.runOut();
        nothingWentWrongInside();
        (uint256 free, uint256 locked, uint256 bonded, uint256 compensation) = market.totals();
        equal(free + locked + bonded + registry.totalStake(), 0, "everything was taken out");
        require(compensation <= 2 * handler.roundings(), "crumbs of rounding");
        equal(token.balanceOf(address(market)), compensation + handler.donated(), "only they are left");
    }

    // --- the handler itself -------------------------------------------------------------------------------------------

    /// One long history, so that the short ones are known not to be hollow: everything in it happened often, and every invariant held.
    function test_a_long_history_holds_and_everything_happens_in_it() public {
        bytes4[] memory all = deeds();
        uint256 random = 1;
        for (uint256 n = 0; n < 2000; ++n) {
            random = uint256(keccak256(abi.encode(random)));
            bytes memory call = abi.encodePacked(all[random % all.length], abi.encode(words(random)));
            (bool ignored,) = address(handler).call(call);
            ignored;
            if (n % 25 == 0) checkAll();
            if (n % 500 == 499) {
                leaveNothing();
                handler.refill();
            }
        }
        string[18] memory wanted = [
            "activate",
            "revise",
            "prove",
            "moveOn",
            "advance",
            "wait",
            "sleep",
            "ask",
            "answer",
            "fail",
            "terminate",
            "closeDead",
            "reserve",
            "announceRelease",
            "release in two epochs",
            "stake",
            "unstake",
            "died"
        ];
        for (uint256 n = 0; n < wanted.length; ++n) {
            if (handler.done(wanted[n]) < 3) {
                revert(string.concat(wanted[n], " happened ", vm.toString(handler.done(wanted[n])), " times"));
            }
        }
    }

    function words(uint256 random) private pure returns (uint256[5] memory list) {
        for (uint256 n = 0; n < 5; ++n) {
            list[n] = uint256(keccak256(abi.encode(random, n))) >> 224;
        }
    }

    function checkAll() private view {
        invariant_locked_is_the_unproven_escrow_of_open_agreements();
        invariant_everything_else();
    }

    function equal(uint256 actual, uint256 expected, string memory what) private pure {
        if (actual != expected) {
            revert(string.concat(what, ": ", vm.toString(actual), " instead of ", vm.toString(expected)));
        }
    }
}
