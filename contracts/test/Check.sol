// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {vm} from "./Vm.sol";

/// @notice What a test says must hold.
abstract contract Check {
    error Differs(string what, uint256 actual, uint256 expected);
    error DiffersBytes32(string what, bytes32 actual, bytes32 expected);
    error Fails(string what);

    function holds(bool condition, string memory what) internal pure {
        if (!condition) revert Fails(what);
    }

    function same(uint256 actual, uint256 expected, string memory what) internal pure {
        if (actual != expected) revert Differs(what, actual, expected);
    }

    function same(address actual, address expected, string memory what) internal pure {
        same(uint160(actual), uint160(expected), what);
    }

    function same(bytes32 actual, bytes32 expected, string memory what) internal pure {
        if (actual != expected) revert DiffersBytes32(what, actual, expected);
    }

    function atMost(uint256 actual, uint256 bound, string memory what) internal pure {
        if (actual > bound) revert Differs(what, actual, bound);
    }

    /// 65 bytes {r, s, v}.
    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// The same consent in EIP-2098's 64 bytes.
    function signedShort(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, uint256(s) | (uint256(v - 27) << 255));
    }

    /// The other, non-canonical signature with the same meaning: s mirrored at the curve's order.
    function signedHigh(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        return abi.encodePacked(r, order - uint256(s), v == 27 ? uint8(28) : uint8(27));
    }
}
