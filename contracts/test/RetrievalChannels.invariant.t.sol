// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {RetrievalChannels} from "../src/RetrievalChannels.sol";
import {TestToken} from "../src/TestToken.sol";
import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

/// @notice Payers, payees, signers and strangers who do whatever they may, and keep their own books beside the contract's.
contract ChannelUsers is Check {
    uint64 public constant EXIT = 1000;
    uint256 public constant PAYERS = 2;
    uint256 public constant PAYEES = 2;
    uint256 public constant SIGNERS = 2;

    struct Books {
        uint256 deposited;
        uint256 redeemed;
        uint256 left;
        uint256 announced;
        uint256 announcedAt;
        bool leaving;
    }

    struct LaneBooks {
        /// The highest amount that the signer ever signed.
        uint128 signed;
        /// What vouchers of this lane brought the payee.
        uint256 paid;
        uint128 redeemedSeen;
        uint128 cap;
        uint256 promisedAt;
    }

    TestToken public immutable token;
    RetrievalChannels public immutable channels;
    mapping(address payer => mapping(address payee => Books)) public books;
    mapping(address payer => mapping(address payee => mapping(address signer => LaneBooks))) public laneBooks;
    mapping(address payee => uint256) public withdrawn;
    RetrievalChannels.Voucher[] private vouchers;
    bytes[] private signatures;
    address[SIGNERS] private signers;
    /// What one of the users saw that may never happen.
    string public complaint;

    constructor() {
        vm.warp(1_700_000_000);
        token = new TestToken();
        channels = new RetrievalChannels(IERC20(address(token)), EXIT);
        for (uint256 at = 0; at < SIGNERS; ++at) {
            signers[at] = vm.addr(key(at));
        }
    }

    function payer(uint256 at) public pure returns (address) {
        return address(uint160(0x1000 + at % PAYERS));
    }

    function payee(uint256 at) public pure returns (address) {
        return address(uint160(0x2000 + at % PAYEES));
    }

    function key(uint256 at) public pure returns (uint256) {
        return 0x5160 + at % SIGNERS;
    }

    function signer(uint256 at) public view returns (address) {
        return signers[at % SIGNERS];
    }

    function doDeposit(uint256 from, uint256 who, uint256 whom, uint128 amount) external {
        amount %= 1000;
        address sender = from % 3 == 0 ? address(0x3000) : payer(from);
        token.mint(sender, amount);
        vm.startPrank(sender);
        token.approve(address(channels), amount);
        channels.deposit(payer(who), payee(whom), amount);
        vm.stopPrank();
        books[payer(who)][payee(whom)].deposited += amount;
    }

    function doSetLane(uint256 who, uint256 whom, uint256 which, uint128 cap) external {
        cap %= 1500;
        vm.prank(payer(who));
        channels.setLane(payee(whom), signer(which), cap);
        LaneBooks storage lane = laneBooks[payer(who)][payee(whom)][signer(which)];
        lane.cap = cap;
        lane.promisedAt = block.timestamp;
    }

    /// The usual case, so that long histories of paying happen: money and a lane that it covers.
    function doOpen(uint256 who, uint256 whom, uint256 which, uint128 amount) external {
        amount %= 1000;
        this.doDeposit(1 + who % 2, who, whom, amount);
        (uint128 cap,) = channels.lanes(payer(who), payee(whom), signer(which));
        this.doSetLane(who, whom, which, cap + amount);
    }

    function doSign(uint256 who, uint256 whom, uint256 which, uint128 amount) external {
        // Mostly where something was promised; nobody signs much on lanes that are worth nothing.
        if (amount % 5 != 0) (who, whom, which) = promised(who, whom, which);
        LaneBooks storage lane = laneBooks[payer(who)][payee(whom)][signer(which)];
        // Mostly a little more than before, sometimes anything.
        amount = amount % 3 != 0 ? lane.signed + amount % 200 : amount % 3000;
        RetrievalChannels.Voucher memory v = RetrievalChannels.Voucher(payer(who), payee(whom), signer(which), amount);
        vouchers.push(v);
        signatures.push(signed(key(which), channels.voucherDigest(v)));
        if (amount > lane.signed) lane.signed = amount;
    }

    /// Signed by a key that the voucher doesn't name, or with a changed amount: worth nothing.
    function doForge(uint256 who, uint256 whom, uint256 which, uint128 amount) external {
        RetrievalChannels.Voucher memory v =
            RetrievalChannels.Voucher(payer(who), payee(whom), signer(which), amount % 3000);
        bytes memory signature = signed(key(which + 1), channels.voucherDigest(v));
        if (amount % 2 == 0) {
            signature = signed(key(which), channels.voucherDigest(v));
            v.cumulative += 1000;
        }
        vouchers.push(v);
        signatures.push(signature);
    }

    function doRedeem(uint256 first, uint256 step, uint256 count) external {
        count = 1 + count % 4;
        if (vouchers.length == 0) return;
        RetrievalChannels.Voucher[] memory batch = new RetrievalChannels.Voucher[](count);
        bytes[] memory with = new bytes[](count);
        for (uint256 at = 0; at < count; ++at) {
            // The newest, an old one, the same one twice: all of it happens.
            uint256 index =
                addmod(first % 3 == 0 ? vouchers.length - 1 : first, mulmod(at, step, 1 << 64), vouchers.length);
            batch[at] = vouchers[index];
            with[at] = signatures[index];
        }
        uint256[2] memory before = [channels.earned(payee(0)), channels.earned(payee(1))];
        channels.redeem(batch, with);
        uint256[2] memory paid = [channels.earned(payee(0)) - before[0], channels.earned(payee(1)) - before[1]];
        for (uint256 p = 0; p < PAYEES; ++p) {
            uint256 found = 0;
            for (uint256 c = 0; c < PAYERS; ++c) {
                for (uint256 s = 0; s < SIGNERS; ++s) {
                    found += observe(payer(c), payee(p), signer(s));
                }
            }
            if (found != paid[p]) complaint = "a payee earned what no lane lost";
        }
    }

    function doRequestExit(uint256 who, uint256 whom, uint128 amount) external {
        (uint128 deposit,,,) = channels.channels(payer(who), payee(whom));
        // All, a part, or one too much.
        amount = amount % 4 == 0 ? deposit : amount % (deposit + 2);
        vm.prank(payer(who));
        channels.requestExit(payee(whom), amount);
        Books storage b = books[payer(who)][payee(whom)];
        b.announced = amount;
        b.announcedAt = block.timestamp;
        b.leaving = true;
    }

    function doCancelExit(uint256 who, uint256 whom, uint256 seldom) external {
        if (seldom % 4 != 0) return;
        vm.prank(payer(who));
        channels.cancelExit(payee(whom));
        books[payer(who)][payee(whom)].leaving = false;
    }

    function doExit(uint256 who, uint256 whom, uint256 named, uint256 patience) external {
        (,,, uint64 exitAt) = channels.channels(payer(who), payee(whom));
        // Mostly at the very second from which it may, sometimes one before.
        if (exitAt > block.timestamp && patience % 3 != 0) vm.warp(exitAt - (patience % 7 == 1 ? 1 : 0));
        // Mostly all lanes: what is left out may stand in the way.
        if (patience % 2 == 0) named = type(uint256).max;
        address[] memory list = new address[](SIGNERS);
        uint256 count = 0;
        for (uint256 s = 0; s < SIGNERS; ++s) {
            if (named >> s & 1 == 1) list[count++] = signer(s);
        }
        assembly ("memory-safe") {
            mstore(list, count)
        }
        (address payer_, address payee_) = (payer(who), payee(whom));
        uint256 before = token.balanceOf(address(0x4000));
        vm.prank(payer_);
        channels.exit(payee_, list, address(0x4000));
        uint256 amount = token.balanceOf(address(0x4000)) - before;
        Books storage b = books[payer_][payee_];
        if (!b.leaving || block.timestamp < b.announcedAt + EXIT) complaint = "an exit before its time";
        if (amount > b.announced) complaint = "more left than was announced";
        b.left += amount;
        b.leaving = false;
        for (uint256 at = 0; at < count; ++at) {
            LaneBooks storage lane = laneBooks[payer_][payee_][list[at]];
            if (lane.cap > lane.redeemedSeen && block.timestamp < lane.promisedAt + EXIT) {
                complaint = "a promise broken before a payee could see it";
            }
            lane.cap = lane.redeemedSeen;
        }
    }

    function doStrangersExit(uint256 whom) external {
        vm.startPrank(address(0x3000));
        channels.cancelExit(payee(whom));
        channels.requestExit(payee(whom), 0);
        vm.stopPrank();
    }

    function doWithdraw(uint256 whom) external {
        uint256 before = token.balanceOf(address(0x5000));
        vm.prank(payee(whom));
        channels.withdraw(address(0x5000));
        withdrawn[payee(whom)] += token.balanceOf(address(0x5000)) - before;
    }

    function doWait(uint256 time) external {
        vm.warp(block.timestamp + time % (EXIT * 3 / 4));
    }

    /// The next lane with a promise left, if there is any.
    function promised(uint256 who, uint256 whom, uint256 which) private view returns (uint256, uint256, uint256) {
        (who, whom, which) = (who % PAYERS, whom % PAYEES, which % SIGNERS);
        for (uint256 tries = 0; tries < PAYERS * PAYEES * SIGNERS; ++tries) {
            (uint128 cap, uint128 redeemed) = channels.lanes(payer(who), payee(whom), signer(which));
            if (cap > redeemed) break;
            if (tries % SIGNERS == 0) ++who;
            if (tries % (SIGNERS * PAYERS) == 0) ++whom;
            ++which;
        }
        return (who, whom, which);
    }

    /// What a lane lost since it was looked at last.
    function observe(address payer_, address payee_, address signer_) private returns (uint256 paid) {
        (uint128 cap, uint128 redeemed) = channels.lanes(payer_, payee_, signer_);
        LaneBooks storage lane = laneBooks[payer_][payee_][signer_];
        if (redeemed < lane.redeemedSeen) {
            complaint = "what was redeemed fell";
            return 0;
        }
        if (cap != lane.cap) complaint = "a cap changed without its payer";
        paid = redeemed - lane.redeemedSeen;
        lane.redeemedSeen = redeemed;
        lane.paid += paid;
        books[payer_][payee_].redeemed += paid;
    }
}

