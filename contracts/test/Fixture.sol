// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EmbeddedBeacon} from "../src/EmbeddedBeacon.sol";
import {StorageMarket} from "../src/StorageMarket.sol";
import {TestToken} from "../src/TestToken.sol";
import {IChunkPaths} from "../src/interfaces/IChunkPaths.sol";
import {IProviderRegistry} from "../src/interfaces/IProviderRegistry.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {CheapPaths, TestSets} from "./TestSets.sol";
import {Vm, vm} from "./Vm.sol";

/// @title A market with two clients and two providers, time that is moved by hand, and everybody's keys.
abstract contract Fixture {
    uint64 internal constant GENESIS = 1_000_000;
    uint32 internal constant EPOCH = 1000;
    uint32 internal constant BLOCKS_MIN = 10;

    uint256 internal constant ANNA_KEY = 0xa11a;
    uint256 internal constant BEN_KEY = 0xbe11;
    uint256 internal constant PAT_KEY = 0x9a71;
    uint256 internal constant QUINN_KEY = 0x9111;
    uint256 internal constant HOT_KEY = 0x407;
    /// Clients.
    address internal immutable anna = vm.addr(ANNA_KEY);
    address internal immutable ben = vm.addr(BEN_KEY);
    /// Providers.
    address internal immutable pat = vm.addr(PAT_KEY);
    address internal immutable quinn = vm.addr(QUINN_KEY);
    address internal immutable hot = vm.addr(HOT_KEY);
    /// Somebody who has nothing to do with anything.
    address internal constant STRANGER = address(0x57a6);

    TestToken internal token;
    EmbeddedBeacon internal beacon;
    StorageMarket internal market;
    IProviderRegistry internal registry;

    mapping(bytes32 root => TestSets.Leaf[]) internal leavesOf;
    mapping(bytes32 id => bytes32) internal nameOf;
    uint256 private nonces;

    function setUp() public virtual {
        vm.warp(GENESIS);
        vm.roll(1000);
        token = newToken();
        beacon = new EmbeddedBeacon(GENESIS, EPOCH, BLOCKS_MIN);
        market = newMarket();
        registry = market.registry();
        fund(anna, 1_000_000);
        fund(ben, 1_000_000);
        enroll(pat, 1_000_000);
        enroll(quinn, 1_000_000);
        toEpoch(10);
    }

    function newToken() internal virtual returns (TestToken) {
        return new TestToken();
    }

    function newMarket() internal virtual returns (StorageMarket) {
        return new StorageMarket(parameters());
    }

    function newPaths() internal virtual returns (IChunkPaths) {
        return new CheapPaths();
    }

    function parameters() internal virtual returns (StorageMarket.Parameters memory) {
        return StorageMarket.Parameters({
            token: IERC20(address(token)),
            randomness: beacon,
            chunkPaths: newPaths(),
            challenges: 3,
            slashEpochs: 2,
            stakeEpochs: 14,
            missesMax: 3,
            noticeEpochs: 4,
            bountyBasisPoints: 1000,
            questionBond: 50
        });
    }

    // --- people -------------------------------------------------------------------------------------------------------

    /// Gives an account free balance.
    function fund(address account, uint256 amount) internal {
        token.mint(address(this), amount);
        token.approve(address(market), amount);
        market.deposit(account, amount);
    }

    /// Registers a provider, with stake.
    function enroll(address provider, uint128 stake) internal {
        vm.prank(provider);
        registry.register(bytes32(uint256(1)), new bytes(64), "{}");
        if (stake == 0) return;
        fund(provider, stake);
        // A token may have taken its fee.
        uint256 arrived = market.free(provider);
        vm.prank(provider);
        registry.addStake(provider, arrived < stake ? uint128(arrived) : stake);
    }

    function keyOf(address account) internal view returns (uint256) {
        if (account == anna) return ANNA_KEY;
        if (account == ben) return BEN_KEY;
        if (account == pat) return PAT_KEY;
        if (account == quinn) return QUINN_KEY;
        return HOT_KEY;
    }

    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    // --- time ---------------------------------------------------------------------------------------------------------

    /// Goes to the start of an epoch. Nobody seals its seed, and no blocks follow.
    function toEpoch(uint32 epoch) internal {
        vm.warp(uint256(GENESIS) + uint256(epoch) * EPOCH);
        vm.roll(vm.getBlockNumber() + 1);
    }

    /// Seals the current epoch's seed, and lets enough blocks follow for it to count.
    function sealEpoch() internal {
        beacon.seal();
        vm.roll(vm.getBlockNumber() + BLOCKS_MIN);
    }

    function nextEpoch() internal {
        toEpoch(market.currentEpoch() + 1);
        sealEpoch();
    }

    // --- sets and proofs ----------------------------------------------------------------------------------------------

    /// A set of fragments of different lengths, remembered for proofs.
    function newSet(uint256 seed, uint256 fragments) internal returns (bytes32 root, uint64 size) {
        TestSets.Leaf[] memory leaves = new TestSets.Leaf[](fragments);
        for (uint256 n = 0; n < fragments; ++n) {
            bytes32 name = keccak256(abi.encode(seed, n));
            uint64 length = uint64(uint256(name) % 5000) + 1;
            leaves[n] = TestSets.Leaf(TestSets.id(name, length), length, 0);
            nameOf[leaves[n].id] = name;
        }
        // Strictly by id, as both sides keep them.
        for (uint256 n = 1; n < fragments; ++n) {
            for (uint256 m = n; m > 0 && leaves[m].id < leaves[m - 1].id; --m) {
                (leaves[m], leaves[m - 1]) = (leaves[m - 1], leaves[m]);
            }
        }
        root = TestSets.rootOf(leaves);
        size = TestSets.sizeOf(leaves);
        if (leavesOf[root].length == 0) {
            for (uint256 n = 0; n < fragments; ++n) {
                leavesOf[root].push(leaves[n]);
            }
        }
    }

    function proofAt(bytes32 root, uint64 offset) internal view returns (IStorageMarket.Proof memory proof) {
        uint64 inside;
        (, proof.fragment, inside,) = TestSets.build(leavesOf[root], offset);
        proof.chunk = abi.encode(nameOf[proof.fragment.fragment], uint256(inside >> 10));
    }

    /// What a provider that holds everything answers to the current epoch.
    function proofsOf(address provider) internal view returns (IStorageMarket.Proof[] memory proofs) {
        (uint32[] memory ids, uint64[] memory offsets) = market.challengesOf(provider);
        proofs = new IStorageMarket.Proof[](ids.length);
        for (uint256 n = 0; n < ids.length; ++n) {
            proofs[n] = proofAt(market.getAgreement(ids[n]).current.setRoot, offsets[n]);
        }
    }

    function answersOf(uint32 id) internal view returns (IStorageMarket.Proof[] memory proofs) {
        uint64[] memory offsets = market.questionOf(id);
        proofs = new IStorageMarket.Proof[](offsets.length);
        for (uint256 n = 0; n < offsets.length; ++n) {
            proofs[n] = proofAt(market.getAgreement(id).current.setRoot, offsets[n]);
        }
    }

    /// Proves a provider's set in the current epoch, with what is due moved on first.
    function proveAs(address provider) internal {
        sealEpoch();
        market.advance(provider, type(uint32).max);
        moveAllOn();
        market.advance(provider, type(uint32).max);
        market.prove(provider, proofsOf(provider));
    }

    /// Moves on whatever is due, of the first agreements.
    function moveAllOn() internal {
        uint32[] memory ids = new uint32[](40);
        for (uint32 n = 0; n < 40; ++n) {
            ids[n] = n + 1;
        }
        market.moveOn(ids);
    }

    // --- agreements ---------------------------------------------------------------------------------------------------

    function proposalOf(address client, address provider, uint96 rate, uint32 epochs)
        internal
        returns (IStorageMarket.Proposal memory proposal)
    {
        ++nonces;
        (bytes32 root, uint64 size) = newSet(uint256(keccak256(abi.encode(client, provider, nonces))), 1 + nonces % 4);
        uint32 epoch = market.currentEpoch();
        proposal = IStorageMarket.Proposal({
            client: client,
            provider: provider,
            setRoot: root,
            size: size,
            ratePerEpoch: rate,
            endEpoch: epoch + 1 + epochs,
            escrow: uint128(rate) * epochs,
            retainedBytes: 0,
            retainedUntil: 0,
            acceptBy: epoch,
            nonce: nonces
        });
    }

    function activate(IStorageMarket.Proposal memory proposal, bytes memory signature) internal {
        IStorageMarket.Proposal[] memory proposals = new IStorageMarket.Proposal[](1);
        bytes[] memory signatures = new bytes[](1);
        (proposals[0], signatures[0]) = (proposal, signature);
        vm.prank(proposal.provider);
        market.activate(proposals, signatures);
    }

    /// Activates a proposal with its client's signature.
    function activate(IStorageMarket.Proposal memory proposal) internal returns (uint32) {
        activate(proposal, signed(keyOf(proposal.client), market.proposalDigest(proposal)));
        return market.agreementOf(proposal.client, proposal.provider);
    }

    /// An agreement that begins with the next epoch.
    function open(address client, address provider, uint96 rate, uint32 epochs) internal returns (uint32 id) {
        id = activate(proposalOf(client, provider, rate, epochs));
        require(id != 0, "the agreement is open");
    }

    /// The revision that changes nothing, for the next epoch.
    function revisionOf(uint32 id) internal view returns (IStorageMarket.Revision memory revision) {
        IStorageMarket.Agreement memory agreement = market.getAgreement(id);
        IStorageMarket.Terms memory terms = agreement.next.from != 0 ? agreement.next : agreement.current;
        revision = IStorageMarket.Revision({
            agreement: id,
            sequence: agreement.sequence + 1,
            setRoot: terms.setRoot,
            size: terms.size,
            ratePerEpoch: terms.ratePerEpoch,
            fromEpoch: market.currentEpoch() + 1,
            endEpoch: terms.end,
            retainedBytes: agreement.retainedBytes,
            retainedUntil: agreement.retainedUntil
        });
    }

    function revise(IStorageMarket.Revision memory revision, uint256 clientKey, uint256 providerKey) internal {
        bytes32 digest = market.revisionDigest(revision);
        revise(revision, signed(clientKey, digest), signed(providerKey, digest));
    }

    function revise(IStorageMarket.Revision memory revision, bytes memory ofClient, bytes memory ofProvider) internal {
        IStorageMarket.Revision[] memory revisions = new IStorageMarket.Revision[](1);
        bytes[] memory ofClients = new bytes[](1);
        bytes[] memory ofProviders = new bytes[](1);
        (revisions[0], ofClients[0], ofProviders[0]) = (revision, ofClient, ofProvider);
        market.revise(revisions, ofClients, ofProviders);
    }

    /// Posts a revision with both sides' signatures.
    function revise(IStorageMarket.Revision memory revision) internal {
        IStorageMarket.Agreement memory agreement = market.getAgreement(revision.agreement);
        revise(revision, keyOf(agreement.client), keyOf(agreement.provider));
    }

    /// Makes forge hold the next call of the market to emitting this, and what comes with it.
    function expectActivationSkipped(IStorageMarket.Proposal memory proposal, IStorageMarket.Skip reason) internal {
        bytes32 digest = market.proposalDigest(proposal);
        vm.expectEmit(address(market));
        emit IStorageMarket.ActivationSkipped(0, digest, reason);
    }

    function expectRevisionSkipped(IStorageMarket.Revision memory revision, IStorageMarket.Skip reason) internal {
        vm.expectEmit(address(market));
        emit IStorageMarket.RevisionSkipped(0, revision.agreement, revision.sequence, reason);
    }

    // --- sums ---------------------------------------------------------------------------------------------------------

    function setOf(address provider) internal view returns (IStorageMarket.ProofSet memory set) {
        (set,) = market.getSet(provider);
    }

    function rateOf(address provider) internal view returns (uint128 rate) {
        (, rate) = market.getSet(provider);
    }

    function lockedOf(uint32 id) internal view returns (uint256 locked) {
        (, locked) = market.standing(id);
    }

    function totalLocked() internal view returns (uint256 locked) {
        (, locked,,) = market.totals();
    }

    /// Everything that the market owes is there, to the unit.
    function checkSums() internal view {
        (uint256 free, uint256 locked, uint256 bonded, uint256 compensation) = market.totals();
        equal(
            token.balanceOf(address(market)),
            free + locked + bonded + compensation + registry.totalStake(),
            "the market holds what it owes"
        );
    }

    function equal(uint256 actual, uint256 expected, string memory what) internal pure {
        if (actual != expected) {
            revert(string.concat(what, ": ", vm.toString(actual), " instead of ", vm.toString(expected)));
        }
    }
}
