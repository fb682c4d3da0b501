// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Agreements} from "./Agreements.sol";
import {EpochClock} from "./EpochClock.sol";
import {Epochs} from "./Epochs.sol";
import {Ledger, Ledgers, Rules} from "./Ledger.sol";
import {Possession} from "./Possession.sol";
import {ProviderRegistry} from "./ProviderRegistry.sol";
import {Signatures} from "./Signatures.sol";
import {IChunkPaths} from "./interfaces/IChunkPaths.sol";
import {IProviderRegistry, IStakeVault} from "./interfaces/IProviderRegistry.sol";
import {IRandomness} from "./interfaces/IRandomness.sol";
import {IStorageMarket} from "./interfaces/IStorageMarket.sol";

/// @title Escrow, proofs of possession and pay.
/// @notice One agreement for each client and provider; all agreements of a provider are proven together, once an epoch. A proven epoch
///         pays the whole set's rate at once and for good. A missed one slashes a bounded amount; one without a seed, or in which the chain
///         stood still, is neither paid nor punished. Nobody owns this contract, nothing in it can be changed, and no way out calls anyone.
/// @dev Time in a set is strictly in order. `ProofSet.epoch` is the epoch worked on. Agreements whose terms begin or end with it are *due*
///      and must be moved on first (by anyone); then it can be proven; when it is over it is closed by `advance`. So what a set
///      earns is always exact for `epoch`, nothing changes between an epoch's seed and its close, and no loop depends on how many agreements there are.
///      Money: free + locked + bonded + compensation + all stakes = everything this contract owes. Only `deposit` and `withdraw` touch the token,
///      so a token that takes a fee, refuses an address or calls back can't keep a set from going on.
contract StorageMarket is IStorageMarket, IStakeVault, EpochClock, EIP712, ReentrancyGuard {
    using SafeERC20 for IERC20;
    using Ledgers for Ledger;
    using Epochs for Epochs.History;

    /// @notice What a deployment decides for good.
    struct Parameters {
        IERC20 token;
        /// The source of seeds; its clock is this contract's.
        IRandomness randomness;
        IChunkPaths chunkPaths;
        /// Chunks asked for in an epoch.
        uint32 challenges;
        /// A miss costs this many epochs' pay.
        uint32 slashEpochs;
        /// A provider's stake covers this many epochs' pay.
        uint32 stakeEpochs;
        /// So many misses one after the other end a set.
        uint32 missesMax;
        /// Notice of either side, in epochs.
        uint32 noticeEpochs;
        /// Share of a slash that goes to whoever recorded the miss, in 1/10,000.
        uint32 bountyBasisPoints;
        /// What a client pays for a question that is answered.
        uint128 questionBond;
    }

    bytes32 private constant PROPOSAL = keccak256(
        "Proposal(address client,address provider,bytes32 setRoot,uint64 size,uint96 ratePerEpoch,uint32 endEpoch,uint128 escrow,uint64 retainedBytes,uint32 retainedUntil,uint32 acceptBy,uint256 nonce)"
    );
    bytes32 private constant REVISION = keccak256(
        "Revision(uint32 agreement,uint32 sequence,bytes32 setRoot,uint64 size,uint96 ratePerEpoch,uint32 fromEpoch,uint32 endEpoch,uint64 retainedBytes,uint32 retainedUntil)"
    );
    uint256 private constant BASIS = 10_000;

    IERC20 public immutable token;
    IProviderRegistry public immutable registry;
    IRandomness public immutable randomness;
    IChunkPaths public immutable chunkPaths;
    uint32 public immutable challenges;
    uint32 public immutable slashEpochs;
    uint32 public immutable stakeEpochs;
    uint32 public immutable missesMax;
    uint32 public immutable noticeEpochs;
    uint32 public immutable bountyBasisPoints;
    uint128 public immutable questionBond;

    /// @notice A client's hot key: how much escrow it may still commit, and until when (unix seconds).
    struct Authority {
        uint128 cap;
        uint64 until;
    }

    mapping(address client => mapping(address signer => Authority)) public authorities;
    /// @notice Proposals that were accepted.
    mapping(bytes32 proposal => bool) public accepted;
    /// @dev There are fewer than 2^32 agreements, and rates are below 2^96: sums of them fit in 128 bits, so no agreement can keep others
    ///      from moving on.
    uint32 private lastAgreement;
    /// @dev How many positions of a provider's tree were ever used.
    mapping(address provider => uint32) private positions;
    Ledger internal ledger;

    /// @dev Makes its own registry, so that the two can't name different ones.
    constructor(Parameters memory p)
        EpochClock(p.randomness.genesis(), p.randomness.epochSeconds())
        EIP712("Seedbank StorageMarket", "1")
    {
        if (
            p.challenges == 0 || p.slashEpochs == 0 || p.missesMax == 0 || p.noticeEpochs == 0
                || p.stakeEpochs < p.slashEpochs * p.missesMax || p.bountyBasisPoints > BASIS
        ) revert Settings();
        token = p.token;
        registry = new ProviderRegistry();
        randomness = p.randomness;
        chunkPaths = p.chunkPaths;
        challenges = p.challenges;
        slashEpochs = p.slashEpochs;
        stakeEpochs = p.stakeEpochs;
        missesMax = p.missesMax;
        noticeEpochs = p.noticeEpochs;
        bountyBasisPoints = p.bountyBasisPoints;
        questionBond = p.questionBond;
    }

    // --- balances ---------------------------------------------------------------------------------------------------

    /// @notice Adds tokens of the caller to an account's free balance. Changes nothing else of that account.
    function deposit(address account, uint256 amount) external nonReentrant {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 arrived = token.balanceOf(address(this)) - before;
        ledger.credit(account, arrived);
        emit Deposited(account, msg.sender, arrived);
    }

    /// @notice Sends the caller's free tokens to `to`.
    function withdraw(uint256 amount, address to) external nonReentrant {
        ledger.debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @notice Lets `signer` sign proposals for the caller that commit at most `cap` of escrow, until `until` (unix seconds), and revisions.
    ///         A time that is over takes both back.
    function authorize(address signer, uint128 cap, uint64 until) external {
        authorities[msg.sender][signer] = Authority(cap, until);
        emit SignerAuthorized(msg.sender, signer, cap, until);
    }

    /// @inheritdoc IStakeVault
    function lockStake(address account, uint128 amount) external {
        if (msg.sender != address(registry)) revert OnlyRegistry();
        ledger.debit(account, amount);
    }

    /// @inheritdoc IStakeVault
    function unlockStake(address account, uint128 amount) external {
        if (msg.sender != address(registry)) revert OnlyRegistry();
        ledger.credit(account, amount);
    }

    // --- agreements -------------------------------------------------------------------------------------------------

    /// @notice Opens agreements from clients' signed proposals, from the next epoch on. Only the provider or its operator may: it must
    ///         hold the data. What can't be opened is passed over, and an event says why.
    function activate(Proposal[] calldata proposals, bytes[] calldata signatures) external nonReentrant {
        if (proposals.length != signatures.length) revert BatchLengths();
        for (uint256 number = 0; number < proposals.length; ++number) {
            if (!registry.acts(msg.sender, proposals[number].provider)) revert NotYours();
            bytes32 digest = proposalDigest(proposals[number]);
            Skip reason = open(proposals[number], digest, Signatures.signer(digest, signatures[number]));
            if (reason != Skip.None) emit ActivationSkipped(number, digest, reason);
        }
    }

    /// @notice Posts revisions signed by both sides; anyone may. What doesn't hold is passed over, and an event says why.
    function revise(Revision[] calldata revisions, bytes[] calldata ofClients, bytes[] calldata ofProviders)
        external
        nonReentrant
    {
        if (revisions.length != ofClients.length || revisions.length != ofProviders.length) {
            revert BatchLengths();
        }
        for (uint256 number = 0; number < revisions.length; ++number) {
            bytes32 digest = revisionDigest(revisions[number]);
            Skip reason = revise(
                revisions[number],
                Signatures.signer(digest, ofClients[number]),
                Signatures.signer(digest, ofProviders[number])
            );
            if (reason != Skip.None) {
                emit RevisionSkipped(number, revisions[number].agreement, revisions[number].sequence, reason);
            }
        }
    }

    /// @notice Moves agreements on whose terms begin or end with their set's epoch: settles what was earned, and closes what ended.
    ///         Anyone may. Ones that are not due are passed over.
    function moveOn(uint32[] calldata ids) external nonReentrant {
        Agreements.moveOn(ledger, rules(), ids);
    }

    /// @notice Adds to what is locked for an agreement, for later revisions. Only its client.
    function reserve(uint32 id, uint128 amount) external {
        Agreement storage agreement = ledger.yours(id);
        ledger.debit(msg.sender, amount);
        agreement.escrow += amount;
        ledger.totalLocked += amount;
        emit Reserved(id, amount);
    }

    /// @notice Announces that the client takes back reserve. The provider has the rest of this epoch and the next to post what it was
    ///         promised. Only the client. A later announcement replaces an earlier one.
    function announceRelease(uint32 id, uint128 amount) external {
        ledger.yours(id);
        ledger.releases[id] = Release(currentEpoch(), amount);
        emit ReleaseAnnounced(id, currentEpoch(), amount);
    }

    /// @notice Takes back what was announced two or three epochs ago, or as much of it as no terms need. Only the client.
    function release(uint32 id) external nonReentrant {
        Agreements.release(ledger, rules(), id);
    }

    /// @notice Ends an agreement after the notice. Either side may. A client that asked for data to be retained waits for that, unless the
    ///         provider stopped proving; then there is no notice either. A provider that leaves before that pays for one miss.
    function terminate(uint32 id) external nonReentrant {
        Agreements.terminate(ledger, rules(), id);
    }

    // --- proving ----------------------------------------------------------------------------------------------------

    /// @notice Proves that the provider still holds its whole set, and pays it for the current epoch. Anyone may send it; the pay is the
    ///         provider's. Proofs are in the order of `challengesOf`.
    function prove(address provider, Proof[] calldata proofs) external nonReentrant {
        ProofSet storage set = ledger.sets[provider];
        if (set.agreements == 0) revert NothingToProve();
        check(Agreements.catchUp(ledger, rules(), provider), set);
        uint32 epoch = set.epoch;
        if (set.due != 0) revert TermsDue(set.due);
        if (ledger.histories[provider].proven(epoch)) revert AlreadyProven(epoch);
        Possession.checkSet(ledger, sealedNow(epoch), provider, proofs);
        ledger.histories[provider].markProven(epoch);
        set.misses = 0;
        uint256 paid = ledger.rates[provider].total;
        ledger.totalLocked -= paid;
        ledger.credit(provider, paid);
        emit Proven(provider, epoch, paid);
    }

    /// @notice Closes a provider's past epochs in order, at most `max` of them: each was proven, missed or void. Who records a miss gets the
    ///         bounty. It stops where agreements are due, unless they were left lying for as long as it takes a set to die.
    function advance(address provider, uint32 max) external nonReentrant {
        Agreements.advance(ledger, rules(), provider, max);
    }

    /// @notice Refunds an agreement of a dead set. Anyone may.
    function closeDead(uint32 id) external nonReentrant {
        Agreements.closeDead(ledger, rules(), id);
    }

    // --- questions about one agreement --------------------------------------------------------------------------------

    /// @notice Asks for chunks of the caller's own agreement, however small it is in the provider's set. The next epoch's seed chooses them,
    ///         and they must be shown in that epoch. The bond is the provider's if they are.
    function ask(uint32 id) external {
        Agreement storage agreement = ledger.yours(id);
        ProofSet storage set = ledger.sets[agreement.provider];
        if (set.deadAt != 0) revert SetDead();
        if (ledger.questions[id].epoch != 0) revert QuestionOpen();
        uint32 epoch = currentEpoch() + 1;
        if (Ledgers.endOf(agreement) <= epoch) revert QuestionTime(epoch);
        ledger.debit(msg.sender, questionBond);
        ledger.totalBonded += questionBond;
        ledger.questions[id] = Question(epoch, questionBond);
        ++set.questions;
        emit Asked(id, epoch, questionBond);
    }

    /// @notice Answers a question in its epoch. Anyone may send it. Proofs are in the order of `questionOf`.
    function answer(uint32 id, Proof[] calldata proofs) external nonReentrant {
        Agreement storage agreement = ledger.opened(id);
        uint32 asked = ledger.questions[id].epoch;
        if (asked == 0) revert NoQuestion();
        if (asked != currentEpoch()) revert QuestionTime(asked);
        address provider = agreement.provider;
        check(Agreements.bringUp(ledger, rules(), id), ledger.sets[provider]);
        Possession.checkAgreement(sealedNow(asked), id, agreement.current, proofs);
        ledger.dropQuestion(id, provider, provider);
        emit Answered(id, asked);
    }

    /// @notice Ends an agreement whose question was not answered in its epoch, and slashes its part. Anyone may.
    function fail(uint32 id) external nonReentrant {
        Agreements.fail(ledger, rules(), id);
    }

    // --- what can be read ---------------------------------------------------------------------------------------------

    /// @notice What an account may withdraw or commit.
    function free(address account) external view returns (uint256) {
        return ledger.free[account];
    }

    /// @notice Sums of all free balances, of what is locked for epochs not proven, of bonds, and of slashed stake that clients will get.
    function totals() external view returns (uint256 free_, uint256 locked, uint256 bonded, uint256 compensation) {
        return (ledger.totalFree, ledger.totalLocked, ledger.totalBonded, ledger.totalCompensation);
    }

    /// @notice The open agreement of a client with a provider, or 0.
    function agreementOf(address client, address provider) external view returns (uint32) {
        return ledger.agreementOf[client][provider];
    }

    /// @notice An agreement as it stands; `client` is zero if it isn't open.
    function getAgreement(uint32 id) external view returns (Agreement memory) {
        return ledger.agreements[id];
    }

    /// @notice A provider's set as it stands, and what its epoch earns if it is proven.
    function getSet(address provider) external view returns (ProofSet memory, uint128 rate) {
        return (ledger.sets[provider], ledger.rates[provider].total);
    }

    /// @notice The question about an agreement; `epoch` is zero if there is none.
    function getQuestion(uint32 id) external view returns (Question memory) {
        return ledger.questions[id];
    }

    /// @notice Reserve that a client announced to take back; all zero if none.
    function getRelease(uint32 id) external view returns (Release memory) {
        return ledger.releases[id];
    }

    /// @notice Whether a provider's epoch was proven, and whether it was missed.
    function outcome(address provider, uint32 epoch) external view returns (bool proven, bool missed) {
        return (ledger.histories[provider].proven(epoch), ledger.histories[provider].missed(epoch));
    }

    /// @notice Agreements of a provider that change with `epoch`.
    function changesIn(address provider, uint32 epoch) external view returns (uint32) {
        return ledger.dueIn[provider][epoch];
    }

    /// @notice What was earned with an agreement's current terms, and what is still locked for it.
    function standing(uint32 id) external view returns (uint256 earned, uint256 locked) {
        Agreement storage agreement = ledger.agreements[id];
        ProofSet storage set = ledger.sets[agreement.provider];
        Terms storage terms = agreement.current;
        earned = ledger.earnedIn(agreement, set.deadAt != 0 ? set.deadAt : set.epoch);
        if (set.deadAt == 0 && terms.from != 0 && ledger.histories[agreement.provider].proven(set.epoch)) {
            earned += terms.ratePerEpoch;
        }
        locked = agreement.escrow - earned;
    }

    /// @notice Where the current epoch asks: for each challenge the agreement and the byte in its set. Reverts until the seed is sealed.
    ///         Right for a set that is at the current epoch with nothing due.
    function challengesOf(address provider) external view returns (uint32[] memory ids, uint64[] memory offsets) {
        return Possession.ofSet(ledger, askedIn(currentEpoch()), provider);
    }

    /// @notice Where the question about an agreement asks. Reverts until its epoch's seed is sealed.
    function questionOf(uint32 id) external view returns (uint64[] memory offsets) {
        uint32 epoch = ledger.questions[id].epoch;
        if (epoch == 0) revert NoQuestion();
        return Possession.ofAgreement(askedIn(epoch), id, ledger.agreements[id].current.size);
    }

    /// @inheritdoc IStakeVault
    function stakeNeeded(address provider) external view returns (uint256) {
        ProofSet storage set = ledger.sets[provider];
        if (set.agreements == 0 || set.deadAt != 0) return 0;
        // What is behind may still be missed.
        if (set.epoch != currentEpoch()) return type(uint256).max;
        return uint256(set.rateMax) * (stakeEpochs + (set.questions == 0 ? 0 : slashEpochs));
    }

    /// @notice What a client signs to propose.
    function proposalDigest(Proposal calldata proposal) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(PROPOSAL, proposal)));
    }

    /// @notice What both sides sign to revise.
    function revisionDigest(Revision calldata revision) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(REVISION, revision)));
    }

    // --- inside -------------------------------------------------------------------------------------------------------

    function open(Proposal calldata p, bytes32 digest, address signer) private returns (Skip) {
        uint32 now_ = currentEpoch();
        if (signer == address(0)) return Skip.Signature;
        if (accepted[digest] || now_ > p.acceptBy) return Skip.Stale;
        if (p.endEpoch <= now_ + 1) return Skip.Epochs;
        if (p.size == 0 || p.retainedBytes > p.size) return Skip.Size;
        if (ledger.agreementOf[p.client][p.provider] != 0) return Skip.Exists;
        ProofSet storage set = ledger.sets[p.provider];
        // A set that holds nothing has nothing to close.
        if (set.agreements == 0) set.epoch = now_;
        Skip skip = Agreements.catchUp(ledger, rules(), p.provider);
        if (skip != Skip.None) return skip;
        if (registry.get(p.provider).leaving) return Skip.Leaving;
        if (p.escrow < uint256(p.ratePerEpoch) * (p.endEpoch - now_ - 1) || ledger.free[p.client] < p.escrow) {
            return Skip.Escrow;
        }
        if (lacksStake(p.provider, uint256(set.rateMax) + p.ratePerEpoch)) return Skip.Stake;
        if (signer != p.client) {
            Authority storage authority = authorities[p.client][signer];
            if (authority.until < block.timestamp || authority.cap < p.escrow) return Skip.Signature;
            authority.cap -= p.escrow;
        }

        accepted[digest] = true;
        ledger.debit(p.client, p.escrow);
        ledger.totalLocked += p.escrow;
        uint32 id = ++lastAgreement;
        ledger.agreementOf[p.client][p.provider] = id;
        Agreement storage agreement = ledger.agreements[id];
        agreement.client = p.client;
        agreement.provider = p.provider;
        agreement.escrow = p.escrow;
        agreement.retainedBytes = p.retainedBytes;
        agreement.retainedUntil = p.retainedUntil;
        agreement.next = Terms(p.setRoot, p.size, p.ratePerEpoch, now_ + 1, p.endEpoch);
        uint32 position;
        uint32[] storage freed = ledger.freePositions[p.provider];
        if (freed.length != 0) {
            position = freed[freed.length - 1];
            freed.pop();
        } else {
            position = positions[p.provider]++;
        }
        agreement.position = position;
        ledger.byPosition[p.provider][position] = id;
        ++set.agreements;
        set.rateMax += p.ratePerEpoch;
        ++ledger.dueIn[p.provider][now_ + 1];
        ++ledger.dueIn[p.provider][p.endEpoch];
        emit AgreementOpened(id, p.client, p.provider, p);
        return Skip.None;
    }

    function revise(Revision calldata r, address ofClient, address ofProvider) private returns (Skip) {
        Agreement storage agreement = ledger.agreements[r.agreement];
        address client = agreement.client;
        if (client == address(0)) return Skip.NotOpen;
        address provider = agreement.provider;
        if (ofClient == address(0) || ofProvider == address(0)) return Skip.Signature;
        if (ofClient != client && authorities[client][ofClient].until < block.timestamp) return Skip.Signature;
        if (!registry.acts(ofProvider, provider)) return Skip.Signature;
        if (r.sequence <= agreement.sequence) return Skip.Stale;
        uint32 now_ = currentEpoch();
        if (r.fromEpoch != now_ + 1 || r.endEpoch <= r.fromEpoch) return Skip.Epochs;
        Skip skip = Agreements.bringUp(ledger, rules(), r.agreement);
        if (skip != Skip.None) return skip;
        // An end that comes back could be moved again, and paid for from stake again, as often as two accounts of one person like.
        if (agreement.ending && r.endEpoch > Ledgers.endOf(agreement)) return Skip.Epochs;
        ProofSet storage set = ledger.sets[provider];
        if (r.retainedBytes > r.size || (r.size == 0 && r.ratePerEpoch != 0)) return Skip.Size;
        if (
            now_ < agreement.retainedUntil
                && (r.retainedBytes < agreement.retainedBytes
                    || r.retainedUntil < agreement.retainedUntil
                    || (r.endEpoch < agreement.retainedUntil && r.endEpoch < Ledgers.endOf(agreement)))
        ) return Skip.Retention;
        Terms memory next = Terms(r.setRoot, r.size, r.ratePerEpoch, r.fromEpoch, r.endEpoch);
        if (agreement.escrow < ledger.neededFor(agreement, next)) return Skip.Escrow;
        uint256 current = agreement.current.ratePerEpoch;
        uint256 rateMax =
            set.rateMax - Ledgers.dearerOf(agreement) + (r.ratePerEpoch > current ? r.ratePerEpoch : current);
        if (rateMax > set.rateMax && lacksStake(provider, rateMax)) return Skip.Stake;

        agreement.sequence = r.sequence;
        agreement.retainedBytes = r.retainedBytes;
        agreement.retainedUntil = r.retainedUntil;
        set.rateMax = uint128(rateMax);
        --ledger.dueIn[provider][Ledgers.endOf(agreement)];
        if (agreement.next.from == 0) ++ledger.dueIn[provider][r.fromEpoch];
        ++ledger.dueIn[provider][r.endEpoch];
        agreement.next = next;
        emit Revised(r.agreement, r.sequence, r);
        return Skip.None;
    }

    function lacksStake(address provider, uint256 rate) private view returns (bool) {
        return rate * stakeEpochs > registry.stakeOf(provider);
    }

    function check(Skip skip, ProofSet storage set) private view {
        if (skip == Skip.NotOpen) revert SetDead();
        if (skip == Skip.Behind) revert Behind(set.epoch, currentEpoch());
    }

    function rules() private view returns (Rules memory) {
        return Rules({
            registry: registry,
            randomness: randomness,
            currentEpoch: currentEpoch(),
            slashEpochs: slashEpochs,
            stakeEpochs: stakeEpochs,
            missesMax: missesMax,
            noticeEpochs: noticeEpochs,
            bountyBasisPoints: bountyBasisPoints
        });
    }

    /// What the current epoch asks, sealing its seed if nobody did yet.
    function sealedNow(uint32 epoch) private returns (Possession.Asked memory) {
        if (randomness.seed(epoch) == 0) randomness.seal();
        return askedIn(epoch);
    }

    function askedIn(uint32 epoch) private view returns (Possession.Asked memory) {
        bytes32 seed = randomness.seed(epoch);
        if (seed == 0) revert NoSeed(epoch);
        return Possession.Asked(chunkPaths, challenges, epoch, seed);
    }
}
