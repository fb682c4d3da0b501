// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Signatures} from "./Signatures.sol";

/// @title Pay for retrieval: collateral and cumulative vouchers.
/// @notice A channel is one payer's deposit for one payee. Each signer that the payer authorised for that payee is a *lane* with a cap and a
///         counter of its own, so that many processes of a team pay one provider without talking to each other. The caps of a channel never
///         add up to more than what it holds, so a voucher within its lane's cap is always covered until the payer's exit, which takes
///         `exitSeconds` and can't be hidden. What was redeemed never resets, so a channel that opens again can't replay old vouchers.
///         A payee takes a voucher as money if it is within its lane's cap and no exit is under way, and redeems when one is announced.
/// @dev Nobody owns this contract. Third parties may add money and nothing else.
contract RetrievalChannels is EIP712, ReentrancyGuard {
    using SafeERC20 for IERC20;

    /// @notice "The signer owes the payee this much in all, on the payer's account."
    struct Voucher {
        address payer;
        address payee;
        address signer;
        uint128 cumulative;
    }

    /// @notice One payer's money for one payee.
    struct Channel {
        /// What is left of the deposits.
        uint128 deposit;
        /// Caps of all lanes, less what they redeemed: never above `deposit`.
        uint128 promised;
        /// What leaves with the exit that is under way, and the time from which it may; zero if none is.
        uint128 leaving;
        uint64 exitAt;
    }

    /// @notice One signer's part of a channel.
    struct Lane {
        /// The highest cumulative amount that is covered.
        uint128 cap;
        uint128 redeemed;
    }

    /// @notice Why a voucher of a batch was passed over.
    enum Skip {
        None,
        Signature,
        Stale,
        Uncovered
    }

    event Deposited(address indexed payer, address indexed payee, address from, uint256 amount);
    event LaneSet(address indexed payer, address indexed payee, address indexed signer, uint128 cap);
    event Redeemed(
        address indexed payer, address indexed payee, address indexed signer, uint128 paid, uint128 cumulative
    );
    /// The voucher is good for more than its lane was ever promised. The rest can be redeemed when the cap is raised.
    event Shortfall(address indexed payer, address indexed payee, address indexed signer, uint128 missing);
    event VoucherSkipped(uint256 index, address indexed payer, address indexed signer, Skip reason);
    event ExitRequested(address indexed payer, address indexed payee, uint128 amount, uint64 exitAt);
    event ExitCancelled(address indexed payer, address indexed payee);
    event Exited(address indexed payer, address indexed payee, address to, uint128 amount);
    event Withdrawn(address indexed payee, address to, uint256 amount);

    /// The channel holds less than its lanes would be promised.
    error Uncovered(uint128 deposit, uint128 promised);
    /// A cap can be raised at once; to lower one, name it in an exit.
    error CapBelow(uint128 cap, uint128 before);
    /// Nothing new is promised while an exit is under way: it could be taken back before the payee has seen it.
    error Leaving(uint64 exitAt);
    /// No exit is under way, or its time has not come.
    error ExitNotDue(uint64 exitAt);
    /// More than one signature or less for each voucher.
    error BatchLengths();
    /// A deployment needs a token and a time for exits.
    error Settings();
    /// There is nothing to take.
    error Nothing();

    bytes32 private constant VOUCHER =
        keccak256("Voucher(address payer,address payee,address signer,uint128 cumulative)");

    IERC20 public immutable token;
    /// @notice Time between an exit's announcement and the exit, in seconds.
    uint64 public immutable exitSeconds;

    mapping(address payer => mapping(address payee => Channel)) public channels;
    mapping(address payer => mapping(address payee => mapping(address signer => Lane))) public lanes;
    /// @notice What payees redeemed and did not withdraw.
    mapping(address payee => uint256) public earned;
    uint256 public totalDeposits;
    uint256 public totalEarned;

    constructor(IERC20 token_, uint64 exitSeconds_) EIP712("Seedbank RetrievalChannels", "1") {
        if (address(token_) == address(0) || exitSeconds_ == 0) revert Settings();
        token = token_;
        exitSeconds = exitSeconds_;
    }

    /// @notice Adds the caller's tokens to a channel. Anyone may; it changes nothing else of the channel.
    function deposit(address payer, address payee, uint128 amount) external nonReentrant {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint128 arrived = uint128(token.balanceOf(address(this)) - before);
        channels[payer][payee].deposit += arrived;
        totalDeposits += arrived;
        emit Deposited(payer, payee, msg.sender, arrived);
    }

    /// @notice Lets `signer` promise up to `cap` in all to `payee` on the caller's account. Caps only rise, as long as the deposit covers
    ///         them all and no exit is under way: whatever is promised stays covered for `exitSeconds` at least.
    function setLane(address payee, address signer, uint128 cap) external {
        Channel storage channel = channels[msg.sender][payee];
        Lane storage lane = lanes[msg.sender][payee][signer];
        if (channel.exitAt != 0) revert Leaving(channel.exitAt);
        if (cap < lane.cap) revert CapBelow(cap, lane.cap);
        uint128 promised = channel.promised + (cap - lane.cap);
        if (promised > channel.deposit) revert Uncovered(channel.deposit, promised);
        channel.promised = promised;
        lane.cap = cap;
        emit LaneSet(msg.sender, payee, signer, cap);
    }

    /// @notice Credits the payees with what their vouchers are good for and was not redeemed yet. Anyone may send vouchers; the money is
    ///         the payee's. Old, forged and uncovered ones are passed over, and an event says why.
    function redeem(Voucher[] calldata vouchers, bytes[] calldata signatures) external {
        if (vouchers.length != signatures.length) revert BatchLengths();
        for (uint256 at = 0; at < vouchers.length; ++at) {
            Skip reason = redeem(vouchers[at], signatures[at]);
            if (reason != Skip.None) emit VoucherSkipped(at, vouchers[at].payer, vouchers[at].signer, reason);
        }
    }

    /// @notice Sends what the caller earned to `to`.
    function withdraw(address to) external nonReentrant {
        uint256 amount = earned[msg.sender];
        if (amount == 0) revert Nothing();
        earned[msg.sender] = 0;
        totalEarned -= amount;
        emit Withdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @notice Announces that the caller takes back up to `amount` of a channel (zero to take back promises only). Until `exitSeconds` have
    ///         passed everything promised can be redeemed; payees see the event and do. A second announcement replaces the first, and
    ///         its time begins anew.
    function requestExit(address payee, uint128 amount) external {
        Channel storage channel = channels[msg.sender][payee];
        if (amount > channel.deposit) revert Uncovered(channel.deposit, amount);
        channel.exitAt = uint64(block.timestamp) + exitSeconds;
        channel.leaving = amount;
        emit ExitRequested(msg.sender, payee, amount, channel.exitAt);
    }

    /// @notice Takes an announcement back.
    function cancelExit(address payee) external {
        Channel storage channel = channels[msg.sender][payee];
        channel.exitAt = 0;
        channel.leaving = 0;
        emit ExitCancelled(msg.sender, payee);
    }

    /// @notice Ends the caller's announced exit: sends what was announced, or what is left of it. The named lanes' caps fall to what they
    ///         redeemed, so that what stays still covers what stays promised.
    function exit(address payee, address[] calldata signers, address to) external nonReentrant {
        Channel storage channel = channels[msg.sender][payee];
        if (channel.exitAt == 0 || block.timestamp < channel.exitAt) revert ExitNotDue(channel.exitAt);
        for (uint256 at = 0; at < signers.length; ++at) {
            Lane storage lane = lanes[msg.sender][payee][signers[at]];
            channel.promised -= lane.cap - lane.redeemed;
            lane.cap = lane.redeemed;
            emit LaneSet(msg.sender, payee, signers[at], lane.cap);
        }
        uint128 amount = channel.leaving < channel.deposit ? channel.leaving : channel.deposit;
        if (channel.deposit - amount < channel.promised) revert Uncovered(channel.deposit - amount, channel.promised);
        channel.exitAt = 0;
        channel.leaving = 0;
        channel.deposit -= amount;
        totalDeposits -= amount;
        emit Exited(msg.sender, payee, to, amount);
        if (amount != 0) token.safeTransfer(to, amount);
    }

    /// @notice What a signer signs.
    function voucherDigest(Voucher calldata voucher) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(abi.encode(VOUCHER, voucher.payer, voucher.payee, voucher.signer, voucher.cumulative))
        );
    }

    function redeem(Voucher calldata voucher, bytes calldata signature) private returns (Skip) {
        Lane storage lane = lanes[voucher.payer][voucher.payee][voucher.signer];
        if (voucher.cumulative <= lane.redeemed) return Skip.Stale;
        if (voucher.signer == address(0) || Signatures.signer(voucherDigest(voucher), signature) != voucher.signer) {
            return Skip.Signature;
        }
        uint128 upTo = voucher.cumulative < lane.cap ? voucher.cumulative : lane.cap;
        // A key that the payer never authorised can't make the payer look as if it owed something.
        if (upTo < voucher.cumulative && lane.cap != 0) {
            emit Shortfall(voucher.payer, voucher.payee, voucher.signer, voucher.cumulative - upTo);
        }
        if (upTo == lane.redeemed) return Skip.Uncovered;
        uint128 paid = upTo - lane.redeemed;
        Channel storage channel = channels[voucher.payer][voucher.payee];
        lane.redeemed = upTo;
        channel.promised -= paid;
        channel.deposit -= paid;
        totalDeposits -= paid;
        earned[voucher.payee] += paid;
        totalEarned += paid;
        emit Redeemed(voucher.payer, voucher.payee, voucher.signer, paid, upTo);
        return Skip.None;
    }
}
