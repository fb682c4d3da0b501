// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

contract DatasetRegistryTest is Check {
    uint256 private constant OWNER_KEY = 0xB1;
    uint256 private constant PUBLISHER_KEY = 0xB2;
    bytes32 private constant DATASET = keccak256("dataset");
    bytes32 private constant ED25519 = keccak256("an Ed25519 key");

    DatasetRegistry private registry;
    address private owner = vm.addr(OWNER_KEY);
    address private publisher = vm.addr(PUBLISHER_KEY);
    address private stranger = address(0x3001);
    bytes32 private id;

    function setUp() public {
        vm.warp(1_700_000_000);
        registry = new DatasetRegistry();
        vm.prank(owner);
        id = registry.register("corpus", DATASET, ED25519, new bytes(64));
    }

    function test_a_name_belongs_to_whoever_it_is_under() public {
        same(id, keccak256(abi.encode(owner, "corpus")), "id");
        same(id, registry.idOf(owner, "corpus"), "id by the contract");
        DatasetRegistry.Entry memory entry = registry.get(id);
        same(entry.owner, owner, "owner");
        same(entry.datasetId, DATASET, "dataset");
        same(entry.ownerKey, ED25519, "key");
        same(entry.ownerKeySignature.length, 64, "signature");
        same(entry.sequence, 0, "no head yet");
        // Another account takes the same word and gets another name: nothing to squat, nothing to race for.
        vm.prank(stranger);
        bytes32 other = registry.register("corpus", DATASET, ED25519, new bytes(64));
        holds(other != id, "another id");
        same(registry.get(id).owner, owner, "untouched");
    }

    function test_a_name_is_registered_once() public {
        vm.prank(owner);
        vm.expectRevert(DatasetRegistry.Exists.selector);
        registry.register("corpus", keccak256("another"), ED25519, new bytes(64));
        // Not even after it was handed on: it would be taken from its new owner.
        hand(stranger);
        vm.prank(owner);
        vm.expectRevert(DatasetRegistry.Exists.selector);
        registry.register("corpus", keccak256("another"), ED25519, new bytes(64));
    }

    function test_names_and_key_signatures_have_bounded_lengths() public {
        vm.startPrank(owner);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.NameLength.selector, 0));
        registry.register("", DATASET, ED25519, new bytes(64));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.NameLength.selector, 257));
        registry.register(string(new bytes(257)), DATASET, ED25519, new bytes(64));
        registry.register(string(new bytes(256)), DATASET, ED25519, new bytes(64));
        for (uint256 length = 0; length < 130; length += length == 63 ? 2 : 1) {
            vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.KeySignatureLength.selector, length));
            registry.register("other", DATASET, ED25519, new bytes(length));
        }
        vm.stopPrank();
    }

    function test_a_head_replaces_exactly_the_one_that_was_seen() public {
        publish(1, 0, "a");
        DatasetRegistry.Entry memory entry = registry.get(id);
        same(entry.sequence, 1, "sequence");
        same(entry.head, "a", "head");
        same(entry.version, keccak256("a"), "version");
        vm.startPrank(owner);
        // Two writers saw the same head: the second must look again.
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Moved.selector, 1, bytes32("a")));
        registry.publish(publication(2, 0, "b"));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Moved.selector, 1, bytes32("a")));
        registry.publish(publication(1, "a", "b"));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Moved.selector, 1, bytes32("a")));
        registry.publish(publication(0, "a", "b"));
        registry.publish(publication(7, "a", "b"));
        vm.stopPrank();
        same(registry.get(id).sequence, 7, "numbers may be left out");
    }

    /// Otherwise one head of a stolen key would be the last for ever.
    function test_no_head_uses_up_all_numbers() public {
        vm.startPrank(owner);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Step.selector, (1 << 32) + 1));
        registry.publish(publication((1 << 32) + 1, 0, "a"));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Step.selector, type(uint64).max));
        registry.publish(publication(type(uint64).max, 0, "a"));
        registry.publish(publication(1 << 32, 0, "a"));
        registry.publish(publication(1 << 33, "a", "b"));
        vm.stopPrank();
    }

    /// BTFS lets anyone overwrite a file's record.
    function test_a_stranger_changes_nothing() public {
        vm.startPrank(stranger);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publish(publication(1, 0, "a"));
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.setPublisher(id, stranger, type(uint64).max);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.freeze(id);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.offer(id, stranger);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.accept(id, ED25519, new bytes(64));
        vm.stopPrank();
    }

    function test_what_is_not_registered_takes_nothing() public {
        bytes32 unknown = keccak256("nothing");
        vm.startPrank(owner);
        DatasetRegistry.Publication memory p = publication(1, 0, "a");
        p.id = unknown;
        vm.expectRevert(DatasetRegistry.Unknown.selector);
        registry.publish(p);
        vm.expectRevert(DatasetRegistry.Unknown.selector);
        registry.setPublisher(unknown, owner, 1);
        vm.expectRevert(DatasetRegistry.Unknown.selector);
        registry.freeze(unknown);
        vm.expectRevert(DatasetRegistry.Unknown.selector);
        registry.offer(unknown, stranger);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.accept(unknown, ED25519, new bytes(64));
        vm.stopPrank();
        same(registry.get(unknown).owner, address(0), "nobody's");
    }

    function test_the_digest_is_eip712_for_this_contract_on_this_chain() public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Seedbank DatasetRegistry"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        bytes32 inside = keccak256(
            abi.encode(
                keccak256("Publication(bytes32 id,uint64 sequence,bytes32 previousHead,bytes32 version,bytes32 head)"),
                id,
                uint256(3),
                bytes32("p"),
                keccak256("h"),
                bytes32("h")
            )
        );
        same(
            registry.publicationDigest(publication(3, "p", "h")),
            keccak256(abi.encodePacked(hex"1901", domain, inside)),
            "digest"
        );
    }

    function test_anyone_posts_what_the_owner_signed_and_only_once() public {
        DatasetRegistry.Publication memory p = publication(1, 0, "a");
        bytes32 digest = registry.publicationDigest(p);
        vm.startPrank(stranger);
        registry.publishSigned(p, signed(OWNER_KEY, digest));
        same(registry.get(id).head, "a", "head");
        bytes memory again = signed(OWNER_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Moved.selector, 1, bytes32("a")));
        registry.publishSigned(p, again);
        again = signedShort(OWNER_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.Moved.selector, 1, bytes32("a")));
        registry.publishSigned(p, again);
        vm.stopPrank();
    }

    function test_signatures_that_are_none_change_nothing() public {
        DatasetRegistry.Publication memory p = publication(1, 0, "a");
        bytes32 digest = registry.publicationDigest(p);
        refused(p, signedHigh(OWNER_KEY, digest));
        refused(p, signed(0xBAD, digest));
        refused(p, new bytes(65));
        refused(p, new bytes(64));
        refused(p, "");
        refused(p, bytes.concat(signed(OWNER_KEY, digest), hex"00"));
        bytes memory signature = signed(OWNER_KEY, digest);
        p.head = "b";
        refused(p, signature);
        p = publication(2, 0, "a");
        refused(p, signature);
        p = publication(1, 0, "a");
        vm.chainId(5);
        signature = signed(OWNER_KEY, registry.publicationDigest(p));
        vm.chainId(31337);
        refused(p, signature);
        signature = signed(OWNER_KEY, new DatasetRegistry().publicationDigest(p));
        refused(p, signature);
        registry.publishSigned(p, signedShort(OWNER_KEY, digest));
    }

    function test_a_publisher_publishes_until_its_time_and_does_nothing_else() public {
        uint64 until = uint64(block.timestamp + 100);
        vm.prank(owner);
        registry.setPublisher(id, publisher, until);
        vm.prank(publisher);
        registry.publish(publication(1, 0, "a"));
        DatasetRegistry.Publication memory p = publication(2, "a", "b");
        registry.publishSigned(p, signed(PUBLISHER_KEY, registry.publicationDigest(p)));
        vm.startPrank(publisher);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.setPublisher(id, stranger, until);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.freeze(id);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.offer(id, publisher);
        vm.warp(until);
        registry.publish(publication(3, "b", "c"));
        vm.warp(until + 1);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publish(publication(4, "c", "d"));
        vm.stopPrank();
        p = publication(4, "c", "d");
        refused(p, signed(PUBLISHER_KEY, registry.publicationDigest(p)));
    }

    function test_a_publisher_is_taken_back_at_once() public {
        vm.startPrank(owner);
        registry.setPublisher(id, publisher, type(uint64).max);
        registry.setPublisher(id, publisher, 0);
        vm.stopPrank();
        vm.prank(publisher);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publish(publication(1, 0, "a"));
    }

    /// A publisher of one name is nobody for another of the same owner.
    function test_a_publisher_is_one_names_publisher() public {
        vm.startPrank(owner);
        registry.setPublisher(id, publisher, type(uint64).max);
        bytes32 second = registry.register("second", DATASET, ED25519, new bytes(64));
        vm.stopPrank();
        DatasetRegistry.Publication memory p = publication(1, 0, "a");
        p.id = second;
        vm.prank(publisher);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publish(p);
    }

    function test_a_transfer_takes_both() public {
        vm.prank(owner);
        registry.offer(id, stranger);
        same(registry.get(id).owner, owner, "still the owner's");
        publish(1, 0, "a");
        vm.prank(publisher);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.accept(id, ED25519, new bytes(64));
        vm.prank(stranger);
        registry.accept(id, keccak256("its own key"), abi.encode(1, 2));
        DatasetRegistry.Entry memory entry = registry.get(id);
        same(entry.owner, stranger, "owner");
        same(entry.pendingOwner, address(0), "nothing pending");
        same(entry.ownerKey, keccak256("its own key"), "the key goes with the owner");
        same(keccak256(entry.ownerKeySignature), keccak256(abi.encode(1, 2)), "and its signature");
        same(entry.head, "a", "the head stays");
        // Once.
        vm.prank(stranger);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.accept(id, ED25519, new bytes(64));
    }

    function test_an_offer_is_taken_back() public {
        vm.startPrank(owner);
        registry.offer(id, stranger);
        registry.offer(id, address(0));
        vm.stopPrank();
        vm.prank(stranger);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.accept(id, ED25519, new bytes(64));
    }

    /// What was signed, or allowed, before the name changed hands counts for nothing after.
    function test_the_former_owner_and_its_publishers_are_strangers() public {
        vm.prank(owner);
        registry.setPublisher(id, publisher, type(uint64).max);
        DatasetRegistry.Publication memory p = publication(1, 0, "a");
        bytes32 digest = registry.publicationDigest(p);
        hand(stranger);
        refused(p, signed(OWNER_KEY, digest));
        refused(p, signed(PUBLISHER_KEY, digest));
        vm.prank(owner);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publish(p);
        vm.prank(publisher);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publish(p);
        vm.prank(owner);
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.freeze(id);
    }

    function test_an_owner_changes_its_key_by_offering_to_itself() public {
        publish(1, 0, "a");
        vm.startPrank(owner);
        registry.offer(id, owner);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.KeySignatureLength.selector, 63));
        registry.accept(id, keccak256("new"), new bytes(63));
        registry.accept(id, keccak256("new"), new bytes(64));
        vm.stopPrank();
        same(registry.get(id).ownerKey, keccak256("new"), "key");
        same(registry.get(id).owner, owner, "owner");
    }

    function test_a_frozen_dataset_takes_no_head_from_anyone() public {
        publish(1, 0, "a");
        vm.startPrank(owner);
        registry.setPublisher(id, publisher, type(uint64).max);
        registry.freeze(id);
        vm.expectRevert(DatasetRegistry.IsFrozen.selector);
        registry.publish(publication(2, "a", "b"));
        vm.stopPrank();
        vm.prank(publisher);
        vm.expectRevert(DatasetRegistry.IsFrozen.selector);
        registry.publish(publication(2, "a", "b"));
        DatasetRegistry.Publication memory p = publication(2, "a", "b");
        bytes memory signature = signed(OWNER_KEY, registry.publicationDigest(p));
        vm.expectRevert(DatasetRegistry.IsFrozen.selector);
        registry.publishSigned(p, signature);
        // Nor from a new owner.
        hand(stranger);
        vm.prank(stranger);
        vm.expectRevert(DatasetRegistry.IsFrozen.selector);
        registry.publish(publication(2, "a", "b"));
        holds(registry.get(id).frozen, "still frozen");
    }

    function hand(address to) private {
        vm.prank(owner);
        registry.offer(id, to);
        vm.prank(to);
        registry.accept(id, ED25519, new bytes(64));
    }

    function refused(DatasetRegistry.Publication memory p, bytes memory signature) private {
        vm.expectRevert(DatasetRegistry.NotYours.selector);
        registry.publishSigned(p, signature);
    }

    function publish(uint64 sequence, bytes32 previous, bytes32 head) private {
        vm.prank(owner);
        registry.publish(publication(sequence, previous, head));
    }

    function publication(uint64 sequence, bytes32 previous, bytes32 head)
        private
        view
        returns (DatasetRegistry.Publication memory)
    {
        return DatasetRegistry.Publication(id, sequence, previous, keccak256(bytes.concat(bytes1(head))), head);
    }
}
