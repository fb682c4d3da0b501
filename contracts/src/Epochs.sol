// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Which epochs of a provider were proven and which were missed.
/// @notice Two bits an epoch, and at each word of 256 epochs the number of bits before it: how many of any range were proven is read
///         from two words, however long the range is.
library Epochs {
    struct Word {
        uint256 proven;
        uint256 missed;
        /// Bits set in all words before this one. Right once every epoch before this word was closed.
        uint32 provenBefore;
        uint32 missedBefore;
    }

    struct History {
        mapping(uint32 number => Word) words;
    }

    function markProven(History storage history, uint32 epoch) internal {
        history.words[epoch >> 8].proven |= 1 << (epoch & 255);
    }

    function markMissed(History storage history, uint32 epoch) internal {
        history.words[epoch >> 8].missed |= 1 << (epoch & 255);
    }

    function proven(History storage history, uint32 epoch) internal view returns (bool) {
        return history.words[epoch >> 8].proven >> (epoch & 255) & 1 == 1;
    }

    function missed(History storage history, uint32 epoch) internal view returns (bool) {
        return history.words[epoch >> 8].missed >> (epoch & 255) & 1 == 1;
    }

    /// @notice Says that nothing about this epoch will change. Epochs are closed one after the other.
    function close(History storage history, uint32 epoch) internal {
        if (epoch & 255 != 255) return;
        Word storage word = history.words[epoch >> 8];
        Word storage next = history.words[(epoch >> 8) + 1];
        next.provenBefore = word.provenBefore + uint32(ones(word.proven));
        next.missedBefore = word.missedBefore + uint32(ones(word.missed));
    }

    /// @notice Proven epochs in [from, end). All epochs before `end`'s word must be closed.
    function provenIn(History storage history, uint32 from, uint32 end) internal view returns (uint256) {
        return provenBefore(history, end) - provenBefore(history, from);
    }

    /// @notice Missed epochs in [from, end). All epochs before `end`'s word must be closed.
    function missedIn(History storage history, uint32 from, uint32 end) internal view returns (uint256) {
        return missedBefore(history, end) - missedBefore(history, from);
    }

    function provenBefore(History storage history, uint32 epoch) private view returns (uint256) {
        Word storage word = history.words[epoch >> 8];
        return word.provenBefore + ones(word.proven & below(epoch));
    }

    function missedBefore(History storage history, uint32 epoch) private view returns (uint256) {
        Word storage word = history.words[epoch >> 8];
        return word.missedBefore + ones(word.missed & below(epoch));
    }

    /// Bits of a word below the epoch's own.
    function below(uint32 epoch) private pure returns (uint256) {
        return (1 << (epoch & 255)) - 1;
    }

    /// How many bits are set: sums of neighbours, in wider and wider lanes (Hacker's Delight, 5-1).
    function ones(uint256 x) internal pure returns (uint256) {
        unchecked {
            x -= x >> 1 & 0x5555555555555555555555555555555555555555555555555555555555555555;
            x = (x & 0x3333333333333333333333333333333333333333333333333333333333333333)
                + (x >> 2 & 0x3333333333333333333333333333333333333333333333333333333333333333);
            x = x + (x >> 4) & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f;
            // 32 lanes of 8 bits, each at most 8: their sum can be 256, one more than a lane holds, so lanes are widened first.
            x = (x & 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff)
                + (x >> 8 & 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff);
            return (x * 0x0001000100010001000100010001000100010001000100010001000100010001) >> 240;
        }
    }
}
