// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {FragmentSets} from "./FragmentSets.sol";
import {Ledger} from "./Ledger.sol";
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
        Ledger storage ledger,
        Asked memory asked,
        address provider,
        IStorageMarket.Proof[] calldata proofs
    ) external view {
        uint128 total = payOf(ledger, provider);
        if (proofs.length != asked.challenges) revert IStorageMarket.ProofCount(asked.challenges, proofs.length);
        for (uint256 number = 0; number < proofs.length; ++number) {
            (uint32 id, uint64 offset) = challenge(ledger, asked, provider, total, number);
            check(asked, proofs[number], ledger.agreements[id].current, offset, number);
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
            uint64 offset = byteOf(draw(QUESTION, agreement, asked, number), size);
            check(asked, proofs[number], terms, offset, number);
        }
    }

    /// @notice Where the seed asks a provider's whole set: for each challenge the agreement, and the byte in that agreement's set.
    function ofSet(Ledger storage ledger, Asked memory asked, address provider)
        external
        view
        returns (uint32[] memory ids, uint64[] memory offsets)
    {
        uint128 total = payOf(ledger, provider);
        ids = new uint32[](asked.challenges);
        offsets = new uint64[](asked.challenges);
        for (uint256 number = 0; number < asked.challenges; ++number) {
            (ids[number], offsets[number]) = challenge(ledger, asked, provider, total, number);
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
            offsets[number] = byteOf(draw(QUESTION, agreement, asked, number), size);
        }
    }

    /// What a set's epoch earns. Where nothing is paid, nothing is asked.
    function payOf(Ledger storage ledger, address provider) private view returns (uint128 total) {
        total = ledger.rates[provider].total;
        if (total == 0) revert IStorageMarket.NothingToProve();
    }

    /// The agreement that gets the drawn unit of the epoch's pay, and a byte of that agreement's set. So an agreement is asked for as
    /// often as its share of the pay says, whatever lies beside it: who wants others' data to be asked for less often must pay as they do.
    function challenge(Ledger storage ledger, Asked memory asked, address provider, uint128 total, uint256 number)
        private
        view
        returns (uint32 id, uint64 offset)
    {
        uint256 drawn = draw(CHALLENGE, uint160(provider), asked, number);
        id = ledger.byPosition[provider][ledger.rates[provider].find(uint128(drawn % total))];
        // What is paid for has bytes: no proposal or revision without them opens or holds.
        offset = byteOf(drawn, ledger.agreements[id].current.size);
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

    /// What the seed draws for a challenge. Modulo a set's pay, which is below 2^128, it favours low units by less than 2^-128 of their chance.
    function draw(bytes32 domain, uint256 subject, Asked memory asked, uint256 number) private view returns (uint256) {
        bytes memory input = abi.encode(domain, block.chainid, address(this), subject, asked.epoch, asked.seed, number);
        return uint256(keccak256(input));
    }

    /// The byte of one agreement's set that a draw asks for. Drawn anew, so that it doesn't hang on the unit that chose the agreement; low bytes are
    /// favoured by less than 2^-192.
    function byteOf(uint256 drawn, uint64 size) private pure returns (uint64) {
        return uint64(uint256(keccak256(abi.encode(drawn))) % size);
    }
}
