// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Blake3Paths} from "../src/Blake3Paths.sol";
import {IChunkPaths} from "../src/interfaces/IChunkPaths.sol";
import {Blake3Reference} from "./Blake3Reference.sol";
import {Blake3Vectors} from "./Blake3Vectors.sol";
import {vm} from "./Vm.sol";

contract Blake3PathsTest is Blake3Vectors {
    Blake3Paths private paths;

    function setUp() public {
        paths = new Blake3Paths();
    }

    function test_every_vector_of_the_blake3_crate() public view {
        Vector[] memory all = vectors();
        same(all.length, 124, "vectors");
        for (uint256 at = 0; at < all.length; ++at) {
            Vector memory v = all[at];
            bytes memory chunk = chunkOf(v.index, v.length);
            bytes32 root = paths.root(chunk, uint64(v.index), uint64(v.length), v.siblings);
            same(root, v.root, string.concat("vector ", vm.toString(at)));
        }
    }

    function test_the_reference_agrees_with_every_vector() public view {
        Vector[] memory all = vectors();
        for (uint256 at = 0; at < all.length; ++at) {
            Vector memory v = all[at];
            bytes32 root = this.plainRoot(chunkOf(v.index, v.length), uint64(v.index), uint64(v.length), v.siblings);
            same(root, v.root, string.concat("vector ", vm.toString(at)));
        }
    }

    /// In a call of its own, whose memory is gone afterwards: the reference takes a lot.
    function plainRoot(bytes memory chunk, uint64 index, uint64 length, bytes32[] memory siblings)
        external
        pure
        returns (bytes32)
    {
        return Blake3Reference.root(chunk, index, length, siblings);
    }

    /// Every single bit of a short chunk and of its siblings counts.
    function test_a_wrong_bit_anywhere_gives_another_root() public view {
        Vector memory v = vectorOf(5197, 5);
        bytes memory chunk = chunkOf(5, 5197);
        for (uint256 bit = 0; bit < chunk.length * 8; ++bit) {
            chunk[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
            holds(paths.root(chunk, 5, 5197, v.siblings) != v.root, "leaf bit");
            chunk[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        }
        for (uint256 bit = 0; bit < v.siblings.length * 256; ++bit) {
            v.siblings[bit / 256] ^= bytes32(1 << (bit % 256));
            holds(paths.root(chunk, 5, 5197, v.siblings) != v.root, "sibling bit");
            v.siblings[bit / 256] ^= bytes32(1 << (bit % 256));
        }
        same(paths.root(chunk, 5, 5197, v.siblings), v.root, "restored");
    }

    function test_a_wrong_bit_of_a_whole_chunk_gives_another_root(uint256 bit) public view {
        Vector memory v = vectorOf(64 * 1024 * 1024, 32768);
        bytes memory chunk = chunkOf(v.index, v.length);
        bit %= 8192;
        chunk[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        holds(paths.root(chunk, uint64(v.index), uint64(v.length), v.siblings) != v.root, "leaf bit");
    }

    /// The chunk's number goes into its hash: equal bytes elsewhere don't pass for it, not even with the siblings that fit.
    function test_a_chunk_of_another_number_is_another_chunk() public view {
        Vector memory v = vectorOf(64 * 1024 * 1024, 32768);
        bytes memory chunk = chunkOf(v.index, v.length);
        for (uint256 level = 0; level < 16; ++level) {
            uint64 other = uint64(v.index ^ (1 << level));
            holds(paths.root(chunk, other, uint64(v.length), v.siblings) != v.root, "another number");
        }
    }

    /// Why the length must come from what was committed: a path in the middle fits two lengths.
    function test_a_middle_path_does_not_tell_the_length() public view {
        Vector memory v = vectorOf(5_000_000, 2441);
        bytes memory chunk = chunkOf(v.index, v.length);
        same(paths.root(chunk, uint64(v.index), 5_000_001, v.siblings), v.root, "the same shape");
    }

    /// As soon as the shape differs or the last chunk is asked for, a wrong length is noticed.
    function test_a_length_of_another_shape_is_refused() public {
        Vector memory v = vectorOf(5_000_000, 2441);
        bytes memory chunk = chunkOf(v.index, v.length);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.PathLength.selector, 12, 13));
        paths.root(chunk, uint64(v.index), 4096 * 1024, v.siblings);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.PathLength.selector, 14, 13));
        paths.root(chunk, uint64(v.index), 16 * 1024 * 1024, v.siblings);
        v = vectorOf(5_000_000, 4882);
        chunk = chunkOf(v.index, v.length);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkLength.selector, 833, 832));
        paths.root(chunk, uint64(v.index), 5_000_001, v.siblings);
    }

    function test_lengths_out_of_range_are_refused() public {
        bytes memory chunk = new bytes(1);
        bytes32[] memory none = new bytes32[](0);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.FragmentLength.selector, 0));
        paths.root(chunk, 0, 0, none);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.FragmentLength.selector, 1 << 40));
        paths.root(chunk, 0, 1 << 40, none);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.FragmentLength.selector, type(uint64).max));
        paths.root(chunk, 0, type(uint64).max, none);
        // The longest that is allowed has 2^30 chunks.
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.PathLength.selector, 30, 0));
        paths.root(new bytes(1024), 0, (1 << 40) - 1, none);
    }

    function test_chunks_behind_the_end_are_refused() public {
        bytes32[] memory none = new bytes32[](0);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkIndex.selector, 1, 1024));
        paths.root(new bytes(1024), 1, 1024, none);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkIndex.selector, 2, 1025));
        paths.root(new bytes(1024), 2, 1025, none);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkIndex.selector, type(uint64).max, 1025));
        paths.root(new bytes(1024), type(uint64).max, 1025, none);
    }

    /// A chunk has as many bytes as it has in the fragment: nothing is padded, nothing is cut.
    function test_chunks_of_another_length_are_refused() public {
        bytes32[] memory one = new bytes32[](1);
        uint256[4] memory wrong = [uint256(0), 1023, 1025, 2048];
        for (uint256 at = 0; at < wrong.length; ++at) {
            vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkLength.selector, 1024, wrong[at]));
            paths.root(new bytes(wrong[at]), 0, 1025, one);
        }
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkLength.selector, 1, 1024));
        paths.root(new bytes(1024), 1, 1025, one);
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.ChunkLength.selector, 1, 0));
        paths.root(new bytes(0), 1, 1025, one);
    }

    function test_paths_of_another_length_are_refused() public {
        for (uint256 count = 0; count < 5; ++count) {
            if (count == 3) continue;
            vm.expectRevert(abi.encodeWithSelector(IChunkPaths.PathLength.selector, 3, count));
            paths.root(new bytes(1024), 0, 5197, new bytes32[](count));
        }
        vm.expectRevert(abi.encodeWithSelector(IChunkPaths.PathLength.selector, 2, 3));
        paths.root(chunkOf(5, 5197), 5, 5197, new bytes32[](3));
    }

    /// A parent can't pass for a chunk: what two chaining values hash to as a chunk is another value, by the flags.
    function test_a_parent_is_no_chunk() public view {
        Vector memory v = vectorOf(2048, 0);
        uint32[8] memory left = Blake3Reference.chunk(chunkOf(0, 2048), 0, false);
        bytes memory pair = abi.encodePacked(Blake3Reference.toBytes(left), v.siblings[0]);
        holds(paths.root(pair, 0, 64, new bytes32[](0)) != v.root, "a fragment of 64 bytes");
    }

    /// Each flag of BLAKE3 in its place: with another one in the reference, the roots part.
    function test_every_flag_counts() public view {
        uint32[8] memory key = Blake3Reference.iv();
        uint32[16] memory m;
        m[0] = 7;
        bytes memory chunk = new bytes(64);
        chunk[0] = 0x07;
        bytes32 root = paths.root(chunk, 0, 64, new bytes32[](0));
        for (uint32 flags = 0; flags < 128; ++flags) {
            bytes32 other = Blake3Reference.toBytes(Blake3Reference.compress(key, m, 0, 64, flags));
            holds((other == root) == (flags == 11), "only start, end and root together");
        }
    }

    /// The upper bits of the arguments' words must be zero: the decoder refuses others before they reach the hash.
    function test_dirty_upper_bits_are_refused() public view {
        bytes32[] memory none = new bytes32[](0);
        bytes memory good = abi.encodeCall(IChunkPaths.root, (chunkOf(0, 65), 0, 65, none));
        (bool done,) = address(paths).staticcall(good);
        holds(done, "clean");
        for (uint256 word = 1; word < 3; ++word) {
            for (uint256 bit = 64; bit < 256; ++bit) {
                bytes memory dirty = flipped(good, 4 + word * 32, bit);
                (done,) = address(paths).staticcall(dirty);
                holds(!done, "dirty");
            }
        }
    }

    /// What stands in the calldata behind a short chunk, its padding, is not hashed.
    function test_dirty_padding_of_a_chunk_changes_nothing() public view {
        bytes32[] memory none = new bytes32[](0);
        uint256[6] memory lengths = [uint256(1), 31, 33, 63, 65, 100];
        for (uint256 at = 0; at < lengths.length; ++at) {
            uint64 length = uint64(lengths[at]);
            bytes memory call_ = abi.encodeCall(IChunkPaths.root, (chunkOf(0, length), 0, length, none));
            bytes32 expected = paths.root(chunkOf(0, length), 0, length, none);
            // Chunk's bytes begin behind selector, four words of arguments and the chunk's length.
            uint256 from = 4 + 5 * 32 + length;
            uint256 end = 4 + 5 * 32 + (uint256(length) + 31) / 32 * 32;
            for (uint256 i = from; i < end; ++i) {
                call_[i] = 0xff;
            }
            // And behind the padding, where a load of the last block reaches.
            (bool done, bytes memory answer) = address(paths).staticcall(bytes.concat(call_, hex"ffffffffffffffff"));
            holds(done, "takes it");
            same(abi.decode(answer, (bytes32)), expected, "the same hash");
        }
    }

    function test_offsets_that_point_behind_the_calldata_are_refused() public view {
        bytes32[] memory one = new bytes32[](1);
        bytes memory good = abi.encodeCall(IChunkPaths.root, (chunkOf(0, 1025), 0, 1025, one));
        for (uint256 word = 0; word < 4; word += 3) {
            for (uint256 bit = 12; bit < 256; ++bit) {
                (bool done,) = address(paths).staticcall(flipped(good, 4 + word * 32, bit));
                holds(!done, "an offset far away");
            }
        }
        // Cut short by one byte.
        bytes memory cut = new bytes(good.length - 1);
        for (uint256 i = 0; i < cut.length; ++i) {
            cut[i] = good[i];
        }
        (bool whole,) = address(paths).staticcall(cut);
        holds(!whole, "cut calldata");
    }

    /// Two kernels that share nothing, on random chunks and paths of any length that is allowed.
    /// forge-config: default.fuzz.runs = 128
    function test_agrees_with_the_reference(uint256 seed, uint64 length, uint64 index, uint8 fill) public view {
        length = uint64(1 + length % ((1 << (1 + seed % 40)) - 1));
        uint64 chunks = (length + 1023) / 1024;
        index = index % chunks;
        agree(seed, length, index, fill);
        agree(seed, length, chunks - 1, fill);
    }

    /// The same for every length of one and two chunks' border, where blocks and chunks end.
    function test_agrees_with_the_reference_at_every_length() public view {
        for (uint64 length = 1; length <= 1024; length += length < 200 ? 1 : 7) {
            agree(length, length, 0, 0);
        }
        for (uint64 length = 1025; length <= 1100; ++length) {
            agree(length, length, 1, 0);
        }
    }

    /// What random bytes hardly ever are: all ones, all zeros, one bit.
    function test_agrees_with_the_reference_at_extremes() public view {
        for (uint8 fill = 1; fill < 8; ++fill) {
            agree(fill, (1 << 40) - 1, (1 << 30) - 1, fill);
            agree(fill, (1 << 40) - 1, 0, fill);
            agree(fill, 5_000_000, 4882, fill);
            agree(fill, 1024, 0, fill);
        }
    }

    function agree(uint256 seed, uint64 length, uint64 index, uint8 fill) private view {
        bytes memory chunk = new bytes(length - index * 1024 < 1024 ? length - index * 1024 : 1024);
        for (uint256 i = 0; i < chunk.length; i += 32) {
            uint256 word = filled(seed, i, fill);
            for (uint256 j = 0; j < 32 && i + j < chunk.length; ++j) {
                chunk[i + j] = bytes1(uint8(word >> (8 * j)));
            }
        }
        bytes32[] memory siblings = new bytes32[](Blake3Reference.depth(index, length));
        for (uint256 i = 0; i < siblings.length; ++i) {
            siblings[i] = bytes32(filled(seed, 4096 + i, fill));
        }
        same(paths.root(chunk, index, length, siblings), this.plainRoot(chunk, index, length, siblings), "two kernels");
    }

    function filled(uint256 seed, uint256 at, uint8 fill) private pure returns (uint256) {
        uint256 random = uint256(keccak256(abi.encode(seed, at)));
        fill %= 8;
        if (fill == 1) return type(uint256).max;
        if (fill == 2) return 0;
        if (fill == 3) return 1 << (random % 256);
        if (fill == 4) return ~(1 << (random % 256));
        return random;
    }

    function flipped(bytes memory data, uint256 word, uint256 bit) private pure returns (bytes memory copy) {
        copy = bytes.concat(data);
        copy[word + 31 - bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
    }

    function vectorOf(uint256 length, uint256 index) private view returns (Vector memory) {
        Vector[] memory all = vectors();
        for (uint256 at = 0; at < all.length; ++at) {
            if (all[at].length == length && all[at].index == index) return all[at];
        }
        revert Fails("no such vector");
    }
}
