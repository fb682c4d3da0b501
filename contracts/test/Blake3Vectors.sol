// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

/// @notice The vectors that the Rust `blake3` crate made. The fragment's byte i is i mod 251, as in BLAKE3's own vectors.
abstract contract Blake3Vectors is Check {
    /// In the order in which forge hands over an object's fields: by name.
    struct Vector {
        uint256 index;
        uint256 length;
        bytes32 root;
        bytes32[] siblings;
    }

    function vectors() internal view returns (Vector[] memory) {
        string memory text = vm.readFile("test/vectors/blake3-paths.json");
        return abi.decode(vm.parseJson(text, ".vectors"), (Vector[]));
    }

    function chunkOf(uint256 index, uint256 length) internal pure returns (bytes memory data) {
        uint256 from = index * 1024;
        data = new bytes(length - from < 1024 ? length - from : 1024);
        for (uint256 i = 0; i < data.length; ++i) {
            data[i] = bytes1(uint8((from + i) % 251));
        }
    }
}
