// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {FragmentSets} from "../FragmentSets.sol";

/// @title Agreements about storage: what is promised, proven, paid, missed and refunded.
interface IStorageMarket {
    // --- what is signed ---------------------------------------------------------------------------------------------

    /// @notice A client's offer. Its hash can be used once.
    struct Proposal {
        address client;
        address provider;
        /// Root of the set (FragmentSets) that the provider holds for the client.
        bytes32 setRoot;
        uint64 size;
        /// Token units for each epoch that is proven.
        uint96 ratePerEpoch;
        /// The first epoch that no longer belongs to the agreement.
        uint32 endEpoch;
        /// Moved from the client's free balance; what the rate doesn't need is there for later revisions.
        uint128 escrow;
        /// Bytes that no revision may drop before `retainedUntil`.
        uint64 retainedBytes;
        uint32 retainedUntil;
        /// The last epoch in which the provider may accept.
        uint32 acceptBy;
        uint256 nonce;
    }

    /// @notice New terms of an open agreement, signed by both. They hold from `fromEpoch` on, which is the epoch after the one in
    ///         which they are posted.
    struct Revision {
        uint32 agreement;
        /// Must be above the agreement's last one.
        uint32 sequence;
        bytes32 setRoot;
        uint64 size;
        uint96 ratePerEpoch;
        uint32 fromEpoch;
        uint32 endEpoch;
        uint64 retainedBytes;
        uint32 retainedUntil;
    }

    /// @notice One challenged chunk: the fragment that holds the challenged byte, the chunk that holds it in the fragment, and both ways up.
    struct Proof {
        FragmentSets.Path fragment;
        bytes chunk;
        bytes32[] siblings;
    }

    // --- state that can be read -------------------------------------------------------------------------------------

    /// @notice Terms: what is held, and at which price.
    struct Terms {
        bytes32 setRoot;
        uint64 size;
        uint96 ratePerEpoch;
        /// The first epoch in which they hold; zero if there are none.
        uint32 from;
        /// The first epoch in which they no longer hold.
        uint32 end;
    }

    /// @notice An open agreement. `client` is zero for one that is closed or never was.
    struct Agreement {
        address client;
        uint32 sequence;
        /// Its place in the provider's tree of rates.
        uint32 position;
        /// Whether somebody ended it: no revision can make it last longer.
        bool ending;
        address provider;
        uint64 retainedBytes;
        uint32 retainedUntil;
        /// What is locked for it, less what was earned up to `current.from`.
        uint128 escrow;
        /// What holds now; `from` is zero until the first epoch.
        Terms current;
        /// What holds from the next epoch on, if that was agreed.
        Terms next;
    }

    /// @notice Everything that one provider holds, proven together.
    struct ProofSet {
        /// The epoch that is being worked on: all before it are closed.
        uint32 epoch;
        /// Agreements whose terms change with `epoch` and were not moved on yet. No proof and no closing before that.
        uint32 due;
        /// Open agreements.
        uint32 agreements;
        /// Epochs missed one after the other.
        uint32 misses;
        /// The first epoch after the set died; zero while it lives.
        uint32 deadAt;
        /// Questions of clients that were not answered yet.
        uint32 questions;
        /// Token units for an epoch if every agreement has the dearer of its terms: what the stake must cover.
        uint128 rateMax;
    }

    /// @notice A client's question about one agreement.
    struct Question {
        /// The epoch whose seed asks and in which it must be answered; zero if there is none.
        uint32 epoch;
        uint128 bond;
    }

    /// @notice A client's announcement that it takes back reserve.
    struct Release {
        /// The epoch of the announcement.
        uint32 epoch;
        uint128 amount;
    }

