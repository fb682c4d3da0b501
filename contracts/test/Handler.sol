// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {StorageMarket} from "../src/StorageMarket.sol";
import {SumTree} from "../src/SumTree.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {Vm, vm} from "./Vm.sol";

/// @title A market whose trees can be looked into.
contract OpenMarket is StorageMarket {
    using SumTree for SumTree.Tree;

    constructor(Parameters memory p) StorageMarket(p) {}

    /// The agreement that gets a unit of what a provider's epoch earns: where a challenge that draws it falls.
    function holderOf(address provider, uint128 unit) external view returns (uint32) {
        return ledger.byPosition[provider][ledger.rates[provider].find(unit)];
    }
}

/// @title Everything that anyone can do with a market, in any order, and books of its own about it.
/// @notice The books know terms and proven epochs from what was done, never from the market's bitmaps or sums, so that they disagree when those
///         are wrong. Calls may revert; `done` counts those that did something.
contract Handler is Fixture {
    struct Written {
        uint32 from;
        uint32 end;
        uint96 rate;
    }

    struct Books {
        address client;
        address provider;
        bool open;
        /// Locked in all, less what was released.
        uint256 put;
        /// Paid for proven epochs.
        uint256 earned;
    }

    Books[] private books;
    mapping(uint32 id => Written[]) private terms;
    mapping(string what => uint256) public done;

    uint256 public deposited;
    uint256 public withdrawn;
    uint256 public donated;
    uint256 public staked;
    uint256 public unstaked;
    uint256 public slashedForMisses;
    uint256 public slashedForQuestions;
    uint256 public bounties;
    uint256 public compensated;
    uint256 public paid;
    uint256 public roundings;
    mapping(uint32 epoch => bool) private counted;
    mapping(address provider => mapping(uint32 epoch => bool)) private provenOnce;
    /// What went wrong inside a call, where a revert would be swallowed.
    string public violation;

    function setUp() public override {
        super.setUp();
        deposited = 4_000_000;
        staked = 2_000_000;
        books.push();
    }

    // --- what can be done ---------------------------------------------------------------------------------------------

    modifier watched(string memory what) {
        vm.recordLogs();
        _;
        read(vm.getRecordedLogs());
        ++done[what];
    }

    /// For what lets time or blocks pass: forge keeps those when a call reverts, so these must not.
    modifier watchedInTime() {
        vm.recordLogs();
        _;
        read(vm.getRecordedLogs());
    }

    function doActivate(uint256 who, uint96 rate, uint32 epochs, uint128 extra, uint32 retained)
        external
        watched("activate")
    {
        (address client, address provider) = (someClient(who), someProvider(who >> 1));
        IStorageMarket.Proposal memory proposal = proposalOf(client, provider, rate % 3000, epochs % 20 + 1);
        proposal.escrow += extra % 20_000;
        if (retained % 3 == 0) {
            (proposal.retainedBytes, proposal.retainedUntil) = (1, market.currentEpoch() + retained % 16);
        }
        require(market.agreementOf(client, provider) == 0, "taken");
        uint32 id = activate(proposal);
        require(id != 0, "passed over");
        if (id != books.length) fault("ids are in order");
        books.push(Books(client, provider, true, proposal.escrow, 0));
        terms[id].push(Written(market.currentEpoch() + 1, proposal.endEpoch, proposal.ratePerEpoch));
    }

    function doRevise(uint256 which, uint96 rate, uint32 epochs, uint256 seed) external watched("revise") {
        uint32 id = someOpen(which);
        IStorageMarket.Revision memory revision = revisionOf(id);
        (revision.setRoot, revision.size) = newSet(seed, 1 + seed % 4);
        revision.ratePerEpoch = rate % 3000;
        if (seed % 11 == 0) (revision.size, revision.ratePerEpoch, revision.retainedBytes) = (0, 0, 0);
        revision.endEpoch = revision.fromEpoch + 1 + epochs % 20;
        uint32 sequence = market.getAgreement(id).sequence;
        revise(revision);
        IStorageMarket.Agreement memory agreement = market.getAgreement(id);
        require(agreement.client != address(0) && agreement.sequence != sequence, "passed over");
        write(id, Written(revision.fromEpoch, revision.endEpoch, revision.ratePerEpoch));
    }

    function doProve(uint256 who) external watchedInTime {
        prove(someProvider(who));
    }

    /// Some epochs in which both providers do what they should, and the start of another, in which much can happen before its proof.
    function doGoodEpochs(uint256 seed) external watchedInTime {
        for (uint256 n = seed % 5 + 1; n > 0; --n) {
            prove(pat);
            prove(quinn);
            leave();
        }
    }

    function doMoveOn(uint256 which) external watched("moveOn") {
        uint32[] memory ids = new uint32[](1);
        ids[0] = someOpen(which);
        market.advance(books[ids[0]].provider, type(uint32).max);
        uint32 due = setOf(books[ids[0]].provider).due;
        require(due != 0, "nothing is due");
        market.moveOn(ids);
    }

    function doAdvance(uint256 who, uint32 max) external watched("advance") {
        market.advance(someProvider(who), max % 4);
    }

    /// Epochs pass. Each is sealed and long enough to count, or it isn't.
    function doWait(uint256 seed) external watched("wait") {
        for (uint256 n = seed % 2 + 1; n > 0; --n) {
            leave();
            if (seed >> (8 + n) & 3 != 0) seal();
        }
    }

    /// A long silence, in which the chain stands still.
    function doSleep(uint256 seed) external watched("sleep") {
        require(seed % 5 == 0, "rarely");
        for (uint256 n = seed % 40 + 30; n > 0; --n) {
            leave();
        }
        seal();
    }

    function doAsk(uint256 which) external watched("ask") {
        uint32 id = someOpen(which);
        vm.prank(books[id].client);
        market.ask(id);
    }

    function doAnswer(uint256 which) external watchedInTime {
        answer(someOpen(which));
    }

    /// A question, and what becomes of it.
    function doAskAndSee(uint256 which, uint256 how) external watchedInTime {
        uint32 id = someOpen(which);
        vm.prank(books[id].client);
        market.ask(id);
        ++done["ask"];
        leave();
        seal();
        if (how % 2 == 0) {
            answer(id);
        } else {
            prove(books[id].provider);
            leave();
            seal();
            catchUp(books[id].provider);
            if (setOf(books[id].provider).deadAt == 0 && market.getQuestion(id).epoch != 0) {
                market.fail(id);
                ++done["fail"];
            }
        }
    }

    function doFail(uint256 which) external watched("fail") {
        market.fail(someOpen(which));
    }

    function doTerminate(uint256 which, uint256 who) external watched("terminate") {
        uint32 id = someOpen(which);
        vm.prank(who % 2 == 0 ? books[id].client : books[id].provider);
        market.terminate(id);
    }

    function doCloseDead(uint256 which) external watched("closeDead") {
        market.closeDead(someOpen(which));
    }

    function doReserve(uint256 which, uint128 amount) external watched("reserve") {
        uint32 id = someOpen(which);
        amount %= 5000;
        vm.prank(books[id].client);
        market.reserve(id, amount);
        books[id].put += amount;
    }

    function doAnnounceRelease(uint256 which, uint128 amount) external watched("announceRelease") {
        uint32 id = someOpen(which);
        vm.prank(books[id].client);
        market.announceRelease(id, amount % 50_000 + 1);
    }

    function doRelease(uint256 which) external watched("release") {
        uint32 id = someOpen(which);
        vm.prank(books[id].client);
        market.release(id);
    }

    /// A client that wants its reserve back does both steps.
    function doReleaseWhole(uint256 which) external watchedInTime {
        uint32 id = someOpen(which);
        vm.prank(books[id].client);
        market.announceRelease(id, type(uint128).max);
        for (uint256 n = 0; n < 2; ++n) {
            leave();
            seal();
        }
        address provider = books[id].provider;
        catchUp(provider);
        if (setOf(provider).deadAt != 0 || market.getAgreement(id).client == address(0)) return;
        vm.prank(books[id].client);
        try market.release(id) {
            ++done["release in two epochs"];
        } catch {
            fault("a client can release what it announced");
        }
    }

    function doDeposit(uint256 who, uint256 amount) external watched("deposit") {
        amount %= 10_000;
        fund(someClient(who), amount);
        deposited += amount;
    }

    function doWithdraw(uint256 who, uint256 amount) external watched("withdraw") {
        address account = who & 1 == 0 ? someClient(who >> 1) : someProvider(who >> 1);
        amount = amount % 20_000;
        vm.prank(account);
        market.withdraw(amount, account);
        withdrawn += amount;
    }

    function doDonate(uint256 amount) external watched("donate") {
        amount %= 100;
        token.mint(address(market), amount);
        donated += amount;
    }

    function doStake(uint256 who, uint128 amount) external watched("stake") {
        amount %= 5000;
        vm.prank(someProvider(who));
        registry.addStake(someProvider(who), amount);
        staked += amount;
    }

    function doUnstake(uint256 who, uint128 amount) external watched("unstake") {
        address provider = someProvider(who);
        amount = amount % 1_000_000 + 1;
        vm.prank(provider);
        registry.withdrawStake(amount, provider);
        unstaked += amount;
        IStorageMarket.ProofSet memory set = setOf(provider);
        if (set.agreements == 0 || set.deadAt != 0) return;
        if (set.epoch != market.currentEpoch()) fault("stake left a set that is behind");
        if (registry.stakeOf(provider) < uint256(set.rateMax) * 14) fault("stake left that agreements need");
    }

    function newMarket() internal override returns (StorageMarket) {
        return new OpenMarket(parameters());
    }

    function theMarket() external view returns (OpenMarket) {
        return OpenMarket(address(market));
    }

    /// Money and stake as at the beginning, after everybody took everything.
    function refill() external {
        for (uint256 n = 0; n < 2; ++n) {
            fund(someClient(n), 1_000_000);
            fund(someProvider(n), 1_000_000);
            vm.prank(someProvider(n));
            registry.addStake(someProvider(n), 1_000_000);
        }
        deposited += 4_000_000;
        staked += 2_000_000;
    }

    // --- what is looked up --------------------------------------------------------------------------------------------

    function agreements() external view returns (uint32) {
        return uint32(books.length);
    }

    function isOpen(uint32 id) external view returns (bool) {
        return books[id].open;
    }

    /// Locked for epochs that are not proven, by the books.
    function unproven(uint32 id) external view returns (uint256) {
        return books[id].put - books[id].earned;
    }

    function providers() external view returns (address[2] memory) {
        return [pat, quinn];
    }

    function clients() external view returns (address[2] memory) {
        return [anna, ben];
    }

    /// Time passes until every agreement has ended by itself, without anyone proving anything.
    function runOut() external {
        vm.recordLogs();
        for (uint256 n = 0; n < 80 && openCount() != 0; ++n) {
            leave();
            seal();
            for (uint256 p = 0; p < 2; ++p) {
                address provider = someProvider(p);
                catchUp(provider);
                for (uint32 id = 1; id < books.length; ++id) {
                    if (market.getAgreement(id).provider == provider && setOf(provider).deadAt != 0) {
                        market.closeDead(id);
                    }
                }
            }
            read(vm.getRecordedLogs());
            vm.recordLogs();
        }
        if (openCount() != 0) fault("every agreement ends");
        for (uint256 n = 0; n < 2; ++n) {
            unstakeAll(someProvider(n));
            takeAll(someProvider(n));
            takeAll(someClient(n));
        }
        takeAll(address(this));
    }

    /// A provider that holds everything can always prove, unless its set is dead or empty.
    function prove(address provider) private {
        seal();
        catchUp(provider);
        uint32 epoch = market.currentEpoch();
        if (setOf(provider).deadAt != 0 || rateOf(provider) == 0 || provenOnce[provider][epoch]) return;
        uint256 before = market.free(provider);
        try market.prove(provider, proofsOf(provider)) {
            provenOnce[provider][epoch] = true;
            ++done["prove"];
            uint256 due = 0;
            for (uint32 id = 1; id < books.length; ++id) {
                if (books[id].open && books[id].provider == provider) {
                    uint256 rate = rateIn(id, epoch);
                    books[id].earned += rate;
                    due += rate;
                }
            }
            paid += due;
            if (market.free(provider) - before != due) fault("an epoch pays the rates of its agreements");
        } catch {
            fault("a provider that holds everything can prove");
        }
    }

    /// A provider that holds everything can always answer, unless its set is dead.
    function answer(uint32 id) private {
        if (market.getQuestion(id).epoch != market.currentEpoch()) return;
        address provider = books[id].provider;
        seal();
        catchUp(provider);
        if (setOf(provider).deadAt != 0 || market.getAgreement(id).client == address(0)) return;
        try market.answer(id, answersOf(id)) {
            ++done["answer"];
        } catch {
            fault("a provider that holds everything can answer");
        }
    }

    // --- inside -------------------------------------------------------------------------------------------------------

    function unstakeAll(address provider) private {
        uint128 stake = registry.stakeOf(provider);
        vm.prank(provider);
        registry.withdrawStake(stake, provider);
        unstaked += stake;
    }

    function takeAll(address account) private {
        uint256 amount = market.free(account);
        vm.prank(account);
        market.withdraw(amount, account);
        withdrawn += amount;
    }

    function openCount() private view returns (uint256 count) {
        for (uint256 n = 1; n < books.length; ++n) {
            if (books[n].open) ++count;
        }
    }

    function fault(string memory what) private {
        if (bytes(violation).length == 0) violation = what;
    }

    function leave() private {
        uint32 epoch = market.currentEpoch();
        counted[epoch] = beacon.counts(epoch);
        // No block at the start of an epoch: how many a seed had is known when its epoch ends.
        vm.warp(uint256(GENESIS) + uint256(epoch + 1) * EPOCH);
    }

    function seal() private {
        beacon.seal();
        vm.roll(vm.getBlockNumber() + BLOCKS_MIN);
    }

    /// Brings a set to the current epoch, whatever is due on the way.
    function catchUp(address provider) private {
        market.advance(provider, type(uint32).max);
        for (uint256 n = 0; n < 100 && setOf(provider).deadAt == 0 && setOf(provider).due != 0; ++n) {
            moveOn(provider);
            market.advance(provider, type(uint32).max);
        }
    }

    function moveOn(address provider) private {
        uint32[] memory ids = new uint32[](books.length);
        for (uint32 id = 1; id < books.length; ++id) {
            if (books[id].open && books[id].provider == provider) ids[id] = id;
        }
        market.moveOn(ids);
    }

    function someClient(uint256 who) private view returns (address) {
        return who & 1 == 0 ? anna : ben;
    }

    function someProvider(uint256 who) private view returns (address) {
        return who & 1 == 0 ? pat : quinn;
    }

    function someOpen(uint256 which) private view returns (uint32) {
        uint256 count = openCount();
        require(count != 0, "none is open");
        which %= count;
        uint32 id = 0;
        for (uint256 seen = 0; seen <= which;) {
            if (books[++id].open) ++seen;
        }
        return id;
    }

    function rateIn(uint32 id, uint32 epoch) private view returns (uint256) {
        for (uint256 n = 0; n < terms[id].length; ++n) {
            Written memory one = terms[id][n];
            if (one.from <= epoch && epoch < one.end) return one.rate;
        }
        return 0;
    }

    /// New terms replace what was to hold from the same epoch on, and end what held before.
    function write(uint32 id, Written memory one) private {
        Written[] storage list = terms[id];
        if (list[list.length - 1].from == one.from) list.pop();
        else if (list[list.length - 1].end > one.from) list[list.length - 1].end = one.from;
        list.push(one);
    }

    /// What the events say, against the books.
    function read(Vm.Log[] memory logs) private {
        for (uint256 n = 0; n < logs.length; ++n) {
            Vm.Log memory log = logs[n];
            if (log.emitter != address(market)) continue;
            bytes32 kind = log.topics[0];
            if (kind == IStorageMarket.Missed.selector) {
                (uint256 slashed, uint256 bounty,) = abi.decode(log.data, (uint256, uint256, address));
                slashedForMisses += slashed;
                bounties += bounty;
                ++roundings;
                if (!counted[uint32(uint256(log.topics[2]))]) fault("an epoch that doesn't count was slashed");
            } else if (kind == IStorageMarket.VoidEpoch.selector) {
                if (counted[uint32(uint256(log.topics[2]))]) fault("an epoch that counts was void");
            } else if (kind == IStorageMarket.Compensated.selector) {
                compensated += abi.decode(log.data, (uint256));
                ++roundings;
            } else if (kind == IStorageMarket.Unanswered.selector) {
                (uint32 epoch, uint256 slashed) = abi.decode(log.data, (uint32, uint256));
                slashedForQuestions += slashed;
                if (!counted[epoch]) fault("a question in an epoch that doesn't count was slashed");
            } else if (kind == IStorageMarket.LeftEarly.selector) {
                slashedForQuestions += abi.decode(log.data, (uint256));
            } else if (kind == IStorageMarket.Released.selector) {
                books[uint32(uint256(log.topics[1]))].put -= abi.decode(log.data, (uint256));
            } else if (kind == IStorageMarket.EndMoved.selector) {
                uint32 id = uint32(uint256(log.topics[1]));
                (uint32 end,) = abi.decode(log.data, (uint32, address));
                terms[id][terms[id].length - 1].end = end;
            } else if (kind == IStorageMarket.AgreementClosed.selector) {
                uint32 id = uint32(uint256(log.topics[1]));
                (, uint256 refund) = abi.decode(log.data, (uint32, uint256));
                if (refund != books[id].put - books[id].earned) fault("a close refunds what was not proven");
                books[id].open = false;
            } else if (kind == IStorageMarket.Died.selector) {
                ++done["died"];
            }
        }
    }
}
