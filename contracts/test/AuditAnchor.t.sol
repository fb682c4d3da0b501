// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AuditAnchor} from "../src/AuditAnchor.sol";
import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

contract AuditAnchorTest is Check {
    AuditAnchor private anchor;

    function setUp() public {
        vm.warp(1_700_000_000);
        anchor = new AuditAnchor();
    }

    function test_a_log_keeps_its_newest_head() public {
        vm.expectEmit(address(anchor));
        emit AuditAnchor.Anchored(address(this), "log", 3, "root");
        anchor.anchor("log", 3, "root");
        (uint64 size, uint64 time, bytes32 root) = anchor.heads(address(this), "log");
        same(size, 3, "size");
        same(time, 1_700_000_000, "time");
        same(root, "root", "root");
    }

    function test_a_log_grows_or_stays(uint64 first, uint64 second) public {
        if (first == 0) vm.expectRevert(abi.encodeWithSelector(AuditAnchor.NotLonger.selector, 0, 0));
        anchor.anchor("log", first, "a");
        if (second <= first) vm.expectRevert(abi.encodeWithSelector(AuditAnchor.NotLonger.selector, second, first));
        anchor.anchor("log", second, "b");
        (uint64 size,, bytes32 root) = anchor.heads(address(this), "log");
        same(size, second > first ? second : first, "size");
        if (size != 0) same(root, second > first ? bytes32("b") : bytes32("a"), "root");
    }

    function test_writers_and_logs_are_apart() public {
        anchor.anchor("log", 10, "a");
        anchor.anchor("other", 1, "b");
        vm.prank(address(0x3001));
        anchor.anchor("log", 1, "c");
        (,, bytes32 root) = anchor.heads(address(this), "log");
        same(root, "a", "untouched");
    }
}
