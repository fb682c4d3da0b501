// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {FragmentSets} from "./FragmentSets.sol";
import {SumTree} from "./SumTree.sol";
import {IChunkPaths} from "./interfaces/IChunkPaths.sol";
import {IStorageMarket} from "./interfaces/IStorageMarket.sol";

/// @title What an epoch's seed asks for, and whether the chunks shown are that.
/// @notice Reads the market's state and changes nothing. It is a library of its own, linked to the market, because both together would
///         be longer than a contract may be.
library Possession {
    using FragmentSets for FragmentSets.Path;
    using SumTree for SumTree.Tree;

    bytes32 private constant CHALLENGE = keccak256("seedbank challenge 1");
    bytes32 private constant QUESTION = keccak256("seedbank question 1");

    /// @notice What decides where a seed asks: nothing in it is the prover's choice.
    struct Asked {
        IChunkPaths chunkPaths;
        /// How many chunks are asked for.
        uint32 challenges;
        uint32 epoch;
        bytes32 seed;
    }

    /// @notice Reverts unless the proofs show what the seed asks of a provider's whole set, in order.
    function checkSet(
        Asked memory asked,
        address provider,
        SumTree.Tree storage sizes,
        mapping(uint32 position => uint32 agreement) storage byPosition,
        mapping(uint32 agreement => IStorageMarket.Agreement) storage agreements,
        IStorageMarket.Proof[] calldata proofs
    ) external view {
        uint64 total = sizes.total;
        if (total == 0) revert IStorageMarket.NothingToProve();
        if (proofs.length != asked.challenges) revert IStorageMarket.ProofCount(asked.challenges, proofs.length);
        for (uint256 number = 0; number < proofs.length; ++number) {
            (uint32 position, uint64 inside) = sizes.find(offsetOf(CHALLENGE, uint160(provider), asked, number, total));
            check(asked, proofs[number], agreements[byPosition[position]].current, inside, number);
        }
    }

    /// @notice Reverts unless the proofs show what the seed asks of one agreement, in order. One that holds nothing needs none.
    function checkAgreement(
        Asked memory asked,
        uint32 agreement,
        IStorageMarket.Terms storage terms,
        IStorageMarket.Proof[] calldata proofs
    ) external view {
        uint64 size = terms.size;
        uint256 wanted = size == 0 ? 0 : asked.challenges;
        if (proofs.length != wanted) revert IStorageMarket.ProofCount(wanted, proofs.length);
        for (uint256 number = 0; number < wanted; ++number) {
            check(asked, proofs[number], terms, offsetOf(QUESTION, agreement, asked, number, size), number);
        }
    }

    /// @notice Where the seed asks a provider's whole set: for each challenge the agreement, and the byte in that agreement's set.
    function ofSet(
        Asked memory asked,
        address provider,
        SumTree.Tree storage sizes,
        mapping(uint32 position => uint32 agreement) storage byPosition
    ) external view returns (uint32[] memory ids, uint64[] memory offsets) {
        uint64 total = sizes.total;
        if (total == 0) revert IStorageMarket.NothingToProve();
        ids = new uint32[](asked.challenges);
        offsets = new uint64[](asked.challenges);
        for (uint256 number = 0; number < asked.challenges; ++number) {
            uint32 position;
            (position, offsets[number]) = sizes.find(offsetOf(CHALLENGE, uint160(provider), asked, number, total));
            ids[number] = byPosition[position];
        }
    }

    /// @notice Where the seed asks one agreement of `size` bytes.
    function ofAgreement(Asked memory asked, uint32 agreement, uint64 size)
        external
        view
        returns (uint64[] memory offsets)
    {
        offsets = new uint64[](size == 0 ? 0 : asked.challenges);
        for (uint256 number = 0; number < offsets.length; ++number) {
            offsets[number] = offsetOf(QUESTION, agreement, asked, number, size);
        }
    }

    function check(
        Asked memory asked,
        IStorageMarket.Proof calldata proof,
        IStorageMarket.Terms storage terms,
        uint64 offset,
        uint256 number
    ) private view {
        uint64 inside = proof.fragment.locate(terms.setRoot, terms.size, offset);
        bytes32 root = asked.chunkPaths.root(proof.chunk, inside >> 10, proof.fragment.length, proof.siblings);
        if (root != proof.fragment.fragment) revert IStorageMarket.WrongChunk(number);
    }

    /// The byte that a challenge asks for. Biased by less than 2^-190 towards low offsets.
    function offsetOf(bytes32 domain, uint256 subject, Asked memory asked, uint256 number, uint64 total)
        private
        view
        returns (uint64)
    {
        bytes memory input = abi.encode(domain, block.chainid, address(this), subject, asked.epoch, asked.seed, number);
        return uint64(uint256(keccak256(input)) % total);
    }
}
