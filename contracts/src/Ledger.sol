// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Epochs} from "./Epochs.sol";
import {SumTree} from "./SumTree.sol";
import {IProviderRegistry} from "./interfaces/IProviderRegistry.sol";
import {IRandomness} from "./interfaces/IRandomness.sol";
import {IStorageMarket} from "./interfaces/IStorageMarket.sol";

/// @notice What a deployment of the market decided for good, as far as agreements going on depend on it.
struct Rules {
    IProviderRegistry registry;
    IRandomness randomness;
    uint32 currentEpoch;
    uint32 slashEpochs;
    uint32 stakeEpochs;
    uint32 missesMax;
    uint32 noticeEpochs;
    uint32 bountyBasisPoints;
}

/// @notice The market's state: money, agreements and sets.
struct Ledger {
    /// What an account may withdraw or commit.
    mapping(address account => uint256) free;
    /// Sum of all free balances, of what is locked for epochs not proven, of bonds, and of slashed stake that clients will get.
    uint256 totalFree;
    uint256 totalLocked;
    uint256 totalBonded;
    uint256 totalCompensation;
    mapping(uint32 agreement => IStorageMarket.Agreement) agreements;
    /// The open agreement of a client with a provider, or 0.
    mapping(address client => mapping(address provider => uint32)) agreementOf;
    mapping(uint32 agreement => IStorageMarket.Question) questions;
    mapping(uint32 agreement => IStorageMarket.Release) releases;
    mapping(address provider => IStorageMarket.ProofSet) sets;
    /// Current rates of a provider's agreements by position, whose sum an epoch pays; the agreements there; and positions that were left.
    mapping(address provider => SumTree.Tree) rates;
    mapping(address provider => mapping(uint32 position => uint32 agreement)) byPosition;
    mapping(address provider => uint32[]) freePositions;
    mapping(address provider => Epochs.History) histories;
    /// How many agreements of a provider change with an epoch that is still to come.
    mapping(address provider => mapping(uint32 epoch => uint32)) dueIn;
}

/// @title What both parts of the market do with the ledger.
library Ledgers {
    using Epochs for Epochs.History;

    function credit(Ledger storage ledger, address account, uint256 amount) internal {
        ledger.free[account] += amount;
        ledger.totalFree += amount;
    }

    function debit(Ledger storage ledger, address account, uint256 amount) internal {
        uint256 free = ledger.free[account];
        if (free < amount) revert IStorageMarket.Balance(amount, free);
        ledger.free[account] = free - amount;
        ledger.totalFree -= amount;
    }

    /// Ends the question about an agreement; its bond goes to `bondTo`.
    function dropQuestion(Ledger storage ledger, uint32 id, address provider, address bondTo) internal {
        uint256 bond = ledger.questions[id].bond;
        delete ledger.questions[id];
        --ledger.sets[provider].questions;
        ledger.totalBonded -= bond;
        credit(ledger, bondTo, bond);
    }

    function opened(Ledger storage ledger, uint32 id)
        internal
        view
        returns (IStorageMarket.Agreement storage agreement)
    {
        agreement = ledger.agreements[id];
        if (agreement.client == address(0)) revert IStorageMarket.NotOpen(id);
    }

    function yours(Ledger storage ledger, uint32 id)
        internal
        view
        returns (IStorageMarket.Agreement storage agreement)
    {
        agreement = opened(ledger, id);
        if (agreement.client != msg.sender) revert IStorageMarket.NotYours();
    }

    /// The epoch with which an agreement ends, as things are.
    function endOf(IStorageMarket.Agreement storage agreement) internal view returns (uint32) {
        return agreement.next.from != 0 ? agreement.next.end : agreement.current.end;
    }

    /// The higher of an agreement's rates now and next.
    function dearerOf(IStorageMarket.Agreement storage agreement) internal view returns (uint256) {
        uint96 current = agreement.current.ratePerEpoch;
        uint96 next = agreement.next.ratePerEpoch;
        return current > next ? current : next;
    }

    /// What the current terms earned in the epochs before `end`; all of these are closed.
    function earnedIn(Ledger storage ledger, IStorageMarket.Agreement storage agreement, uint32 end)
        internal
        view
        returns (uint256)
    {
        IStorageMarket.Terms storage terms = agreement.current;
        if (terms.from == 0) return 0;
        return uint256(terms.ratePerEpoch) * ledger.histories[agreement.provider].provenIn(terms.from, end);
    }

    /// What must be locked so that what was earned, the current epoch and all of `next` can be paid. The set is at the current epoch.
    function neededFor(
        Ledger storage ledger,
        IStorageMarket.Agreement storage agreement,
        IStorageMarket.Terms memory next
    ) internal view returns (uint256 needed) {
        uint32 now_ = ledger.sets[agreement.provider].epoch;
        bool toCome = next.from > now_;
        if (toCome) needed = uint256(next.ratePerEpoch) * (next.end - next.from);
        if (agreement.current.from != 0) {
            uint32 until = toCome ? next.from : next.end;
            needed += earnedIn(ledger, agreement, now_) + uint256(agreement.current.ratePerEpoch) * (until - now_);
        }
    }
}