    /// @notice Why an item of a batch was passed over.
    enum Skip {
        None,
        /// Not signed by whom it must be, or by a key whose time or cap is over.
        Signature,
        /// Used before, too late, or older than what holds.
        Stale,
        /// Begins or ends when it can't.
        Epochs,
        /// Less is locked, or free to be locked, than the terms need.
        Escrow,
        /// The provider's stake does not cover the rate.
        Stake,
        /// Would drop what was promised to be kept.
        Retention,
        /// No such open agreement, or its set is dead.
        NotOpen,
        /// The client has an agreement with this provider.
        Exists,
        /// Bytes that can't be: none at the beginning, paid for nothing, or fewer than are retained.
        Size,
        /// The set must be brought to the current epoch first.
        Behind,
        /// The provider takes no new agreements.
        Leaving
    }

    // --- events -----------------------------------------------------------------------------------------------------

    event Deposited(address indexed account, address from, uint256 amount);
    event Withdrawn(address indexed account, address to, uint256 amount);
    event SignerAuthorized(address indexed client, address indexed signer, uint128 cap, uint64 until);
    event AgreementOpened(uint32 indexed agreement, address indexed client, address indexed provider, Proposal terms);
    event ActivationSkipped(uint256 index, bytes32 indexed proposal, Skip reason);
    event Revised(uint32 indexed agreement, uint32 sequence, Revision terms);
    event RevisionSkipped(uint256 index, uint32 indexed agreement, uint32 sequence, Skip reason);
    event TermsBegan(uint32 indexed agreement, uint32 epoch, bytes32 setRoot, uint64 size, uint96 ratePerEpoch);
    event AgreementClosed(uint32 indexed agreement, uint32 epoch, uint256 refund);
    event EndMoved(uint32 indexed agreement, uint32 endEpoch, address by);
    event Reserved(uint32 indexed agreement, uint256 amount);
    event ReleaseAnnounced(uint32 indexed agreement, uint32 epoch, uint256 amount);
    event Released(uint32 indexed agreement, uint256 amount);
    event Proven(address indexed provider, uint32 indexed epoch, uint256 paid);
    event Missed(address indexed provider, uint32 indexed epoch, uint256 slashed, uint256 bounty, address recordedBy);
    event Compensated(uint32 indexed agreement, uint256 amount);
    event VoidEpoch(address indexed provider, uint32 indexed epoch);
    event Died(address indexed provider, uint32 epoch);
    event Asked(uint32 indexed agreement, uint32 epoch, uint256 bond);
    event Answered(uint32 indexed agreement, uint32 epoch);
    event Unanswered(uint32 indexed agreement, uint32 epoch, uint256 slashed);
    event QuestionVoid(uint32 indexed agreement, uint32 epoch);
    event LeftEarly(uint32 indexed agreement, uint256 slashed);

    // --- errors -----------------------------------------------------------------------------------------------------

    /// The free balance holds less.
    error Balance(uint256 wanted, uint256 free);
    /// Not that agreement's client, its provider or the provider's operator.
    error NotYours();
    /// Only the registry moves stake.
    error OnlyRegistry();
    /// No such open agreement.
    error NotOpen(uint32 agreement);
    /// The provider's set is not at the current epoch: call `advance`, and `moveOn` for agreements that are due.
    error Behind(uint32 setEpoch, uint32 currentEpoch);
    /// Agreements whose terms change now must be moved on first: call `moveOn` for each.
    error TermsDue(uint32 count);
    /// The epoch has no seed yet: seal it first.
    error NoSeed(uint32 epoch);
    /// This epoch is proven.
    error AlreadyProven(uint32 epoch);
    /// The provider holds nothing that is paid for.
    error NothingToProve();
    /// Exactly that many proofs are wanted.
    error ProofCount(uint256 expected, uint256 actual);
    /// A chunk doesn't lead to its fragment's id.
    error WrongChunk(uint256 index);
    /// The set is dead, or it isn't and had to be.
    error SetDead();
    error SetAlive();
    /// There is a question open, or none is.
    error QuestionOpen();
    error NoQuestion();
    /// The question is about this epoch, whose time is not now.
    error QuestionTime(uint32 epoch);
    /// A release can be done two or three epochs after the one in which it was announced.
    error ReleaseTime(uint32 announcedIn);
    /// Batches name one signature of each side for each item.
    error BatchLengths();
    /// Deployment parameters that make no sense.
    error Settings();
}
