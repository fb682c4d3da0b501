// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {RetrievalChannels} from "../src/RetrievalChannels.sol";
import {TestToken} from "../src/TestToken.sol";
import {Check} from "./Check.sol";
import {CallingToken, FalseToken, FeeToken, SilentToken, StoppingToken} from "./Tokens.sol";
import {vm, Vm} from "./Vm.sol";

contract RetrievalChannelsTest is Check {
    uint64 private constant EXIT = 3 days;
    uint256 private constant KEY = 0xA1;
    uint256 private constant OTHER_KEY = 0xA2;

    TestToken private token;
    RetrievalChannels private channels;
    address private payer = address(0x1001);
    address private payee = address(0x2001);
    address private stranger = address(0x3001);
    address private signer = vm.addr(KEY);
    address private otherSigner = vm.addr(OTHER_KEY);

    function setUp() public {
        vm.warp(1_700_000_000);
        token = new TestToken();
        channels = new RetrievalChannels(IERC20(address(token)), EXIT);
        fund(payer, 1_000_000);
        fund(stranger, 1_000_000);
    }

    // Vouchers.

    /// What is signed is EIP-712 as the standard writes it, worked out here from the words.
    function test_the_digest_is_eip712_for_this_contract_on_this_chain() public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Seedbank RetrievalChannels"),
                keccak256("1"),
                block.chainid,
                address(channels)
            )
        );
        bytes32 inside = keccak256(
            abi.encode(
                keccak256("Voucher(address payer,address payee,address signer,uint128 cumulative)"),
                payer,
                payee,
                signer,
                uint256(77)
            )
        );
        bytes32 expected = keccak256(abi.encodePacked(hex"1901", domain, inside));
        same(channels.voucherDigest(voucher(77)), expected, "digest");
    }

    function test_a_voucher_moves_what_it_says_from_deposit_to_payee() public {
        open(1000, 600);
        same(redeem(voucher(250)), 250, "paid");
        (uint128 deposit, uint128 promised,,) = channels.channels(payer, payee);
        same(deposit, 750, "deposit");
        same(promised, 350, "promised");
        vm.prank(payee);
        channels.withdraw(payee);
        same(token.balanceOf(payee), 250, "in the wallet");
        same(channels.totalEarned(), 0, "nothing waits");
    }

    function test_the_same_voucher_pays_once() public {
        open(1000, 600);
        same(redeem(voucher(250)), 250, "first");
        expectSkip(voucher(250), signed(KEY, channels.voucherDigest(voucher(250))), RetrievalChannels.Skip.Stale);
    }

    function test_a_lower_voucher_pays_nothing() public {
        open(1000, 600);
        redeem(voucher(250));
        for (uint128 lower = 0; lower < 250; lower += 83) {
            expectSkip(
                voucher(lower), signed(KEY, channels.voucherDigest(voucher(lower))), RetrievalChannels.Skip.Stale
            );
        }
    }

    function test_vouchers_in_any_order_pay_the_highest(uint128[8] memory amounts) public {
        open(100_000, 100_000);
        uint256 highest = 0;
        uint256 paid = 0;
        for (uint256 at = 0; at < amounts.length; ++at) {
            amounts[at] %= 120_000;
            paid += redeem(voucher(amounts[at]));
            if (amounts[at] > highest) highest = amounts[at];
        }
        same(paid, highest < 100_000 ? highest : 100_000, "paid in all");
    }

    function test_another_key_of_anybody_pays_nothing(uint256 key) public {
        key = 1 + key % (type(uint128).max - 1);
        vm.assume(key != KEY);
        open(1000, 600);
        expectSkip(voucher(250), signed(key, channels.voucherDigest(voucher(250))), RetrievalChannels.Skip.Signature);
    }

    /// Each field is under the signature.
    function test_a_changed_field_pays_nothing() public {
        open(1000, 600);
        vm.prank(payer);
        token.approve(address(channels), type(uint256).max);
        bytes memory signature = signed(KEY, channels.voucherDigest(voucher(250)));
        RetrievalChannels.Voucher memory changed = voucher(251);
        expectSkip(changed, signature, RetrievalChannels.Skip.Signature);
        changed = voucher(250);
        changed.payee = stranger;
        openFor(stranger, signer, 1000, 600);
        expectSkip(changed, signature, RetrievalChannels.Skip.Signature);
        changed = voucher(250);
        changed.signer = otherSigner;
        openFor(payee, otherSigner, 1000, 600);
        expectSkip(changed, signature, RetrievalChannels.Skip.Signature);
        changed = voucher(250);
        changed.payer = stranger;
        vm.startPrank(stranger);
        channels.deposit(stranger, payee, 1000);
        channels.setLane(payee, signer, 600);
        vm.stopPrank();
        expectSkip(changed, signature, RetrievalChannels.Skip.Signature);
    }

    function test_a_voucher_for_another_chain_pays_nothing() public {
        open(1000, 600);
        vm.chainId(5);
        bytes memory signature = signed(KEY, channels.voucherDigest(voucher(250)));
        vm.chainId(31337);
        expectSkip(voucher(250), signature, RetrievalChannels.Skip.Signature);
    }

    function test_a_voucher_for_another_contract_pays_nothing() public {
        open(1000, 600);
        RetrievalChannels twin = new RetrievalChannels(IERC20(address(token)), EXIT);
        bytes memory signature = signed(KEY, twin.voucherDigest(voucher(250)));
        expectSkip(voucher(250), signature, RetrievalChannels.Skip.Signature);
    }

    /// One consent in two encodings is one consent.
    function test_a_short_signature_pays_once_with_the_long_one() public {
        open(1000, 600);
        bytes32 digest = channels.voucherDigest(voucher(250));
        same(redeem(voucher(250), signedShort(KEY, digest)), 250, "short");
        expectSkip(voucher(250), signed(KEY, digest), RetrievalChannels.Skip.Stale);
    }

    function test_a_signature_with_high_s_pays_nothing() public {
        open(1000, 600);
        expectSkip(
            voucher(250), signedHigh(KEY, channels.voucherDigest(voucher(250))), RetrievalChannels.Skip.Signature
        );
    }

    function test_malformed_signatures_pay_nothing_and_stop_nothing() public {
        open(1000, 600);
        bytes memory good = signed(KEY, channels.voucherDigest(voucher(250)));
        bytes memory odd = bytes.concat(good);
        odd[64] = bytes1(uint8(odd[64]) - 27);
        expectSkip(voucher(250), odd, RetrievalChannels.Skip.Signature);
        odd[64] = 0x1d;
        expectSkip(voucher(250), odd, RetrievalChannels.Skip.Signature);
        expectSkip(voucher(250), bytes.concat(good, hex"00"), RetrievalChannels.Skip.Signature);
        for (uint256 length = 0; length < 65; ++length) {
            expectSkip(voucher(250), new bytes(length), RetrievalChannels.Skip.Signature);
        }
        expectSkip(voucher(250), new bytes(65), RetrievalChannels.Skip.Signature);
    }

    /// What recovers to nobody must not pass for nobody's consent.
    function test_nobody_signs_for_the_zero_address() public {
        openFor(payee, address(0), 1000, 600);
        RetrievalChannels.Voucher memory v = voucher(250);
        v.signer = address(0);
        expectSkip(v, new bytes(65), RetrievalChannels.Skip.Signature);
        expectSkip(v, new bytes(64), RetrievalChannels.Skip.Signature);
        expectSkip(v, "", RetrievalChannels.Skip.Signature);
    }

    /// A batch pays what it can: one stale, forged or uncovered voucher, sent ahead by somebody else or not, holds up nobody.
    function test_a_batch_passes_over_what_is_no_good_and_says_which() public {
        open(1000, 400);
        openFor(payee, otherSigner, 0, 300);
        redeem(voucher(100));
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](5);
        bytes[] memory signatures = new bytes[](5);
        batch[0] = voucher(100);
        batch[1] = voucher(150);
        batch[2] = voucher(200);
        batch[3] = voucherOf(payer, payee, otherSigner, 300);
        batch[4] = voucherOf(payer, payee, stranger, 300);
        for (uint256 at = 0; at < 5; ++at) {
            signatures[at] = signed(at == 3 ? OTHER_KEY : KEY, channels.voucherDigest(batch[at]));
        }
        signatures[1] = signed(OTHER_KEY, channels.voucherDigest(batch[1]));
        vm.expectEmit(address(channels));
        emit RetrievalChannels.VoucherSkipped(0, payer, signer, RetrievalChannels.Skip.Stale);
        vm.expectEmit(address(channels));
        emit RetrievalChannels.VoucherSkipped(1, payer, signer, RetrievalChannels.Skip.Signature);
        vm.expectEmit(address(channels));
        emit RetrievalChannels.Redeemed(payer, payee, signer, 100, 200);
        vm.expectEmit(address(channels));
        emit RetrievalChannels.Redeemed(payer, payee, otherSigner, 300, 300);
        vm.expectEmit(address(channels));
        emit RetrievalChannels.VoucherSkipped(4, payer, stranger, RetrievalChannels.Skip.Signature);
        vm.prank(stranger);
        channels.redeem(batch, signatures);
        same(channels.earned(payee), 500, "100 before, 400 now");
    }

    function test_a_batch_with_another_number_of_signatures_is_refused() public {
        vm.expectRevert(RetrievalChannels.BatchLengths.selector);
        channels.redeem(new RetrievalChannels.Voucher[](2), new bytes[](1));
    }

    // Caps.

    function test_caps_of_all_lanes_never_exceed_the_deposit() public {
        open(1000, 600);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 1000, 1001));
        channels.setLane(payee, otherSigner, 401);
        channels.setLane(payee, otherSigner, 400);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 1000, 1001));
        channels.setLane(payee, signer, 601);
        vm.stopPrank();
        // What was redeemed is gone from both sides: nothing gets free by it.
        redeem(voucher(500));
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 500, 501));
        channels.setLane(payee, signer, 601);
        channels.deposit(payer, payee, 1);
        channels.setLane(payee, signer, 601);
        vm.stopPrank();
    }

    function test_caps_only_rise() public {
        open(1000, 600);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.CapBelow.selector, 599, 600));
        channels.setLane(payee, signer, 599);
    }

    /// Only the payer's own call makes a lane: it is the sender's channel that changes.
    function test_a_stranger_promises_nothing_on_another_account() public {
        open(1000, 600);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 0, 100));
        channels.setLane(payee, otherSigner, 100);
    }

    /// Sixteen processes of one team, each with its own key, read from one provider without talking to each other; together they
    /// can't spend what is not there.
    function test_sixteen_signers_at_once() public {
        vm.prank(payer);
        channels.deposit(payer, payee, 1600);
        for (uint256 key = 1; key <= 16; ++key) {
            vm.prank(payer);
            channels.setLane(payee, vm.addr(key), 100);
        }
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](64);
        bytes[] memory signatures = new bytes[](64);
        for (uint256 at = 0; at < 64; ++at) {
            uint256 key = 1 + at % 16;
            // Every process signs as far as it likes, some beyond what they may.
            batch[at] = voucherOf(payer, payee, vm.addr(key), uint128(30 * (1 + at / 16) * (1 + key % 2)));
            signatures[at] = signed(key, channels.voucherDigest(batch[at]));
        }
        vm.prank(payee);
        channels.redeem(batch, signatures);
        same(channels.earned(payee), 1600, "each up to its cap");
        same(channels.totalDeposits(), 0, "all of it");
    }

    // Shortfalls.

    /// A voucher for more than was promised pays what was promised, says what is missing, and the rest can be had later.
    function test_a_shortfall_is_told_and_the_part_paid_stands() public {
        open(1000, 600);
        RetrievalChannels.Voucher memory v = voucher(750);
        vm.expectEmit(address(channels));
        emit RetrievalChannels.Shortfall(payer, payee, signer, 150);
        vm.expectEmit(address(channels));
        emit RetrievalChannels.Redeemed(payer, payee, signer, 600, 600);
        same(redeem(v), 600, "part");
        expectSkip(v, signed(KEY, channels.voucherDigest(v)), RetrievalChannels.Skip.Uncovered);
        vm.prank(payer);
        channels.setLane(payee, signer, 700);
        same(redeem(v), 100, "more after the cap was raised");
    }

    /// Anybody can sign anything; only for a key that the payer authorised is it a shortfall of the payer's.
    function test_an_unauthorised_key_leaves_no_mark_on_a_payer() public {
        open(1000, 600);
        RetrievalChannels.Voucher memory v = voucherOf(payer, payee, otherSigner, 500);
        vm.recordLogs();
        same(redeem(v, signed(OTHER_KEY, channels.voucherDigest(v))), 0, "nothing");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        same(logs.length, 1, "one event");
        same(logs[0].topics[0], RetrievalChannels.VoucherSkipped.selector, "skipped");
    }

    // Exits.

    function test_nothing_leaves_before_the_time_announced() public {
        open(1000, 600);
        announce(1000);
        address[] memory lanes_ = one(signer);
        vm.warp(block.timestamp + EXIT - 1);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.ExitNotDue.selector, block.timestamp + 1));
        channels.exit(payee, lanes_, payer);
        // Up to the last second every promise is good.
        same(redeem(voucher(600)), 600, "redeemed in time");
        vm.warp(block.timestamp + 1);
        vm.prank(payer);
        channels.exit(payee, lanes_, stranger);
        same(token.balanceOf(stranger), 1_000_000 + 400, "what was left");
    }

    function test_without_an_announcement_nothing_leaves() public {
        open(1000, 0);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.ExitNotDue.selector, 0));
        channels.exit(payee, new address[](0), payer);
    }

    function test_more_than_the_deposit_can_not_be_announced() public {
        open(1000, 0);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 1000, 1001));
        channels.requestExit(payee, 1001);
    }

    /// An exit that names no lane leaves every promise as it is.
    function test_an_exit_leaves_what_lanes_still_promise() public {
        open(1000, 600);
        announce(401);
        vm.warp(block.timestamp + EXIT);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 599, 600));
        channels.exit(payee, new address[](0), payer);
        announce(400);
        vm.warp(block.timestamp + EXIT);
        vm.prank(payer);
        channels.exit(payee, new address[](0), payer);
        same(redeem(voucher(600)), 600, "still good");
    }

    /// To take a lane's cap back without taking money: announce nothing, wait as long.
    function test_a_cap_is_freed_by_an_exit_and_no_sooner() public {
        open(1000, 1000);
        redeem(voucher(200));
        announce(0);
        vm.warp(block.timestamp + EXIT);
        vm.prank(payer);
        channels.exit(payee, one(signer), payer);
        (uint128 cap, uint128 redeemed) = channels.lanes(payer, payee, signer);
        same(cap, 200, "cap");
        same(redeemed, 200, "redeemed");
        expectSkip(voucher(700), signed(KEY, channels.voucherDigest(voucher(700))), RetrievalChannels.Skip.Uncovered);
        vm.prank(payer);
        channels.setLane(payee, otherSigner, 800);
    }

    function test_a_lane_named_twice_is_freed_once() public {
        open(1000, 300);
        openFor(payee, otherSigner, 0, 700);
        announce(300);
        vm.warp(block.timestamp + EXIT);
        address[] memory twice = new address[](2);
        twice[0] = signer;
        twice[1] = signer;
        vm.prank(payer);
        channels.exit(payee, twice, payer);
        (uint128 deposit, uint128 promised,,) = channels.channels(payer, payee);
        same(deposit, 700, "deposit");
        same(promised, 700, "the other lane's");
    }

    /// Else a payer with an exit that is due could promise, be served, and leave in the same block.
    function test_nothing_is_promised_while_an_exit_is_under_way() public {
        open(1000, 100);
        announce(500);
        uint64 exitAt = uint64(block.timestamp) + EXIT;
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Leaving.selector, exitAt));
        channels.setLane(payee, otherSigner, 10);
        vm.warp(exitAt + 100);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Leaving.selector, exitAt));
        channels.setLane(payee, otherSigner, 10);
        channels.cancelExit(payee);
        channels.setLane(payee, otherSigner, 10);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.ExitNotDue.selector, 0));
        channels.exit(payee, one(otherSigner), payer);
        vm.stopPrank();
    }

    function test_announcing_again_starts_the_time_again() public {
        open(1000, 0);
        announce(1);
        vm.warp(block.timestamp + EXIT);
        announce(1000);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.ExitNotDue.selector, block.timestamp + EXIT));
        channels.exit(payee, new address[](0), payer);
    }

    /// Money that somebody else adds is the payer's from then on and changes no exit; nobody else's call reaches the channel.
    function test_no_stranger_can_stop_or_hasten_an_exit() public {
        open(1000, 0);
        announce(1000);
        vm.startPrank(stranger);
        channels.deposit(payer, payee, 50);
        channels.cancelExit(payee);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 0, 1));
        channels.requestExit(payee, 1);
        vm.stopPrank();
        vm.prank(payee);
        channels.cancelExit(payee);
        (,, uint128 leaving, uint64 exitAt) = channels.channels(payer, payee);
        same(leaving, 1000, "leaving");
        same(exitAt, block.timestamp + EXIT, "time");
        vm.warp(exitAt);
        uint256 before = token.balanceOf(payer);
        vm.prank(payer);
        channels.exit(payee, new address[](0), payer);
        same(token.balanceOf(payer) - before, 1000, "all that was announced");
        (uint128 deposit,,,) = channels.channels(payer, payee);
        same(deposit, 50, "what was added since");
    }

    function test_vouchers_cashed_before_do_not_count_again_when_a_channel_opens_again() public {
        open(1000, 600);
        RetrievalChannels.Voucher memory old = voucher(400);
        redeem(old);
        announce(600);
        vm.warp(block.timestamp + EXIT);
        vm.prank(payer);
        channels.exit(payee, one(signer), payer);
        vm.startPrank(payer);
        channels.deposit(payer, payee, 500);
        channels.setLane(payee, signer, 900);
        vm.stopPrank();
        expectSkip(old, signed(KEY, channels.voucherDigest(old)), RetrievalChannels.Skip.Stale);
        same(redeem(voucher(401)), 1, "only what is new");
    }

    // Withdrawing, and tokens that behave badly.

    function test_there_is_nothing_to_withdraw_twice() public {
        open(1000, 600);
        redeem(voucher(250));
        vm.startPrank(payee);
        channels.withdraw(payee);
        vm.expectRevert(RetrievalChannels.Nothing.selector);
        channels.withdraw(payee);
        vm.stopPrank();
    }

    function test_a_fee_is_borne_by_whoever_sends() public {
        use(new FeeToken());
        vm.startPrank(payer);
        channels.deposit(payer, payee, 1000);
        vm.expectRevert(abi.encodeWithSelector(RetrievalChannels.Uncovered.selector, 990, 991));
        channels.setLane(payee, signer, 991);
        channels.setLane(payee, signer, 990);
        vm.stopPrank();
        same(redeem(voucher(990)), 990, "covered");
        vm.prank(payee);
        channels.withdraw(payee);
        same(token.balanceOf(address(channels)), 0, "exactly what came in went out");
        same(token.balanceOf(payee), 981, "less the second fee");
    }

    function test_a_token_that_stops_holds_up_money_and_nothing_else() public {
        StoppingToken stopping = new StoppingToken();
        use(stopping);
        open(1000, 600);
        stopping.stop(true);
        vm.prank(payer);
        vm.expectRevert(StoppingToken.Stopped.selector);
        channels.deposit(payer, payee, 1);
        same(redeem(voucher(250)), 250, "vouchers count as before");
        vm.prank(payee);
        vm.expectRevert(StoppingToken.Stopped.selector);
        channels.withdraw(payee);
        same(channels.earned(payee), 250, "still there");
        announce(750);
        vm.warp(block.timestamp + EXIT);
        vm.prank(payer);
        vm.expectRevert(StoppingToken.Stopped.selector);
        channels.exit(payee, one(signer), payer);
        stopping.stop(false);
        vm.prank(payer);
        channels.exit(payee, one(signer), payer);
        vm.prank(payee);
        channels.withdraw(payee);
        same(token.balanceOf(address(channels)), 0, "all out");
    }

    function test_a_payee_that_the_token_blocks_stops_itself_only() public {
        StoppingToken stopping = new StoppingToken();
        use(stopping);
        open(1000, 600);
        openFor(stranger, signer, 500, 500);
        redeem(voucher(250));
        redeem(voucherOf(payer, stranger, signer, 500));
        stopping.blockAccount(payee);
        vm.prank(payee);
        vm.expectRevert(StoppingToken.Stopped.selector);
        channels.withdraw(payee);
        vm.prank(stranger);
        channels.withdraw(stranger);
        vm.prank(payee);
        channels.withdraw(address(0x2002));
        same(token.balanceOf(address(0x2002)), 250, "elsewhere");
    }

    function test_a_token_that_says_false_is_a_refusal() public {
        FalseToken lying = new FalseToken();
        use(lying);
        open(1000, 600);
        redeem(voucher(250));
        lying.refuse(true);
        vm.prank(payer);
        vm.expectRevert();
        channels.deposit(payer, payee, 1000);
        vm.prank(payee);
        vm.expectRevert();
        channels.withdraw(payee);
        same(channels.earned(payee), 250, "still there");
        same(channels.totalDeposits(), 750, "nothing was added");
    }

    function test_a_token_that_says_nothing_works() public {
        use(TestToken(address(new SilentToken())));
        open(1000, 600);
        redeem(voucher(250));
        vm.prank(payee);
        channels.withdraw(payee);
        same(token.balanceOf(payee), 250, "paid");
    }

    function test_a_token_that_calls_back_takes_nothing_twice() public {
        CallingToken calling = new CallingToken();
        use(calling);
        // The token itself is payee and payer, so that what it calls is in its own name.
        address self = address(calling);
        calling.mint(self, 1000);
        vm.startPrank(self);
        token.approve(address(channels), 1000);
        channels.deposit(self, self, 1000);
        channels.setLane(self, signer, 400);
        channels.requestExit(self, 600);
        vm.stopPrank();
        redeem(voucherOf(self, self, signer, 400));
        vm.warp(block.timestamp + EXIT);

        calling.callOnTransfer(address(channels), abi.encodeCall(RetrievalChannels.withdraw, (stranger)));
        vm.prank(self);
        channels.withdraw(stranger);
        refused(calling);
        calling.callOnTransfer(
            address(channels), abi.encodeCall(RetrievalChannels.exit, (self, new address[](0), stranger))
        );
        vm.prank(self);
        channels.exit(self, new address[](0), stranger);
        refused(calling);
        same(token.balanceOf(stranger), 2_001_000, "each amount once");

        // A deposit inside a deposit would be counted by both.
        fund(self, 100);
        calling.callOnTransfer(address(channels), abi.encodeCall(RetrievalChannels.deposit, (self, self, 50)));
        vm.prank(self);
        channels.deposit(self, self, 50);
        refused(calling);
        same(channels.totalDeposits(), 50, "once");
    }

    /// Vouchers cashed in the middle of a deposit move numbers, no tokens: the deposit counts what arrived all the same.
    function test_redeeming_inside_a_deposit_changes_nothing_of_it() public {
        CallingToken calling = new CallingToken();
        use(calling);
        open(1000, 600);
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](1);
        bytes[] memory signatures = new bytes[](1);
        batch[0] = voucher(600);
        signatures[0] = signed(KEY, channels.voucherDigest(batch[0]));
        calling.callOnTransfer(address(channels), abi.encodeCall(RetrievalChannels.redeem, (batch, signatures)));
        vm.prank(payer);
        channels.deposit(payer, payee, 50);
        holds(calling.called(), "redeemed inside");
        same(channels.totalDeposits(), 450, "deposits");
        same(channels.totalEarned(), 600, "earned");
        same(token.balanceOf(address(channels)), 1050, "held");
    }

    function test_a_deployment_needs_a_token_and_a_time() public {
        vm.expectRevert(RetrievalChannels.Settings.selector);
        new RetrievalChannels(IERC20(address(0)), EXIT);
        vm.expectRevert(RetrievalChannels.Settings.selector);
        new RetrievalChannels(IERC20(address(token)), 0);
    }

    function test_the_largest_amounts_add_up_or_are_refused() public {
        uint128 most = type(uint128).max;
        token.mint(payer, uint256(most) * 2);
        vm.startPrank(payer);
        token.approve(address(channels), type(uint256).max);
        channels.deposit(payer, payee, most);
        vm.expectRevert();
        channels.deposit(payer, payee, 1);
        channels.setLane(payee, signer, most);
        vm.stopPrank();
        same(redeem(voucher(most)), most, "all");
        expectSkip(voucher(most), signed(KEY, channels.voucherDigest(voucher(most))), RetrievalChannels.Skip.Stale);
    }

    // Short words for what tests do.

    function refused(CallingToken calling) private view {
        holds(!calling.called(), "the inner call fails");
        same(bytes32(calling.refusal()), bytes32(ReentrancyGuard.ReentrancyGuardReentrantCall.selector), "by the guard");
    }

    function use(TestToken token_) private {
        token = token_;
        channels = new RetrievalChannels(IERC20(address(token_)), EXIT);
        fund(payer, 1_000_000);
        fund(stranger, 2_000_000);
    }

    function fund(address who, uint256 amount) private {
        token.mint(who, amount);
        vm.prank(who);
        // Some tokens answer nothing.
        (bool done,) = address(token).call(abi.encodeCall(token.approve, (address(channels), amount)));
        holds(done, "approved");
    }

    function open(uint128 amount, uint128 cap) private {
        openFor(payee, signer, amount, cap);
    }

    function openFor(address payee_, address signer_, uint128 amount, uint128 cap) private {
        vm.startPrank(payer);
        if (amount != 0) channels.deposit(payer, payee_, amount);
        if (cap != 0) channels.setLane(payee_, signer_, cap);
        vm.stopPrank();
    }

    function announce(uint128 amount) private {
        vm.prank(payer);
        channels.requestExit(payee, amount);
    }

    function one(address which) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = which;
    }

    function voucher(uint128 cumulative) private view returns (RetrievalChannels.Voucher memory) {
        return voucherOf(payer, payee, signer, cumulative);
    }

    function voucherOf(address payer_, address payee_, address signer_, uint128 cumulative)
        private
        pure
        returns (RetrievalChannels.Voucher memory)
    {
        return RetrievalChannels.Voucher(payer_, payee_, signer_, cumulative);
    }

    function redeem(RetrievalChannels.Voucher memory v) private returns (uint256) {
        return redeem(v, signed(KEY, channels.voucherDigest(v)));
    }

    /// Anyone sends it; what the payee gets is returned.
    function redeem(RetrievalChannels.Voucher memory v, bytes memory signature) private returns (uint256) {
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](1);
        bytes[] memory signatures = new bytes[](1);
        batch[0] = v;
        signatures[0] = signature;
        uint256 before = channels.earned(v.payee);
        channels.redeem(batch, signatures);
        return channels.earned(v.payee) - before;
    }

    function expectSkip(RetrievalChannels.Voucher memory v, bytes memory signature, RetrievalChannels.Skip reason)
        private
    {
        uint256 deposits = channels.totalDeposits();
        vm.expectEmit(address(channels));
        emit RetrievalChannels.VoucherSkipped(0, v.payer, v.signer, reason);
        same(redeem(v, signature), 0, "nothing is paid");
        same(channels.totalDeposits(), deposits, "nothing moves");
    }
}
