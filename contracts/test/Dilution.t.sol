// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title A provider that lost anna's data and fills its set with an agreement with itself, over bytes that it can make up.
/// @notice Here ben is the provider's own second account.
contract DilutionTest is Fixture {
    uint96 private constant RATE = 1000;

    /// Opens anna's agreement and ben's, and begins both.
    function dilute(uint64 times, uint96 rate) private returns (uint32 honest) {
        honest = open(anna, pat, RATE, 200);
        IStorageMarket.Proposal memory sham = proposalOf(ben, pat, rate, 200);
        sham.size = times * market.getAgreement(honest).next.size;
        require(activate(sham) != 0, "open");
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
    }

    /// In how many of so many epochs some challenge falls on an agreement, and how many challenges do.
    function countOf(uint32 id, uint32 count) private returns (uint256 epochs, uint256 challenges) {
        for (uint32 n = 0; n < count; ++n) {
            (uint32[] memory ids,) = market.challengesOf(pat);
            uint256 before = challenges;
            for (uint256 k = 0; k < ids.length; ++k) {
                if (ids[k] == id) ++challenges;
            }
            if (challenges != before) ++epochs;
            nextEpoch();
        }
    }

    function test_made_up_bytes_for_next_to_nothing_hide_nothing() public {
        uint32 honest = dilute(10_000, 1);
        (uint256 epochs, uint256 challenges) = countOf(honest, 60);
        equal(epochs, 60, "epochs in which the lost data is asked for");
        // One in a thousand falls on the sham agreement, and 9,999 of 10,000 bytes are its own.
        require(challenges >= 178, "challenges");
    }

    function test_bytes_for_which_nothing_is_paid_are_never_asked_for() public {
        uint32 honest = dilute(10_000, 0);
        (, uint256 challenges) = countOf(honest, 60);
        equal(challenges, 180, "challenges");
    }

    function test_who_lost_the_paid_data_dies_whatever_lies_beside_it() public {
        uint32 honest = dilute(10_000, 1);
        for (uint32 n = 0; n < 3; ++n) {
            // It can show any byte of its own, and old chunks of anna's; here, another chunk than the one that is asked for.
            (uint32[] memory ids, uint64[] memory offsets) = market.challengesOf(pat);
            IStorageMarket.Proof[] memory proofs = new IStorageMarket.Proof[](3);
            for (uint256 k = 0; k < 3; ++k) {
                bytes32 root = market.getAgreement(honest).current.setRoot;
                proofs[k] = proofAt(root, ids[k] == honest ? offsets[k] : 0);
                proofs[k].chunk[40] ^= 0x01;
            }
            vm.expectRevert();
            market.prove(pat, proofs);
            nextEpoch();
            market.advance(pat, 9);
        }
        require(setOf(pat).deadAt != 0, "dead");
        equal(market.free(pat), 0, "nothing earned");
    }

    /// To be asked half as often it must pay itself as much as anna pays: with escrow of its own, and with as much stake again.
    function test_who_dilutes_locks_as_much_as_the_others_pay() public {
        uint32 honest = dilute(1, RATE);
        equal(market.stakeNeeded(pat), 14 * 2 * uint256(RATE), "stake for both");
        equal(lockedOf(market.agreementOf(ben, pat)), 200 * uint256(RATE), "escrow of its own");
        (, uint256 challenges) = countOf(honest, 100);
        // 150 of 300 is half; four standard deviations are 35.
        require(challenges > 115 && challenges < 185, "half of the challenges");
    }

    function test_without_the_stake_there_is_no_dilution() public {
        fund(ben, 1_000_000);
        open(anna, pat, RATE, 200);
        // 1,000,000 of stake cover 71,428 an epoch.
        IStorageMarket.Proposal memory sham = proposalOf(ben, pat, 70_429, 1);
        expectActivationSkipped(sham, IStorageMarket.Skip.Stake);
        require(activate(sham) == 0, "passed over");
        sham = proposalOf(ben, pat, 70_428, 1);
        require(activate(sham) != 0, "covered");
    }
}
