// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Heads of append-only logs, so that no one can shorten or rewrite a log unnoticed.
/// @notice A log belongs to the account that made it; its size only grows.
contract AuditAnchor {
    /// @notice The newest head of a log.
    struct Head {
        uint64 size;
        uint64 time;
        bytes32 root;
    }

    event Anchored(address indexed writer, bytes32 indexed log, uint64 size, bytes32 root);

    /// A log's head must have more entries than the one before.
    error NotLonger(uint64 size, uint64 anchored);

    mapping(address writer => mapping(bytes32 log => Head)) public heads;

    /// @notice Records that the caller's log has `size` entries and this root.
    function anchor(bytes32 log, uint64 size, bytes32 root) external {
        Head storage head = heads[msg.sender][log];
        if (size <= head.size) revert NotLonger(size, head.size);
        heads[msg.sender][log] = Head(size, uint64(block.timestamp), root);
        emit Anchored(msg.sender, log, size, root);
    }
}
