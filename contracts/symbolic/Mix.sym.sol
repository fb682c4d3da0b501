// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Kernel} from "./Kernel.sol";

/// @notice The verifier's function G, on four columns at once, is the paper's function G on each of them, for every input. `run.sh` takes the
///         kernel's text out of `src/Blake3Paths.sol`: what is proven is what is deployed.
contract MixSymbolic {
    uint256 private constant WORDS = 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;

    function check_first_lane(uint256[6] calldata rows) public pure {
        lane(rows, 0);
    }

    function check_second_lane(uint256[6] calldata rows) public pure {
        lane(rows, 64);
    }

    function check_third_lane(uint256[6] calldata rows) public pure {
        lane(rows, 128);
    }

    function check_fourth_lane(uint256[6] calldata rows) public pure {
        lane(rows, 192);
    }

    function lane(uint256[6] calldata rows, uint256 at) private pure {
        (uint256 a, uint256 b, uint256 c, uint256 d) = Kernel.g(
            rows[0] & WORDS, rows[1] & WORDS, rows[2] & WORDS, rows[3] & WORDS, rows[4] & WORDS, rows[5] & WORDS
        );
        assert((a | b | c | d) & ~WORDS == 0);
        unchecked {
            uint32 p = uint32(rows[0] >> at);
            uint32 q = uint32(rows[1] >> at);
            uint32 r = uint32(rows[2] >> at);
            uint32 s = uint32(rows[3] >> at);
            p = p + q + uint32(rows[4] >> at);
            s = rotated(s ^ p, 16);
            r = r + s;
            q = rotated(q ^ r, 12);
            p = p + q + uint32(rows[5] >> at);
            s = rotated(s ^ p, 8);
            r = r + s;
            q = rotated(q ^ r, 7);
            assert(uint32(a >> at) == p);
            assert(uint32(b >> at) == q);
            assert(uint32(c >> at) == r);
            assert(uint32(d >> at) == s);
        }
    }

    function rotated(uint32 x, uint32 by) private pure returns (uint32) {
        return (x >> by) | (x << (32 - by));
    }
}