contract RetrievalChannelsInvariants is Check {
    struct Selectors {
        address addr;
        bytes4[] selectors;
    }

    ChannelUsers private users;
    RetrievalChannels private channels;

    function setUp() public {
        users = new ChannelUsers();
        channels = users.channels();
    }

    function targetContracts() public view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(users);
    }

    function targetSelectors() public view returns (Selectors[] memory list) {
        list = new Selectors[](1);
        list[0].addr = address(users);
        bytes4[] memory s = new bytes4[](15);
        s[0] = ChannelUsers.doDeposit.selector;
        s[1] = ChannelUsers.doOpen.selector;
        s[2] = ChannelUsers.doOpen.selector;
        s[3] = ChannelUsers.doSetLane.selector;
        s[4] = ChannelUsers.doSign.selector;
        s[5] = ChannelUsers.doSign.selector;
        s[6] = ChannelUsers.doForge.selector;
        s[7] = ChannelUsers.doRedeem.selector;
        s[8] = ChannelUsers.doRedeem.selector;
        s[9] = ChannelUsers.doRequestExit.selector;
        s[10] = ChannelUsers.doCancelExit.selector;
        s[11] = ChannelUsers.doExit.selector;
        s[12] = ChannelUsers.doStrangersExit.selector;
        s[13] = ChannelUsers.doWithdraw.selector;
        s[14] = ChannelUsers.doWait.selector;
        list[0].selectors = s;
    }

    /// All in one, so that one search looks for the failure of any.
    function invariant_money_goes_where_it_was_signed_to() public view {
        holds(bytes(users.complaint()).length == 0, users.complaint());
        redeemableVouchersAreCovered();
        lanesPayAtMostTheHighestVoucherSigned();
        everyTokenIsSomewhere();
    }

    /// For every history: what vouchers could still be redeemed is there.
    function redeemableVouchersAreCovered() private view {
        for (uint256 c = 0; c < users.PAYERS(); ++c) {
            for (uint256 p = 0; p < users.PAYEES(); ++p) {
                (uint128 deposit, uint128 promised,,) = channels.channels(users.payer(c), users.payee(p));
                uint256 redeemable = 0;
                uint256 caps = 0;
                for (uint256 s = 0; s < users.SIGNERS(); ++s) {
                    (uint128 cap, uint128 redeemed) = channels.lanes(users.payer(c), users.payee(p), users.signer(s));
                    (uint128 highest,,,,) = users.laneBooks(users.payer(c), users.payee(p), users.signer(s));
                    uint128 upTo = highest < cap ? highest : cap;
                    if (upTo > redeemed) redeemable += upTo - redeemed;
                    caps += cap - redeemed;
                }
                atMost(redeemable, deposit, "redeemable vouchers and the deposit");
                same(caps, promised, "caps not yet redeemed");
                atMost(promised, deposit, "promises and the deposit");
            }
        }
    }

    function lanesPayAtMostTheHighestVoucherSigned() private view {
        for (uint256 c = 0; c < users.PAYERS(); ++c) {
            for (uint256 p = 0; p < users.PAYEES(); ++p) {
                for (uint256 s = 0; s < users.SIGNERS(); ++s) {
                    (uint128 cap, uint128 redeemed) = channels.lanes(users.payer(c), users.payee(p), users.signer(s));
                    (uint128 highest, uint256 paid,,,) =
                        users.laneBooks(users.payer(c), users.payee(p), users.signer(s));
                    same(paid, redeemed, "paid in all");
                    atMost(paid, highest, "paid and the highest voucher");
                    atMost(redeemed, cap, "redeemed and the cap");
                }
            }
        }
    }

    /// No token appears and none vanishes: for every channel, and for the contract as a whole.
    function everyTokenIsSomewhere() private view {
        uint256 deposits = 0;
        uint256 earned = 0;
        for (uint256 p = 0; p < users.PAYEES(); ++p) {
            uint256 redeemedFor = 0;
            for (uint256 c = 0; c < users.PAYERS(); ++c) {
                (uint256 deposited, uint256 redeemed, uint256 left,,,) = users.books(users.payer(c), users.payee(p));
                (uint128 deposit,,,) = channels.channels(users.payer(c), users.payee(p));
                same(deposit + redeemed + left, deposited, "a channel's deposits");
                deposits += deposit;
                redeemedFor += redeemed;
            }
            same(channels.earned(users.payee(p)) + users.withdrawn(users.payee(p)), redeemedFor, "what a payee earned");
            earned += channels.earned(users.payee(p));
        }
        same(channels.totalDeposits(), deposits, "all deposits");
        same(channels.totalEarned(), earned, "all earnings");
        same(users.token().balanceOf(address(channels)), deposits + earned, "what the contract holds");
    }

    /// Whatever happened, a payer alone gets out all that is not redeemed, in a fixed time.
    function afterInvariant() public {
        address[] memory all = new address[](users.SIGNERS());
        for (uint256 s = 0; s < all.length; ++s) {
            all[s] = users.signer(s);
        }
        for (uint256 c = 0; c < users.PAYERS(); ++c) {
            for (uint256 p = 0; p < users.PAYEES(); ++p) {
                everythingLeaves(users.payer(c), users.payee(p), all);
            }
        }
    }

    function everythingLeaves(address payer, address payee, address[] memory all) private {
        (uint128 deposit,,,) = channels.channels(payer, payee);
        uint256 before = users.token().balanceOf(payer);
        uint256 wait = users.EXIT();
        vm.startPrank(payer);
        channels.requestExit(payee, deposit);
        vm.warp(block.timestamp + wait);
        channels.exit(payee, all, payer);
        vm.stopPrank();
        same(users.token().balanceOf(payer) - before, deposit, "everything");
    }
}
