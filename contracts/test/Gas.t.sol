// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Blake3Paths} from "../src/Blake3Paths.sol";
import {FragmentSets} from "../src/FragmentSets.sol";
import {StorageMarket} from "../src/StorageMarket.sol";
import {IChunkPaths} from "../src/interfaces/IChunkPaths.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title What everything costs: `forge test --isolate --match-contract Gas -vv` prints the table of docs/settlement.md.
/// @notice Each agreement is 64 GiB in 65,536 fragments of 1 MiB, all with the bytes of one real fragment (test/vectors), so each proof is a real
///         one: a chunk of 1,024 bytes, 10 levels up to its BLAKE3 id, 16 levels up to the agreement's root, and the way through the tree
///         of all agreements. With --isolate every call is a transaction of its own, with 21,000 and its calldata.
contract GasTest is Fixture {
    event log(string line);

    uint64 private constant FRAGMENT = 1 << 20;
    uint256 private constant LEVELS = 16;

    uint32 private asked = 21;
    bytes32 private fragment;
    bytes32 private setRoot;
    bytes32[LEVELS] private beside;
    uint256 private opened;

    function newPaths() internal override returns (IChunkPaths) {
        return new Blake3Paths();
    }

    function parameters() internal override returns (StorageMarket.Parameters memory p) {
        p = super.parameters();
        (p.challenges, p.missesMax) = (asked, 5);
    }

    function setUp() public override {
        bytes memory tree = vm.readFileBinary("test/vectors/fragment-1MiB.bin");
        bytes32 id;
        assembly {
            id := mload(add(tree, mload(tree)))
        }
        fragment = id;
        bytes32 node = keccak256(abi.encode(FragmentSets.LEAF, id, FRAGMENT, uint32(0)));
        for (uint256 level = 0; level < LEVELS; ++level) {
            beside[level] = node;
            uint64 sum = FRAGMENT << uint64(level);
            node = keccak256(abi.encode(FragmentSets.NODE, node, sum, node, sum));
        }
        setRoot = keccak256(abi.encode(FragmentSets.ROOT, node, FRAGMENT << uint64(LEVELS)));
        start(21);
    }

    /// A new market that asks for so many chunks.
    function start(uint32 challenges) private {
        (asked, opened) = (challenges, 0);
        super.setUp();
        fund(pat, 10_000_000);
        vm.prank(pat);
        registry.addStake(pat, 10_000_000);
    }

    function used() private view returns (uint256) {
        return vm.lastCallGas().gasTotalUsed;
    }

    function line(string memory what, uint256 gas) private {
        emit log(string.concat("| ", what, " | ", vm.toString(gas), " |"));
    }

    function keyAt(uint256 n) private pure returns (uint256) {
        return 0x10000 + n;
    }

    /// Opens that many agreements in one transaction, each with a client of its own.
    function openMany(uint256 count) private returns (uint256 gas) {
        IStorageMarket.Proposal[] memory proposals = new IStorageMarket.Proposal[](count);
        bytes[] memory signatures = new bytes[](count);
        uint32 epoch = market.currentEpoch();
        for (uint256 n = 0; n < count; ++n) {
            uint256 key = keyAt(opened++);
            fund(vm.addr(key), 10_000);
            proposals[n] = IStorageMarket.Proposal({
                client: vm.addr(key),
                provider: pat,
                setRoot: setRoot,
                size: FRAGMENT << uint64(LEVELS),
                ratePerEpoch: 100,
                endEpoch: epoch + 31,
                escrow: 6000,
                retainedBytes: 0,
                retainedUntil: 0,
                acceptBy: epoch,
                nonce: 1
            });
            signatures[n] = signed(key, market.proposalDigest(proposals[n]));
        }
        vm.prank(pat);
        market.activate(proposals, signatures);
        gas = used();
        equal(market.getAgreement(uint32(opened)).escrow, 6000, "the last is open");
    }

    function moveMany(uint256 from, uint256 count) private returns (uint256) {
        uint32[] memory ids = new uint32[](count);
        for (uint256 n = 0; n < count; ++n) {
            ids[n] = uint32(from + n);
        }
        market.moveOn(ids);
        return used();
    }

    function reviseMany(uint256 from, uint256 count) private returns (uint256 gas) {
        IStorageMarket.Revision[] memory revisions = new IStorageMarket.Revision[](count);
        bytes[] memory ofClients = new bytes[](count);
        bytes[] memory ofProviders = new bytes[](count);
        for (uint256 n = 0; n < count; ++n) {
            revisions[n] = revisionOf(uint32(from + n));
            revisions[n].ratePerEpoch = 110;
            bytes32 digest = market.revisionDigest(revisions[n]);
            ofClients[n] = signed(keyAt(from + n - 1), digest);
            ofProviders[n] = signed(PAT_KEY, digest);
        }
        market.revise(revisions, ofClients, ofProviders);
        gas = used();
        equal(market.getAgreement(uint32(from + count - 1)).next.ratePerEpoch, 110, "the last is revised");
    }

    // --- real proofs --------------------------------------------------------------------------------------------------

    function realProof(bytes memory tree, uint64 offset) private view returns (IStorageMarket.Proof memory proof) {
        uint64 leaf = offset / FRAGMENT;
        uint256 index = offset % FRAGMENT >> 10;
        proof.fragment = FragmentSets.Path(fragment, FRAGMENT, 0, leaf, new bytes32[](LEVELS), new uint64[](LEVELS));
        for (uint256 level = 0; level < LEVELS; ++level) {
            proof.fragment.hashes[level] = beside[level];
            proof.fragment.sums[level] = FRAGMENT << uint64(level);
        }
        proof.chunk = new bytes(1024);
        for (uint256 j = 0; j < 1024; ++j) {
            proof.chunk[j] = bytes1(uint8(31 * j + 17 * index + (index >> 8)));
        }
        proof.siblings = new bytes32[](10);
        uint256 first = 0;
        for (uint256 level = 0; level < 10; ++level) {
            uint256 place = 32 * (first + ((index >> level) ^ 1));
            bytes32 value;
            assembly {
                value := mload(add(add(tree, 0x20), place))
            }
            proof.siblings[level] = value;
            first += 1024 >> level;
        }
    }

    function realProofs(uint64[] memory offsets) private view returns (IStorageMarket.Proof[] memory proofs) {
        bytes memory tree = vm.readFileBinary("test/vectors/fragment-1MiB.bin");
        proofs = new IStorageMarket.Proof[](offsets.length);
        for (uint256 n = 0; n < offsets.length; ++n) {
            proofs[n] = realProof(tree, offsets[n]);
        }
    }

    /// What a whole epoch costs its provider: closing the one before, and proving.
    function proveOnce() private returns (uint256 gas) {
        sealEpoch();
        market.advance(pat, 9);
        (, uint64[] memory offsets) = market.challengesOf(pat);
        market.prove(pat, realProofs(offsets));
        gas = used();
        (bool proven,) = market.outcome(pat, market.currentEpoch());
        require(proven, "a real proof of real chunks");
    }

    function proveMany(uint32 challenges, uint256 agreements) private {
        start(challenges);
        for (uint256 n = 0; n < agreements; n += 50) {
            openMany(agreements - n < 50 ? agreements - n : 50);
        }
        toEpoch(11);
        market.advance(pat, 9);
        for (uint256 n = 0; n < agreements; n += 50) {
            moveMany(n + 1, agreements - n < 50 ? agreements - n : 50);
        }
        proveOnce();
        // An epoch like all later ones: its predecessor is closed by the same transaction.
        toEpoch(12);
        sealEpoch();
        (, uint64[] memory offsets) = market.challengesOf(pat);
        market.prove(pat, realProofs(offsets));
        uint256 gas = used();
        (bool proven,) = market.outcome(pat, 12);
        require(proven, "a real proof of real chunks");
        line(string.concat("prove, K = ", vm.toString(challenges), ", agreements ", vm.toString(agreements)), gas);
    }

    function test_gas_of_proofs_with_7_challenges() public {
        proveMany(7, 1);
        proveMany(7, 100);
        proveMany(7, 1000);
    }

    function test_gas_of_proofs_with_21_challenges() public {
        proveMany(21, 1);
        proveMany(21, 100);
        proveMany(21, 1000);
    }

    function test_gas_of_proofs_with_42_challenges() public {
        proveMany(42, 1);
        proveMany(42, 100);
        proveMany(42, 1000);
    }

    function test_gas_of_agreements() public {
        openMany(1);
        line("activate 1 (second of its set)", openMany(1));
        line("activate 10", openMany(10));
        line("activate 50", openMany(50));
        toEpoch(11);
        market.advance(pat, 9);
        line("advance one epoch", used());
        line("begin terms of 1", moveMany(1, 1));
        line("begin terms of 50", moveMany(2, 50));
        moveMany(52, 11);
        line("revise 1", reviseMany(1, 1));
        line("revise 10", reviseMany(2, 10));
        line("revise 50", reviseMany(12, 50));
        proveOnce();
        toEpoch(12);
        market.advance(pat, 9);
        line("new terms of 1", moveMany(1, 1));
        line("new terms of 50", moveMany(2, 50));
        moveMany(52, 11);
    }

    function test_gas_of_everything_else() public {
        openMany(10);
        toEpoch(11);
        beacon.seal();
        line("seal a seed", used());
        vm.roll(vm.getBlockNumber() + BLOCKS_MIN);
        market.advance(pat, 9);
        moveMany(1, 10);
        toEpoch(12);
        sealEpoch();
        market.advance(pat, 9);
        line("record a miss", used());
        toEpoch(12 + 200);
        market.advance(pat, 9);
        market.advance(pat, 9);
        line("close 9 epochs without a seed", used());
        start(21);
        openMany(2);
        toEpoch(11);
        sealEpoch();
        market.advance(pat, 9);
        moveMany(1, 2);
        proveOnce();
        vm.prank(vm.addr(keyAt(0)));
        market.ask(1);
        line("ask", used());
        toEpoch(12);
        sealEpoch();
        market.answer(1, realProofs(market.questionOf(1)));
        line("answer, K = 21", used());
        vm.prank(vm.addr(keyAt(0)));
        market.terminate(1);
        line("terminate", used());
        vm.prank(vm.addr(keyAt(0)));
        market.reserve(1, 10);
        line("reserve", used());
        proveOnce();
        for (uint32 epoch = 13; epoch < 17; ++epoch) {
            toEpoch(epoch);
            proveOnce();
        }
        toEpoch(17);
        market.advance(pat, 9);
        line("close 1 at its end", moveMany(1, 1));
        token.mint(address(this), 100);
        token.approve(address(market), 100);
        market.deposit(anna, 100);
        line("deposit", used());
        vm.prank(anna);
        market.withdraw(50, anna);
        line("withdraw", used());
        vm.prank(anna);
        registry.register(bytes32(uint256(1)), new bytes(64), "{}");
        line("register", used());
        vm.prank(anna);
        registry.addStake(anna, 50);
        line("add stake", used());
    }
}
