// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Blake3Paths} from "../src/Blake3Paths.sol";
import {IChunkPaths} from "../src/interfaces/IChunkPaths.sol";
import {Blake3Reference} from "./Blake3Reference.sol";
import {Blake3Vectors} from "./Blake3Vectors.sol";
import {vm} from "./Vm.sol";

/// @notice Flips single bits of the verifier's code, and asks whether anything of what the other tests ask would notice.
/// @dev `flips.md` names those that nothing can notice, with the reason. A change of the verifier moves them: look at each again.
contract Blake3FlipsTest is Blake3Vectors {
    /// A prime, so that the bits looked at don't keep step with bytes or words of the code.
    uint256 private constant FLIPS = 401;
    uint256 private constant GAS = 3_000_000;

    struct Case {
        bytes call_;
        bool done;
        bytes32 answer;
    }

    Case[] private cases;
    address private target = address(0xF11);

    function setUp() public {
        Blake3Paths paths = new Blake3Paths();
        target = address(paths);
        addCases();
    }

    function test_every_flipped_bit_is_noticed_or_listed() public {
        bytes memory code = target.code;
        string memory listed = vm.readFile("test/flips.md");
        string memory hash = vm.toString(uint256(keccak256(code)));
        if (!contains(listed, hash)) {
            revert Fails(string.concat("the verifier changed: look at flips.md again, for code ", hash));
        }
        uint256 noticed = 0;
        string memory missed = "";
        for (uint256 flip = 0; flip < FLIPS; ++flip) {
            uint256 bit = flip * (code.length * 8) / FLIPS;
            bytes memory changed = bytes.concat(code);
            changed[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
            vm.etch(target, changed);
            if (isNoticed()) {
                ++noticed;
            } else {
                string memory name = string.concat("| ", vm.toString(bit / 8), " | ", vm.toString(bit % 8), " |");
                if (!contains(listed, name)) missed = string.concat(missed, name, "\n");
            }
        }
        vm.etch(target, code);
        holds(!isNoticed(), "the code itself is good");
        if (bytes(missed).length != 0) revert Fails(missed);
        holds(noticed >= FLIPS * 9 / 10, "few are listed");
    }

    function isNoticed() private view returns (bool) {
        for (uint256 at = 0; at < cases.length; ++at) {
            Case storage c = cases[at];
            (bool done, bytes memory answer) = target.staticcall{gas: GAS}(c.call_);
            if (done != c.done || keccak256(answer) != c.answer) return true;
        }
        return false;
    }

    /// Quick ones first: most flips break everything.
    function addCases() private {
        bytes32[] memory none = new bytes32[](0);
        add(chunkOf(0, 65), 0, 65, none);
        vectorCase(3073, 2);
        vectorCase(5197, 5);
        vectorCase(64 * 1024 * 1024, 32768);
        uint256[8] memory lengths = [uint256(1), 31, 32, 33, 63, 64, 96, 129];
        for (uint256 at = 0; at < lengths.length; ++at) {
            add(chunkOf(0, lengths[at]), 0, uint64(lengths[at]), none);
            dirty(uint64(lengths[at]));
        }
        // What is refused, with all that is said about it.
        bytes32[] memory one = new bytes32[](1);
        add(new bytes(1), 0, 0, none);
        add(new bytes(1), 0, 1 << 40, none);
        add(new bytes(1), 0, type(uint64).max, none);
        add(new bytes(1024), 0, (1 << 40) - 1, none);
        add(new bytes(1024), 1, 1024, none);
        add(new bytes(1024), type(uint64).max, 1025, one);
        add(new bytes(1023), 0, 1025, one);
        add(new bytes(2), 1, 1025, one);
        add(new bytes(1024), 0, 1025, none);
        add(new bytes(1024), 0, 1025, new bytes32[](2));
        broken();
        // All ones, all zeros, single bits: what random data hardly ever is. And the longest path that there is.
        for (uint8 fill = 1; fill < 6; ++fill) {
            filled(1025, 0, fill);
            filled(1025, 1, fill);
            filled((1 << 40) - 1, (1 << 30) - 1, fill);
            filled((1 << 40) - 1, 0x15555555, fill);
            filled(60, 0, fill);
        }
    }

    /// Calldata that no decoder may take.
    function broken() private {
        bytes memory good = abi.encodeCall(IChunkPaths.root, (chunkOf(0, 1025), 0, 1025, new bytes32[](1)));
        for (uint256 word = 0; word < 4; ++word) {
            for (uint256 bit = 0; bit < 256; bit += 1 + bit % 13) {
                bytes memory bad = bytes.concat(good);
                bad[4 + word * 32 + 31 - bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
                raw(bad);
            }
        }
        for (uint256 cut = 0; cut < 200; cut += cut < 8 ? 1 : 31) {
            bytes memory bad = bytes.concat(good);
            assembly ("memory-safe") {
                mstore(bad, cut)
            }
            raw(bad);
        }
        bytes memory lengths = bytes.concat(good);
        // The lengths of chunk and path as they stand in the calldata.
        for (uint256 bit = 0; bit < 256; bit += 5) {
            bytes memory bad = bytes.concat(lengths);
            bad[4 + 4 * 32 + 31 - bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
            raw(bad);
            bad = bytes.concat(lengths);
            bad[4 + 37 * 32 + 31 - bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
            raw(bad);
        }
        raw(abi.encodeWithSignature("root(bytes,uint64,uint64,bytes32[1])", chunkOf(0, 64), 0, 64, [bytes32(0)]));
        raw(hex"00000000");
        // Offsets and lengths that lie behind everything, but whose ends wrap round to the beginning.
        raw(withWord(good, 0, type(uint256).max - 35));
        raw(withWord(good, 4, type(uint256).max - 99));
        raw(withWord(good, 37, (1 << 251) + 1));
        good = abi.encodeCall(IChunkPaths.root, (chunkOf(0, 64), 0, 64, new bytes32[](0)));
        raw(withWord(good, 0, type(uint256).max - 35));
        raw(withWord(good, 3, type(uint256).max - 35));
    }

    function withWord(bytes memory good, uint256 word, uint256 value) private pure returns (bytes memory bad) {
        bad = bytes.concat(good);
        assembly ("memory-safe") {
            mstore(add(add(bad, 36), mul(word, 32)), value)
        }
    }

    /// A chunk whose padding isn't zeros.
    function dirty(uint64 length) private {
        bytes memory call_ = abi.encodeCall(IChunkPaths.root, (chunkOf(0, length), 0, length, new bytes32[](0)));
        for (uint256 i = 4 + 5 * 32 + length; i < 4 + 5 * 32 + (uint256(length) + 31) / 32 * 32; ++i) {
            call_[i] = 0xff;
        }
        raw(call_);
    }

    function filled(uint64 length, uint64 index, uint8 fill) private {
        bytes memory chunk = new bytes(length - index * 1024 < 1024 ? length - index * 1024 : 1024);
        for (uint256 i = 0; i < chunk.length; ++i) {
            chunk[i] = fill == 1 ? bytes1(0xff) : fill == 2 ? bytes1(0) : bytes1(uint8(1 << ((i + fill) % 8)));
        }
        bytes32[] memory siblings = new bytes32[](Blake3Reference.depth(index, length));
        for (uint256 i = 0; i < siblings.length; ++i) {
            siblings[i] =
                fill == 1 ? bytes32(type(uint256).max) : fill == 2 ? bytes32(0) : keccak256(abi.encode(fill, i));
        }
        add(chunk, index, length, siblings);
    }

    function vectorCase(uint256 length, uint256 index) private {
        Vector[] memory all = vectors();
        for (uint256 at = 0; at < all.length; ++at) {
            if (all[at].length != length || all[at].index != index) continue;
            add(chunkOf(index, length), uint64(index), uint64(length), all[at].siblings);
            return;
        }
        revert Fails("no such vector");
    }

    function add(bytes memory chunk, uint64 index, uint64 length, bytes32[] memory siblings) private {
        raw(abi.encodeCall(IChunkPaths.root, (chunk, index, length, siblings)));
    }

    /// What the unchanged code answers; whether that is right is shown by the other tests.
    function raw(bytes memory call_) private {
        (bool done, bytes memory answer) = target.staticcall{gas: GAS}(call_);
        cases.push(Case(call_, done, keccak256(answer)));
    }

    function contains(string memory text, string memory part) private pure returns (bool) {
        bytes memory a = bytes(text);
        bytes memory b = bytes(part);
        for (uint256 at = 0; at + b.length <= a.length; ++at) {
            if (a[at] != b[0]) continue;
            uint256 i = 0;
            while (i < b.length && a[at + i] == b[i]) ++i;
            if (i == b.length) return true;
        }
        return false;
    }
}
