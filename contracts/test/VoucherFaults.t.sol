// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {RetrievalChannels} from "../src/RetrievalChannels.sol";
import {TestToken} from "../src/TestToken.sol";
import {Check} from "./Check.sol";
import {vm, Vm} from "./Vm.sol";

/// @notice What went wrong with the cheques of an earlier network (BTFS), one test each: here it does not.
contract VoucherFaultsTest is Check {
    uint256 private constant KEY = 0xA1;
    TestToken private token = new TestToken();
    RetrievalChannels private channels = new RetrievalChannels(IERC20(address(token)), 3 days);
    address private payer = address(0x1001);
    address private payee = address(0x2001);
    address private signer = vm.addr(KEY);

    function setUp() public {
        vm.warp(1_700_000_000);
        token.mint(payer, 1_000_000);
        vm.prank(payer);
        token.approve(address(channels), 1_000_000);
    }

    /// There: a bounced cheque reverted, so that neither the bounce nor the part that was covered was recorded.
    function test_a_voucher_beyond_its_cover_pays_its_part_and_leaves_a_record() public {
        open(600);
        vm.recordLogs();
        same(redeem(voucher(1000), KEY), 600, "the part that is covered");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        same(logs[0].topics[0], RetrievalChannels.Shortfall.selector, "the bounce");
        same(abi.decode(logs[0].data, (uint256)), 400, "how much is missing");
        same(logs[1].topics[0], RetrievalChannels.Redeemed.selector, "the part");
        (, uint128 redeemed) = channels.lanes(payer, payee, signer);
        same(redeemed, 600, "kept in the state");
    }

    /// There: the issuer withdrew everything after issuing cheques.
    function test_money_behind_vouchers_stays_until_they_had_their_time() public {
        open(1000);
        vm.startPrank(payer);
        vm.expectRevert();
        channels.exit(payee, new address[](0), payer);
        channels.requestExit(payee, 1000);
        vm.warp(block.timestamp + 3 days - 1);
        vm.expectRevert();
        channels.exit(payee, new address[](0), payer);
        vm.stopPrank();
        same(redeem(voucher(1000), KEY), 1000, "whole");
    }

    /// There: the same money backed cheques to everyone, and only the issuer's own client counted.
    function test_one_deposit_backs_one_payee() public {
        open(1000);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 0, 1));
        channels.setLane(address(0x2002), signer, 1);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 1000, 1001));
        channels.setLane(payee, vm.addr(2), 1);
        vm.stopPrank();
    }

    /// There: the debtor could replace the code that holds the money. Here the code can't hand control to any other code: looked up in the
    /// bytecode, instruction by instruction.
    function test_no_code_can_be_put_in_place_of_the_contracts() public view {
        bytes memory code = address(channels).code;
        uint256 looked = 0;
        for (uint256 at = 0; at < code.length; ++at) {
            uint8 operation = uint8(code[at]);
            if (operation >= 0x60 && operation <= 0x7f) at += operation - 0x5f;
            holds(operation != 0xf4 && operation != 0xf2, "no delegate call");
            holds(operation != 0xff, "no self destruction");
            holds(operation != 0xf0 && operation != 0xf5, "no creation");
            ++looked;
        }
        holds(looked > 1000, "looked at all of it");
    }

    /// There: whoever came first took the vault of another's peer id. Here nobody can be first at another's channel: whatever a stranger does
    /// for that pair is a gift.
    function test_nobody_takes_anothers_place() public {
        address stranger = address(0x3001);
        token.mint(stranger, 100);
        vm.startPrank(stranger);
        token.approve(address(channels), 100);
        channels.deposit(payer, payee, 100);
        vm.expectRevert();
        channels.setLane(payee, signer, 100);
        vm.stopPrank();
        open(1000);
        (uint128 deposit,,,) = channels.channels(payer, payee);
        same(deposit, 1100, "the payer's, gift and all");
    }

    /// There: a cheque in another token than agreed was taken, and could not be cashed. Here the token is the contract's, the contract is under
    /// the signature, and so a voucher of another token's channels is no voucher.
    function test_a_voucher_is_of_one_token() public {
        open(1000);
        TestToken worthless = new TestToken();
        RetrievalChannels others = new RetrievalChannels(IERC20(address(worthless)), 3 days);
        RetrievalChannels.Voucher memory v = voucher(500);
        (uint8 v_, bytes32 r, bytes32 s) = vm.sign(KEY, others.voucherDigest(v));
        same(redeemWith(v, abi.encodePacked(r, s, v_)), 0, "nothing");
    }

    /// There: the domain had no contract in it, so that a cheque's meaning hung on one field.
    function test_chain_and_contract_are_under_the_signature() public {
        bytes32 here = channels.voucherDigest(voucher(1));
        RetrievalChannels twin = new RetrievalChannels(IERC20(address(token)), 3 days);
        holds(twin.voucherDigest(voucher(1)) != here, "another contract");
        vm.chainId(199);
        holds(channels.voucherDigest(voucher(1)) != here, "another chain");
    }

    /// There: losing one local database lost the income, and a node showed what was cashed as not cashed. Here the chain alone tells what was
    /// paid, and the last voucher alone is enough to have the rest.
    function test_the_last_voucher_is_enough() public {
        open(1000);
        redeem(voucher(100), KEY);
        // Everything between was lost.
        same(redeem(voucher(900), KEY), 800, "all that is due");
        (, uint128 redeemed) = channels.lanes(payer, payee, signer);
        same(redeemed, 900, "told by the chain");
        same(channels.earned(payee), 900, "and what waits there");
    }

    /// There: a cheque of one unit renewed any contract, for nobody compared it with a price. Here a voucher does nothing but pay what it says.
    function test_a_voucher_moves_its_amount_and_nothing_else() public {
        open(1000);
        vm.recordLogs();
        same(redeem(voucher(1), KEY), 1, "one unit");
        same(vm.getRecordedLogs().length, 1, "one event");
    }

    /// There: one transaction for each payer. Here those of all payers are cashed in one.
    function test_vouchers_of_all_payers_are_cashed_together() public {
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](20);
        bytes[] memory signatures = new bytes[](20);
        for (uint160 at = 0; at < 20; ++at) {
            address someone = address(0x9000 + at);
            token.mint(someone, 100);
            vm.startPrank(someone);
            token.approve(address(channels), 100);
            channels.deposit(someone, payee, 100);
            channels.setLane(payee, signer, 100);
            vm.stopPrank();
            batch[at] = RetrievalChannels.Voucher(someone, payee, signer, 50);
            signatures[at] = signed(KEY, channels.voucherDigest(batch[at]));
        }
        channels.redeem(batch, signatures);
        same(channels.earned(payee), 1000, "of twenty");
    }

    function open(uint128 amount) private {
        vm.startPrank(payer);
        channels.deposit(payer, payee, amount);
        channels.setLane(payee, signer, amount);
        vm.stopPrank();
    }

    function voucher(uint128 cumulative) private view returns (RetrievalChannels.Voucher memory) {
        return RetrievalChannels.Voucher(payer, payee, signer, cumulative);
    }

    function redeem(RetrievalChannels.Voucher memory v, uint256 key) private returns (uint256) {
        return redeemWith(v, signed(key, channels.voucherDigest(v)));
    }

    function redeemWith(RetrievalChannels.Voucher memory v, bytes memory signature) private returns (uint256) {
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](1);
        bytes[] memory signatures = new bytes[](1);
        batch[0] = v;
        signatures[0] = signature;
        uint256 before = channels.earned(payee);
        channels.redeem(batch, signatures);
        return channels.earned(payee) - before;
    }
}
