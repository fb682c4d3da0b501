// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Directory} from "../src/Directory.sol";
import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

contract DirectoryTest is Check {
    address private herald = address(0x7001);

    function test_each_contract_is_listed_with_the_hash_of_its_code() public {
        Directory directory = new Directory(herald, names("market", "registry"), contracts(address(this), address(vm)));
        Directory.Entry[] memory list = directory.list();
        same(list.length, 2, "entries");
        same(keccak256(bytes(list[0].name)), keccak256("market"), "name");
        same(list[0].at, address(this), "address");
        same(list[0].codehash, keccak256(address(this).code), "hash of its code");
        same(list[1].at, address(vm), "second");
    }

    function test_an_address_without_code_is_not_listed() public {
        vm.expectRevert(abi.encodeWithSelector(Directory.NoCode.selector, "registry"));
        new Directory(herald, names("market", "registry"), contracts(address(this), address(0x7002)));
    }

    function test_each_name_has_one_address() public {
        address[] memory one = new address[](1);
        one[0] = address(this);
        vm.expectRevert(abi.encodeWithSelector(Directory.Lengths.selector, 2, 1));
        new Directory(herald, names("market", "registry"), one);
        vm.expectRevert(abi.encodeWithSelector(Directory.Lengths.selector, 0, 1));
        new Directory(herald, new string[](0), one);
        vm.expectRevert(abi.encodeWithSelector(Directory.Lengths.selector, 0, 0));
        new Directory(herald, new string[](0), new address[](0));
    }

    function test_only_the_herald_names_a_successor_and_nothing_else_changes() public {
        Directory directory = new Directory(herald, names("market", "registry"), contracts(address(this), address(vm)));
        bytes32 before = keccak256(abi.encode(directory.list()));
        vm.expectRevert(Directory.NotYours.selector);
        directory.deprecate("elsewhere");
        vm.prank(herald);
        directory.deprecate("0x0123");
        same(keccak256(bytes(directory.successor())), keccak256("0x0123"), "successor");
        same(keccak256(abi.encode(directory.list())), before, "the list");
    }

    function names(string memory first, string memory second) private pure returns (string[] memory list) {
        list = new string[](2);
        list[0] = first;
        list[1] = second;
    }

    function contracts(address first, address second) private pure returns (address[] memory list) {
        list = new address[](2);
        list[0] = first;
        list[1] = second;
    }
}
