// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Epochs} from "../src/Epochs.sol";

/// @notice The accumulators, for every input rather than for samples.
contract EpochsSymbolic {
    using Epochs for Epochs.History;

    Epochs.History private history;

    /// The count in parallel is the count of one bit after the other: for any sixteen bits, in each of a word's sixteen lanes.
    function check_ones_counts_any_bits_of_each_lane(uint16 bits) public pure {
        uint256 expected = counted(bits);
        for (uint256 place = 0; place < 256; place += 16) {
            assert(Epochs.ones(uint256(bits) << place) == expected);
        }
    }

    /// And lanes add up: any bits of any two lanes that are neighbours, and of the first and each other.
    function check_ones_adds_up_two_lanes(uint16 first, uint16 second) public pure {
        uint256 expected = counted(first) + counted(second);
        for (uint256 place = 16; place < 256; place += 16) {
            assert(Epochs.ones(uint256(first) << (place - 16) | uint256(second) << place) == expected);
            assert(Epochs.ones(uint256(first) | uint256(second) << place) == expected);
        }
    }

    /// A full word counts 256 and not 0, and without one bit 255, whichever it is.
    function check_a_full_word(uint8 bit) public pure {
        assert(Epochs.ones(type(uint256).max) == 256);
        assert(Epochs.ones(type(uint256).max ^ (1 << bit)) == 255);
    }

    /// One epoch more counts one more exactly if it was proven.
    function check_a_range_grows_by_its_last_epoch(uint16 bits, uint16 before, uint8 from, uint8 end) public {
        if (from > end || end >= 16) return;
        history.words[0].proven = bits;
        history.words[0].provenBefore = before;
        assert(history.provenIn(from, uint32(end) + 1) == history.provenIn(from, end) + (bits >> end & 1));
        assert(history.provenIn(from, from) == 0);
    }

    /// Closing a word's last epoch carries its counts over; closing any other changes nothing.
    function check_closing_carries_over(uint256 proven, uint256 missed, uint16 before, uint8 epoch) public {
        history.words[0].proven = proven;
        history.words[0].missed = missed;
        history.words[0].provenBefore = before;
        history.words[0].missedBefore = before;
        history.close(epoch);
        if (epoch == 255) {
            assert(history.words[1].provenBefore == uint256(before) + Epochs.ones(proven));
            assert(history.words[1].missedBefore == uint256(before) + Epochs.ones(missed));
        } else {
            assert(history.words[1].provenBefore == 0 && history.words[1].missedBefore == 0);
        }
        assert(history.words[0].proven == proven && history.words[0].missed == missed);
    }

    /// Marking an epoch sets its bit in its word and no other, and proven and missed are apart.
    function check_marks_are_apart(uint256 word, uint8 marked, uint8 other) public {
        history.words[0].proven = word;
        history.markProven(marked);
        assert(history.proven(marked));
        if (other != marked) assert(history.proven(other) == (word >> other & 1 == 1));
        assert(!history.missed(other));
        history.markMissed(other);
        assert(history.missed(other) && history.proven(marked));
    }

    function counted(uint256 bits) private pure returns (uint256 count) {
        for (uint256 i = 0; i < 16; ++i) {
            count += bits >> i & 1;
        }
    }
}
