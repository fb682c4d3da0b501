// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title The contracts of one deployment.
/// @notice One address from which a client finds all others, with the hash of the code it should find there. The list never changes: a
///         new version is a new directory beside the old one, and what runs on the old one runs out.
contract Directory {
    /// @notice One contract of the deployment.
    struct Entry {
        string name;
        address at;
        bytes32 codehash;
    }

    event Deprecated(address by, string successor);

    /// Only the account named at deployment may mark a directory as deprecated.
    error NotYours();
    /// An address without code was listed.
    error NoCode(string name);
    /// A directory lists one address for each name, and at least one.
    error Lengths(uint256 names, uint256 contracts);

    /// @notice Who may say that there is a successor, and nothing else.
    address public immutable herald;
    /// @notice Where people may find a newer deployment; empty while there is none. It is advice: nothing that is open depends on it, and
    ///         no client should follow it by itself, for it is worth no more than the herald's key.
    string public successor;
    Entry[] private entries;

    constructor(address herald_, string[] memory names, address[] memory contracts) {
        if (names.length == 0 || names.length != contracts.length) revert Lengths(names.length, contracts.length);
        herald = herald_;
        for (uint256 at = 0; at < names.length; ++at) {
            if (contracts[at].code.length == 0) revert NoCode(names[at]);
            entries.push(Entry(names[at], contracts[at], contracts[at].codehash));
        }
    }

    /// @notice All contracts of the deployment.
    function list() external view returns (Entry[] memory) {
        return entries;
    }

    /// @notice Names a successor. It stops nothing.
    function deprecate(string calldata successor_) external {
        if (msg.sender != herald) revert NotYours();
        successor = successor_;
        emit Deprecated(msg.sender, successor_);
    }
}
