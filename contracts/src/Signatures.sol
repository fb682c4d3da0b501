// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Who signed a digest.
/// @notice 65 bytes {r, s, v} with low s, or the 64 bytes of EIP-2098. Whatever its encoding, a signature has one signer, and nothing
///         is ever keyed by a signature's bytes: the same consent in another encoding is the same consent.
library Signatures {
    /// @notice The signer, or the zero address for anything that is no signature.
    function signer(bytes32 digest, bytes calldata signature) internal pure returns (address) {
        address found;
        ECDSA.RecoverError problem;
        if (signature.length == 64) {
            (found, problem,) = ECDSA.tryRecover(digest, bytes32(signature[:32]), bytes32(signature[32:]));
        } else {
            (found, problem,) = ECDSA.tryRecover(digest, signature);
        }
        return problem == ECDSA.RecoverError.NoError ? found : address(0);
    }
}
