// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Epochs} from "../src/Epochs.sol";
import {FragmentSets} from "../src/FragmentSets.sol";
import {SumTree} from "../src/SumTree.sol";
import {TestSets} from "./TestSets.sol";
import {vm} from "./Vm.sol";

/// @title The parts of the market, against plain ways of doing the same.
contract PiecesTest {
    using SumTree for SumTree.Tree;
    using Epochs for Epochs.History;

    SumTree.Tree private tree;
    mapping(uint32 => uint128) private plain;
    Epochs.History private history;

    // --- SumTree ------------------------------------------------------------------------------------------------------

    function testFuzz_a_tree_finds_what_a_walk_finds(uint256 seed) public {
        uint32 positions = uint32(seed % 90 + 1);
        uint128 total = 0;
        for (uint256 n = 0; n < 120; ++n) {
            uint256 random = uint256(keccak256(abi.encode(seed, n)));
            uint32 position = uint32(random % positions);
            // Rates as high as there are, and as low.
            uint96 amount = random & 0x700 == 0 ? 0 : uint96(random >> 160) >> (random & 0x800 == 0 ? 0 : 90);
            total = total - plain[position] + amount;
            tree.change(position, plain[position], amount);
            plain[position] = amount;
            require(tree.total == total, "total");
        }
        if (total == 0) return;
        for (uint256 n = 0; n < 20; ++n) {
            uint128 unit = uint128(uint256(keccak256(abi.encode(n, seed))) % total);
            if (n < 2) unit = n == 0 ? 0 : total - 1;
            checkWalk(unit);
        }
        // Where one position's units end and the next one's begin.
        uint128 end = 0;
        for (uint32 position = 0; position < positions; ++position) {
            end += plain[position];
            if (end != 0) checkWalk(end - 1);
            if (end != total) checkWalk(end);
        }
        try this.find(total) {
            revert("beyond the total");
        } catch {}
    }

    function checkWalk(uint128 unit) private view {
        uint32 walked = 0;
        uint128 rest = unit;
        while (rest >= plain[walked]) rest -= plain[walked++];
        require(tree.find(unit) == walked, "the same place");
    }

    function find(uint128 unit) external view returns (uint32) {
        return tree.find(unit);
    }

    function change(uint32 position, uint128 before, uint128 amount) external {
        tree.change(position, before, amount);
    }

    function test_a_tree_grows_to_any_position() public {
        tree.change(0, 0, 5);
        require(tree.find(4) == 0, "the only one");
        tree.change(type(uint32).max, 0, 7);
        require(tree.find(4) == 0, "first");
        require(tree.find(5) == type(uint32).max && tree.find(11) == type(uint32).max, "last");
        tree.change(4, 0, 1);
        require(tree.find(4) == 0 && tree.find(5) == 4 && tree.find(6) == type(uint32).max, "between");
        tree.change(0, 5, 0);
        require(tree.find(0) == 4 && tree.find(1) == type(uint32).max, "nothing falls on what has nothing");
    }

    /// As many agreements as a market can have, each at the highest rate, fit; and what would wrap is refused.
    function test_a_tree_holds_the_pay_of_any_set() public {
        uint128 most = uint128(type(uint32).max) * type(uint96).max;
        tree.change(1, 0, most);
        require(tree.find(most - 1) == 1, "the last unit that a set can earn");
        tree.change(0, 0, type(uint128).max - most);
        vm.expectRevert();
        this.change(2, 0, 1);
    }

    // --- Epochs -------------------------------------------------------------------------------------------------------

    function testFuzz_ranges_of_epochs_are_counted_right(uint256 seed) public {
        uint32 first = uint32(seed % 300);
        uint32 count = uint32(seed >> 16) % 700 + 1;
        bool[] memory proven = new bool[](count);
        bool[] memory missed = new bool[](count);
        for (uint32 n = 0; n < count; ++n) {
            uint256 random = uint256(keccak256(abi.encode(seed, n)));
            proven[n] = random & 3 == 0;
            missed[n] = !proven[n] && random & 4 == 0;
            if (proven[n]) history.markProven(first + n);
            if (missed[n]) history.markMissed(first + n);
            require(history.proven(first + n) == proven[n] && history.missed(first + n) == missed[n], "bit");
            history.close(first + n);
        }
        for (uint256 n = 0; n < 10; ++n) {
            uint256 random = uint256(keccak256(abi.encode(n, seed)));
            uint32 from = uint32(random % (count + 1));
            uint32 end = from + uint32((random >> 32) % (count - from + 1));
            uint256 sumProven = 0;
            uint256 sumMissed = 0;
            for (uint32 m = from; m < end; ++m) {
                if (proven[m]) ++sumProven;
                if (missed[m]) ++sumMissed;
            }
            require(history.provenIn(first + from, first + end) == sumProven, "proven");
            require(history.missedIn(first + from, first + end) == sumMissed, "missed");
        }
    }

    function testFuzz_ones(uint256 x) public pure {
        uint256 count = 0;
        for (uint256 rest = x; rest != 0; rest &= rest - 1) {
            ++count;
        }
        require(Epochs.ones(x) == count, "ones");
    }

    function test_ones_of_everything() public pure {
        require(Epochs.ones(type(uint256).max) == 256 && Epochs.ones(0) == 0 && Epochs.ones(1 << 255) == 1, "ones");
    }

    // --- FragmentSets -------------------------------------------------------------------------------------------------

    function locate(FragmentSets.Path calldata path, bytes32 root, uint64 total, uint64 offset)
        external
        pure
        returns (uint64)
    {
        return FragmentSets.locate(path, root, total, offset);
    }

    function leaves(uint256 seed, uint256 count) private pure returns (TestSets.Leaf[] memory list) {
        list = new TestSets.Leaf[](count);
        for (uint256 n = 0; n < count; ++n) {
            bytes32 id = keccak256(abi.encode(seed, n));
            list[n] = TestSets.Leaf(id, uint64(uint256(id) % 3000) + 1, uint32(uint256(id) >> 200));
        }
    }

    function testFuzz_every_byte_of_a_set_has_its_path(uint256 seed) public view {
        TestSets.Leaf[] memory list = leaves(seed, seed % 33 + 1);
        uint64 total = TestSets.sizeOf(list);
        uint64 offset = uint64((seed >> 64) % total);
        (bytes32 root, FragmentSets.Path memory path, uint64 inside,) = TestSets.build(list, offset);
        require(this.locate(path, root, total, offset) == inside, "inside");
    }

    function testFuzz_a_path_leads_to_no_other_fragments_bytes(uint256 seed) public {
        TestSets.Leaf[] memory list = leaves(seed, seed % 33 + 2);
        uint64 total = TestSets.sizeOf(list);
        uint64 offset = uint64((seed >> 64) % total);
        uint64 other = uint64((seed >> 128) % total);
        (bytes32 root, FragmentSets.Path memory path, uint64 inside, uint256 number) = TestSets.build(list, offset);
        (,,, uint256 otherNumber) = TestSets.build(list, other);
        if (number == otherNumber) return;
        vm.expectRevert(FragmentSets.WrongFragment.selector);
        this.locate(path, root, total, other);
        inside;
    }

    function test_a_total_or_root_that_was_not_committed_is_refused() public {
        TestSets.Leaf[] memory list = leaves(1, 5);
        uint64 total = TestSets.sizeOf(list);
        (bytes32 root, FragmentSets.Path memory path,,) = TestSets.build(list, 0);
        vm.expectRevert(FragmentSets.WrongSetPath.selector);
        this.locate(path, root, total + 1, 0);
        vm.expectRevert(FragmentSets.WrongSetPath.selector);
        this.locate(path, bytes32(uint256(root) ^ 1), total, 0);
    }

    function test_a_path_has_a_shape() public {
        TestSets.Leaf[] memory list = leaves(1, 5);
        uint64 total = TestSets.sizeOf(list);
        (bytes32 root, FragmentSets.Path memory path,,) = TestSets.build(list, 0);
        path.turns |= 1 << 3;
        vm.expectRevert(FragmentSets.SetPathLength.selector);
        this.locate(path, root, total, 0);
        path.turns = 0;
        path.sums = new uint64[](2);
        vm.expectRevert(FragmentSets.SetPathLength.selector);
        this.locate(path, root, total, 0);
        path.hashes = new bytes32[](41);
        path.sums = new uint64[](41);
        vm.expectRevert(FragmentSets.SetPathLength.selector);
        this.locate(path, root, total, 0);
    }

    /// Sums that pass 2^64 would let one byte stand for many.
    function test_sums_do_not_wrap() public {
        TestSets.Leaf[] memory list = leaves(1, 2);
        (bytes32 root, FragmentSets.Path memory path,,) = TestSets.build(list, 0);
        path.sums[0] = type(uint64).max;
        vm.expectRevert();
        this.locate(path, root, path.length - 1, 0);
    }

    /// A leaf can't be shown as a node, nor a node as a leaf: each kind is hashed under its own name.
    function test_leaves_nodes_and_roots_are_told_apart() public pure {
        require(
            FragmentSets.LEAF != FragmentSets.NODE && FragmentSets.NODE != FragmentSets.ROOT
                && FragmentSets.ROOT != FragmentSets.LEAF,
            "names"
        );
    }
}
