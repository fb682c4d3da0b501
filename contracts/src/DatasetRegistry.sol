// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Signatures} from "./Signatures.sol";

/// @title Names under their owner's key, and each name's newest signed version head.
/// @notice A name is keccak256(owner, name): nobody can take another's, so there is nothing to race for. A new head replaces exactly the one
///         that its writer saw, or nothing.
contract DatasetRegistry is EIP712 {
    /// @notice A dataset's newest state.
    struct Entry {
        address owner;
        /// Who the owner offered the name to.
        address pendingOwner;
        /// Rises with each head; also the least sequence that a reader should accept from a provider.
        uint64 sequence;
        /// No further heads, ever.
        bool frozen;
        /// The dataset's id on the network, fixed when the name is registered.
        bytes32 datasetId;
        /// BLAKE3 id of the newest version.
        bytes32 version;
        /// BLAKE3 hash of the signed head.
        bytes32 head;
        /// The owner's Ed25519 key and its signature over {chain id, this contract, owner}. The chain can't check it; readers do, in
        /// both directions, so a key that somebody else put here counts for nothing.
        bytes32 ownerKey;
        bytes ownerKeySignature;
    }

    /// @notice A new head, as it is signed for somebody else to post.
    struct Publication {
        bytes32 id;
        uint64 sequence;
        bytes32 previousHead;
        bytes32 version;
        bytes32 head;
    }

    event Registered(bytes32 indexed id, address indexed owner, string name, bytes32 datasetId, bytes32 ownerKey);
    event Published(bytes32 indexed id, uint64 sequence, bytes32 version, bytes32 head);
    event PublisherSet(bytes32 indexed id, address indexed publisher, uint64 until);
    event TransferOffered(bytes32 indexed id, address indexed to);
    event Transferred(bytes32 indexed id, address indexed from, address indexed to, bytes32 ownerKey);
    event Frozen(bytes32 indexed id, bytes32 version);

    /// Neither the owner nor an authorised publisher.
    error NotYours();
    /// The name is in use by this owner.
    error Exists();
    /// Nothing is registered under this id.
    error Unknown();
    /// Somebody published since: read {sequence, head}, and decide again.
    error Moved(uint64 sequence, bytes32 head);
    /// A head's sequence is at most STEP_MAX above the one before.
    error Step(uint64 sequence);
    /// This dataset takes no further heads.
    error IsFrozen();
    /// A name has 1 to NAME_BYTES_MAX bytes.
    error NameLength(uint256 length);
    /// An Ed25519 signature has 64 bytes.
    error KeySignatureLength(uint256 length);

    uint256 private constant NAME_BYTES_MAX = 256;
    /// A publisher's stolen key could else use up all numbers with one head, and the name with them.
    uint64 private constant STEP_MAX = 1 << 32;
    bytes32 private constant PUBLICATION =
        keccak256("Publication(bytes32 id,uint64 sequence,bytes32 previousHead,bytes32 version,bytes32 head)");

    mapping(bytes32 id => Entry) private entries;
    /// @notice Until when a key may publish (unix seconds).
    mapping(bytes32 id => mapping(address owner => mapping(address publisher => uint64))) public publishers;

    constructor() EIP712("Seedbank DatasetRegistry", "1") {}

    /// @notice The id of a name under its owner's key.
    function idOf(address owner, string calldata name) public pure returns (bytes32) {
        return keccak256(abi.encode(owner, name));
    }

    /// @notice Registers a name of the caller.
    function register(string calldata name, bytes32 datasetId, bytes32 ownerKey, bytes calldata ownerKeySignature)
        external
        returns (bytes32 id)
    {
        if (bytes(name).length == 0 || bytes(name).length > NAME_BYTES_MAX) revert NameLength(bytes(name).length);
        id = idOf(msg.sender, name);
        Entry storage entry = entries[id];
        if (entry.owner != address(0)) revert Exists();
        entry.datasetId = datasetId;
        own(entry, ownerKey, ownerKeySignature);
        emit Registered(id, msg.sender, name, datasetId, ownerKey);
    }

    /// @notice Replaces the head that the caller saw by a newer one.
    function publish(Publication calldata publication) external {
        change(publication, msg.sender);
    }

    /// @notice The same, signed by the owner or a publisher and posted by anyone.
    function publishSigned(Publication calldata publication, bytes calldata signature) external {
        change(publication, Signatures.signer(publicationDigest(publication), signature));
    }

    /// @notice Lets `publisher` publish until `until` (unix seconds); a time that has passed takes it back.
    function setPublisher(bytes32 id, address publisher, uint64 until) external {
        owned(id);
        publishers[id][msg.sender][publisher] = until;
        emit PublisherSet(id, publisher, until);
    }

    /// @notice Ends a dataset's changes for good.
    function freeze(bytes32 id) external {
        Entry storage entry = owned(id);
        entry.frozen = true;
        emit Frozen(id, entry.version);
    }

    /// @notice Offers a dataset to another account; it stays the owner's until that account accepts.
    function offer(bytes32 id, address to) external {
        owned(id).pendingOwner = to;
        emit TransferOffered(id, to);
    }

    /// @notice Accepts an offer, with the new owner's own key and its binding. Publishers of the owner before can no longer publish. An
    ///         owner that offers to itself and accepts changes its key.
    function accept(bytes32 id, bytes32 ownerKey, bytes calldata ownerKeySignature) external {
        Entry storage entry = entries[id];
        if (entry.pendingOwner != msg.sender) revert NotYours();
        emit Transferred(id, entry.owner, msg.sender, ownerKey);
        entry.pendingOwner = address(0);
        own(entry, ownerKey, ownerKeySignature);
    }

    /// @notice What is registered under an id; `owner` is zero if nothing is.
    function get(bytes32 id) external view returns (Entry memory) {
        return entries[id];
    }

    /// @notice What is signed to publish.
    function publicationDigest(Publication calldata p) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(PUBLICATION, p.id, p.sequence, p.previousHead, p.version, p.head)));
    }

    function change(Publication calldata p, address by) private {
        Entry storage entry = entries[p.id];
        if (entry.owner == address(0)) revert Unknown();
        if (by == address(0) || (by != entry.owner && publishers[p.id][entry.owner][by] < block.timestamp)) {
            revert NotYours();
        }
        if (entry.frozen) revert IsFrozen();
        if (p.sequence <= entry.sequence || p.previousHead != entry.head) revert Moved(entry.sequence, entry.head);
        if (p.sequence - entry.sequence > STEP_MAX) revert Step(p.sequence);
        entry.sequence = p.sequence;
        entry.version = p.version;
        entry.head = p.head;
        emit Published(p.id, p.sequence, p.version, p.head);
    }

    function own(Entry storage entry, bytes32 ownerKey, bytes calldata ownerKeySignature) private {
        if (ownerKeySignature.length != 64) revert KeySignatureLength(ownerKeySignature.length);
        entry.owner = msg.sender;
        entry.ownerKey = ownerKey;
        entry.ownerKeySignature = ownerKeySignature;
    }

    function owned(bytes32 id) private view returns (Entry storage entry) {
        entry = entries[id];
        if (entry.owner == address(0)) revert Unknown();
        if (entry.owner != msg.sender) revert NotYours();
    }
}
