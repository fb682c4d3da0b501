// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AuditAnchor} from "../src/AuditAnchor.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

/// @notice Owners, publishers and strangers at one name and one log, with books of their own.
contract RegistryUsers is Check {
    uint256 public constant ACTORS = 4;

    DatasetRegistry public immutable registry;
    AuditAnchor public immutable anchor;
    bytes32 public immutable id;

    address public owner;
    address public offered;
    bool public frozen;
    uint64 public sequence;
    bytes32 public head;
    uint64 public logSize;
    mapping(address owner => mapping(address publisher => uint64)) private until;
    DatasetRegistry.Publication[] private published;
    bytes[] private signatures;
    string public complaint;

    constructor() {
        vm.warp(1_700_000_000);
        registry = new DatasetRegistry();
        anchor = new AuditAnchor();
        owner = actor(0);
        vm.prank(owner);
        id = registry.register("corpus", 0, 0, new bytes(64));
    }

    function key(uint256 at) public pure returns (uint256) {
        return 0xD0 + at % ACTORS;
    }

    function actor(uint256 at) public pure returns (address) {
        return vm.addr(key(at));
    }

    function doPublish(uint256 who, uint256 kind, uint64 step, bool relayed) external {
        bytes32 previous = kind % 8 == 0 ? keccak256("not the head") : head;
        uint64 number = kind % 8 == 1 ? sequence : sequence + 1 + (kind % 8 == 2 ? step : step % 4);
        DatasetRegistry.Publication memory p =
            DatasetRegistry.Publication(id, number, previous, keccak256("v"), keccak256(abi.encode(kind, step)));
        bytes memory signature = signed(key(who), registry.publicationDigest(p));
        published.push(p);
        signatures.push(signature);
        bool may = (actor(who) == owner || until[owner][actor(who)] >= block.timestamp) && !frozen;
        bool done = relayed ? post(p, signature) : direct(actor(who), p);
        if (done && !may) complaint = "published without the right to";
        if (done && previous != head) complaint = "replaced a head that was not seen";
        if (done && number <= sequence) complaint = "a number that does not rise";
        if (!done && may && previous == head && number > sequence && number - sequence <= 1 << 32) {
            complaint = "refused what it should take";
        }
        if (done) (sequence, head) = (number, p.head);
    }

    /// An old signature posted again.
    function doReplay(uint256 which) external {
        if (published.length == 0) return;
        which %= published.length;
        uint64 before = sequence;
        if (post(published[which], signatures[which])) {
            // Only one that was refused before and fits now may be taken.
            if (published[which].sequence <= before) complaint = "an old head came back";
            if (published[which].previousHead != head) complaint = "replaced a head that was not seen";
            (sequence, head) = (published[which].sequence, published[which].head);
        }
    }

    function doSetPublisher(uint256 who, uint256 whom, uint64 time) external {
        time = uint64(block.timestamp) - 50 + time % 300;
        vm.prank(actor(who));
        registry.setPublisher(id, actor(whom), time);
        if (actor(who) != owner) complaint = "a stranger set a publisher";
        until[owner][actor(whom)] = time;
    }

    function doOffer(uint256 who, uint256 whom) external {
        vm.prank(actor(who));
        registry.offer(id, actor(whom));
        if (actor(who) != owner) complaint = "a stranger offered the name";
        offered = actor(whom);
    }

    function doAccept(uint256 who) external {
        vm.prank(actor(who));
        registry.accept(id, bytes32(who), new bytes(64));
        if (actor(who) != offered) complaint = "taken without an offer";
        (owner, offered) = (actor(who), address(0));
    }

    /// Seldom, for nothing happens after it.
    function doFreeze(uint256 who, uint256 seldom) external {
        if (seldom % 16 != 0) return;
        vm.prank(actor(who));
        registry.freeze(id);
        if (actor(who) != owner) complaint = "a stranger froze the name";
        frozen = true;
    }

    function doAnchor(uint256 who, uint64 size) external {
        size = size % 2 == 0 ? size % 100 : logSize + size % 5;
        vm.prank(actor(who));
        anchor.anchor("log", size, bytes32(who));
        if (who % ACTORS == 0) {
            if (size <= logSize) complaint = "a log got shorter";
            logSize = size;
        }
    }

    function doWait(uint256 time) external {
        vm.warp(block.timestamp + time % 200);
    }

    function direct(address who, DatasetRegistry.Publication memory p) private returns (bool) {
        vm.prank(who);
        try registry.publish(p) {
            return true;
        } catch {
            return false;
        }
    }

    function post(DatasetRegistry.Publication memory p, bytes memory signature) private returns (bool) {
        try registry.publishSigned(p, signature) {
            return true;
        } catch {
            return false;
        }
    }
}

contract DatasetRegistryInvariants is Check {
    RegistryUsers private users;

    function setUp() public {
        users = new RegistryUsers();
    }

    function targetContracts() public view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(users);
    }

    /// All in one, so that one search looks for the failure of any.
    function invariant_registry_and_log_are_what_their_owners_made_them() public view {
        holds(bytes(users.complaint()).length == 0, users.complaint());
        DatasetRegistry.Entry memory entry = users.registry().get(users.id());
        same(entry.owner, users.owner(), "owner");
        same(entry.pendingOwner, users.offered(), "offer");
        same(entry.sequence, users.sequence(), "sequence");
        same(entry.head, users.head(), "head");
        holds(entry.frozen == users.frozen(), "frozen");
        // A log is its writer's alone, whoever else uses its name.
        (uint64 size,,) = users.anchor().heads(users.actor(0), "log");
        same(size, users.logSize(), "a log only grows");
    }
}
