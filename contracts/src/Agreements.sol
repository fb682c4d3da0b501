// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Epochs} from "./Epochs.sol";
import {Ledger, Ledgers, Rules} from "./Ledger.sol";
import {SumTree} from "./SumTree.sol";
import {IStorageMarket} from "./interfaces/IStorageMarket.sol";

/// @title How open agreements go on: epochs closed, misses slashed, terms begun and ended, money settled.
/// @notice Works on the market's state. It is a library of its own, linked to the market, because both together would be longer than a
///         contract may be.
library Agreements {
    using Epochs for Epochs.History;
    using Ledgers for Ledger;
    using SumTree for SumTree.Tree;

    uint256 private constant BASIS = 10_000;
    /// An announced release can be done from so many epochs later, and before so many: a whole epoch to post what was promised, and no
    /// announcement that waits for its chance.
    uint32 private constant RELEASE_AFTER = 2;
    uint32 private constant RELEASE_BEFORE = 4;

    /// @notice See `IStorageMarket.advance`.
    function advance(Ledger storage ledger, Rules memory rules, address provider, uint32 max) external {
        goOn(ledger, rules, provider, max);
    }

    /// @notice Brings a set to the current epoch, or says why it can't be.
    function catchUp(Ledger storage ledger, Rules memory rules, address provider) public returns (IStorageMarket.Skip) {
        goOn(ledger, rules, provider, type(uint32).max);
        IStorageMarket.ProofSet storage set = ledger.sets[provider];
        if (set.deadAt != 0) return IStorageMarket.Skip.NotOpen;
        return set.epoch == rules.currentEpoch ? IStorageMarket.Skip.None : IStorageMarket.Skip.Behind;
    }

    /// @notice Brings an open agreement and its set to the current epoch, or says why it can't be; `NotOpen` if that closed it.
    function bringUp(Ledger storage ledger, Rules memory rules, uint32 id) external returns (IStorageMarket.Skip skip) {
        skip = catchUp(ledger, rules, ledger.agreements[id].provider);
        if (skip != IStorageMarket.Skip.None) return skip;
        moveOnIfDue(ledger, rules, id);
        if (ledger.agreements[id].client == address(0)) return IStorageMarket.Skip.NotOpen;
    }

    /// @notice See `IStorageMarket.moveOn`.
    function moveOn(Ledger storage ledger, Rules memory rules, uint32[] calldata ids) external {
        for (uint256 number = 0; number < ids.length; ++number) {
            moveOnIfDue(ledger, rules, ids[number]);
        }
    }

    /// @notice See `IStorageMarket.release`.
    function release(Ledger storage ledger, Rules memory rules, uint32 id) external {
        ledger.yours(id);
        IStorageMarket.Release memory announced = ledger.releases[id];
        uint32 waited = rules.currentEpoch - announced.epoch;
        if (announced.amount == 0 || waited < RELEASE_AFTER || waited >= RELEASE_BEFORE) {
            revert IStorageMarket.ReleaseTime(announced.epoch);
        }
        delete ledger.releases[id];
        (IStorageMarket.Agreement storage agreement,) = upToDate(ledger, rules, id);
        if (agreement.client == address(0)) return;
        uint256 spare = agreement.escrow
            - ledger.neededFor(agreement, agreement.next.from != 0 ? agreement.next : agreement.current);
        uint256 amount = announced.amount < spare ? announced.amount : spare;
        agreement.escrow -= uint128(amount);
        ledger.totalLocked -= amount;
        ledger.credit(msg.sender, amount);
        emit IStorageMarket.Released(id, amount);
    }

    /// @notice See `IStorageMarket.terminate`.
    function terminate(Ledger storage ledger, Rules memory rules, uint32 id) external {
        (IStorageMarket.Agreement storage agreement, IStorageMarket.ProofSet storage set) = upToDate(ledger, rules, id);
        if (agreement.client == address(0)) return;
        uint32 end = set.epoch + 1;
        if (msg.sender == agreement.client) {
            if (set.misses == 0) {
                end += rules.noticeEpochs;
                if (end < agreement.retainedUntil) end = agreement.retainedUntil;
            }
            endAt(ledger, id, agreement, end);
        } else if (rules.registry.acts(msg.sender, agreement.provider)) {
            end += rules.noticeEpochs;
            if (endAt(ledger, id, agreement, end) && end < agreement.retainedUntil) {
                emit IStorageMarket.LeftEarly(id, slashFor(ledger, rules, agreement));
            }
        } else {
            revert IStorageMarket.NotYours();
        }
    }

    /// @notice See `IStorageMarket.closeDead`.
    function closeDead(Ledger storage ledger, Rules memory rules, uint32 id) external {
        IStorageMarket.Agreement storage agreement = ledger.opened(id);
        address provider = agreement.provider;
        IStorageMarket.ProofSet storage set = ledger.sets[provider];
        uint32 deadAt = set.deadAt;
        if (deadAt == 0) revert IStorageMarket.SetAlive();
        // Changes that were still to come never will. Those of `set.epoch` itself were counted off when it began.
        if (Ledgers.endOf(agreement) > set.epoch) --ledger.dueIn[provider][Ledgers.endOf(agreement)];
        if (agreement.next.from > set.epoch) --ledger.dueIn[provider][agreement.next.from];
        settle(ledger, rules, id, agreement, deadAt);
        close(ledger, rules, id, agreement, set, deadAt);
    }

    /// @notice See `IStorageMarket.fail`.
    function fail(Ledger storage ledger, Rules memory rules, uint32 id) external {
        ledger.opened(id);
        if (ledger.questions[id].epoch == 0) revert IStorageMarket.NoQuestion();
        (IStorageMarket.Agreement storage agreement, IStorageMarket.ProofSet storage set) = upToDate(ledger, rules, id);
        if (agreement.client == address(0)) return;
        if (ledger.questions[id].epoch >= set.epoch) revert IStorageMarket.QuestionTime(ledger.questions[id].epoch);
        if (judge(ledger, rules, id, agreement)) endAt(ledger, id, agreement, set.epoch + 1);
    }

    // --- inside -----

    /// An open agreement and its living set, both at the current epoch. Its client is zero if that closed it.
    function upToDate(Ledger storage ledger, Rules memory rules, uint32 id)
        private
        returns (IStorageMarket.Agreement storage agreement, IStorageMarket.ProofSet storage set)
    {
        agreement = ledger.opened(id);
        set = ledger.sets[agreement.provider];
        IStorageMarket.Skip skip = catchUp(ledger, rules, agreement.provider);
        if (skip == IStorageMarket.Skip.NotOpen) revert IStorageMarket.SetDead();
        if (skip == IStorageMarket.Skip.Behind) revert IStorageMarket.Behind(set.epoch, rules.currentEpoch);
        moveOnIfDue(ledger, rules, id);
    }

    /// Moves an agreement on whose terms begin or end with its set's epoch.
    function moveOnIfDue(Ledger storage ledger, Rules memory rules, uint32 id) private {
        IStorageMarket.Agreement storage agreement = ledger.agreements[id];
        address provider = agreement.provider;
        IStorageMarket.ProofSet storage set = ledger.sets[provider];
        uint32 epoch = set.epoch;
        IStorageMarket.Terms memory next = agreement.next;
        if (agreement.client == address(0) || set.deadAt != 0) return;
        if (epoch != (next.from != 0 ? next.from : agreement.current.end)) return;

        --set.due;
        settle(ledger, rules, id, agreement, epoch);
        if (next.from == 0) {
            close(ledger, rules, id, agreement, set, epoch);
            return;
        }
        set.rateMax = uint128(set.rateMax - Ledgers.dearerOf(agreement) + next.ratePerEpoch);
        ledger.rates[provider].change(agreement.position, agreement.current.ratePerEpoch, next.ratePerEpoch);
        agreement.current = next;
        delete agreement.next;
        emit IStorageMarket.TermsBegan(id, epoch, next.setRoot, next.size, next.ratePerEpoch);
    }

    /// Takes from the escrow what was earned with the current terms before `end`, and gives the client its part of what was slashed.
    function settle(
        Ledger storage ledger,
        Rules memory rules,
        uint32 id,
        IStorageMarket.Agreement storage agreement,
        uint32 end
    ) private {
        uint32 from = agreement.current.from;
        if (from == 0) return;
        agreement.escrow -= uint128(ledger.earnedIn(agreement, end));
        uint256 misses = ledger.histories[agreement.provider].missedIn(from, end);
        if (misses != 0) {
            uint256 compensation = uint256(agreement.current.ratePerEpoch) * rules.slashEpochs
                * (BASIS - rules.bountyBasisPoints) * misses / BASIS;
            ledger.totalCompensation -= compensation;
            ledger.credit(agreement.client, compensation);
            emit IStorageMarket.Compensated(id, compensation);
        }
    }

    /// Ends an agreement that is settled up to `epoch`, and refunds what is left of its escrow.
    function close(
        Ledger storage ledger,
        Rules memory rules,
        uint32 id,
        IStorageMarket.Agreement storage agreement,
        IStorageMarket.ProofSet storage set,
        uint32 epoch
    ) private {
        address provider = agreement.provider;
        address client = agreement.client;
        uint32 asked = ledger.questions[id].epoch;
        if (asked != 0) {
            // An end must not save a provider from a question that it left unanswered.
            if (set.deadAt == 0 && asked < epoch) judge(ledger, rules, id, agreement);
            else ledger.dropQuestion(id, provider, client);
        }
        uint256 refund = agreement.escrow;
        set.rateMax -= uint128(Ledgers.dearerOf(agreement));
        // An empty set begins anew.
        if (--set.agreements == 0) delete ledger.sets[provider];
        ledger.rates[provider].change(agreement.position, agreement.current.ratePerEpoch, 0);
        ledger.freePositions[provider].push(agreement.position);
        delete ledger.releases[id];
        delete ledger.byPosition[provider][agreement.position];
        delete ledger.agreementOf[client][provider];
        delete ledger.agreements[id];
        ledger.totalLocked -= refund;
        ledger.credit(client, refund);
        emit IStorageMarket.AgreementClosed(id, epoch, refund);
    }

    /// Moves an agreement's end to an earlier epoch, for good. False if it ends before that anyway.
    function endAt(Ledger storage ledger, uint32 id, IStorageMarket.Agreement storage agreement, uint32 end)
        private
        returns (bool)
    {
        uint32 before = Ledgers.endOf(agreement);
        agreement.ending = true;
        // Terms that begin with the next epoch end after it at the earliest.
        if (agreement.next.from != 0 && end <= agreement.next.from) end = agreement.next.from + 1;
        if (end >= before) return false;
        --ledger.dueIn[agreement.provider][before];
        ++ledger.dueIn[agreement.provider][end];
        if (agreement.next.from != 0) agreement.next.end = end;
        else agreement.current.end = end;
        emit IStorageMarket.EndMoved(id, end, msg.sender);
        return true;
    }

    /// Closes a set's epochs in order up to the current one, at most `max` of them.
    function goOn(Ledger storage ledger, Rules memory rules, address provider, uint32 max) private {
        IStorageMarket.ProofSet storage set = ledger.sets[provider];
        uint32 now_ = rules.currentEpoch;
        if (set.agreements == 0 || set.deadAt != 0) return;
        Epochs.History storage history = ledger.histories[provider];
        for (uint32 done = 0; done < max && set.epoch < now_; ++done) {
            uint32 epoch = set.epoch;
            bool dies = false;
            if (set.due != 0) {
                if (!leftLying(rules, epoch, now_)) return;
                dies = true;
            }
            if (ledger.rates[provider].total != 0 && !history.proven(epoch)) {
                if (!counted(rules, epoch)) emit IStorageMarket.VoidEpoch(provider, epoch);
                else if (!miss(ledger, rules, provider, set, epoch)) dies = true;
            }
            history.close(epoch);
            if (dies) {
                set.deadAt = epoch + 1;
                emit IStorageMarket.Died(provider, epoch + 1);
                return;
            }
            set.epoch = epoch + 1;
            set.due = ledger.dueIn[provider][epoch + 1];
            delete ledger.dueIn[provider][epoch + 1];
        }
    }

    /// Whether due agreements kept a set from going on for as many epochs as a set may miss, and all of these counted. Anyone could have moved
    /// them on; that nobody did must not lock in whoever is in the set with them, however many they are.
    function leftLying(Rules memory rules, uint32 epoch, uint32 now_) private returns (bool) {
        if (now_ - epoch <= rules.missesMax) return false;
        for (uint32 past = now_ - rules.missesMax; past < now_; ++past) {
            if (!counted(rules, past)) return false;
        }
        return true;
    }

    /// Whether a past epoch counts, with the beacon told that it is past.
    function counted(Rules memory rules, uint32 epoch) private returns (bool) {
        rules.randomness.seal();
        return rules.randomness.counts(epoch);
    }

    /// Slashes for a missed epoch. False if that ends the set: too many one after the other, or too little stake for another one.
    function miss(
        Ledger storage ledger,
        Rules memory rules,
        address provider,
        IStorageMarket.ProofSet storage set,
        uint32 epoch
    ) private returns (bool) {
        uint256 slashed = uint256(ledger.rates[provider].total) * rules.slashEpochs;
        uint256 stake = rules.registry.stakeOf(provider);
        if (slashed > stake) {
            emit IStorageMarket.Missed(provider, epoch, 0, 0, msg.sender);
            return false;
        }
        uint256 bounty = slashed * rules.bountyBasisPoints / BASIS;
        ledger.histories[provider].markMissed(epoch);
        rules.registry.slash(provider, uint128(slashed));
        ledger.totalCompensation += slashed - bounty;
        ledger.credit(msg.sender, bounty);
        emit IStorageMarket.Missed(provider, epoch, slashed, bounty, msg.sender);
        return ++set.misses < rules.missesMax && stake - slashed >= slashed;
    }

    /// Takes from the provider's stake what a miss costs for this agreement alone, and gives it to the client.
    function slashFor(Ledger storage ledger, Rules memory rules, IStorageMarket.Agreement storage agreement)
        private
        returns (uint256 slashed)
    {
        slashed = Ledgers.dearerOf(agreement) * rules.slashEpochs;
        uint256 stake = rules.registry.stakeOf(agreement.provider);
        if (slashed > stake) slashed = stake;
        rules.registry.slash(agreement.provider, uint128(slashed));
        ledger.credit(agreement.client, slashed);
    }

    /// Decides about a question whose epoch is over. False if the epoch didn't count.
    function judge(Ledger storage ledger, Rules memory rules, uint32 id, IStorageMarket.Agreement storage agreement)
        private
        returns (bool unanswered)
    {
        uint32 asked = ledger.questions[id].epoch;
        ledger.dropQuestion(id, agreement.provider, agreement.client);
        unanswered = counted(rules, asked);
        if (unanswered) emit IStorageMarket.Unanswered(id, asked, slashFor(ledger, rules, agreement));
        else emit IStorageMarket.QuestionVoid(id, asked);
    }
}
