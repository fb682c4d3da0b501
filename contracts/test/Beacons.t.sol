// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BlockhashBeacon} from "../src/BlockhashBeacon.sol";
import {EmbeddedBeacon} from "../src/EmbeddedBeacon.sol";
import {EpochClock} from "../src/EpochClock.sol";
import {IRandomness} from "../src/interfaces/IRandomness.sol";
import {Check} from "./Check.sol";
import {vm} from "./Vm.sol";

/// @notice A chain of one block a second, whose epochs have a thousand.
abstract contract Chain is Check {
    uint64 internal constant GENESIS = 1_700_000_000;
    uint32 internal constant EPOCH = 1000;
    uint32 internal constant BLOCKS_MIN = 400;

    /// Goes to a second after genesis, with as many blocks as seconds.
    function go(uint256 second) internal {
        vm.warp(GENESIS + second);
        vm.roll(10_000 + second);
    }

    /// Time passes without blocks, but for the one that is looked from.
    function stand(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
        vm.roll(block.number + 1);
    }
}

contract EmbeddedBeaconTest is Chain {
    EmbeddedBeacon private beacon;

    function setUp() public {
        go(0);
        beacon = new EmbeddedBeacon(GENESIS, EPOCH, BLOCKS_MIN);
    }

    function test_the_seed_is_of_the_block_before_the_first_call() public {
        go(10);
        vm.setBlockhash(block.number - 1, keccak256("hash"));
        same(beacon.seed(0), bytes32(0), "none yet");
        holds(beacon.seal(), "sealed at once");
        bytes32 expected = keccak256(
            abi.encode("seedbank embedded beacon 1", block.chainid, address(beacon), uint32(0), keccak256("hash"))
        );
        same(beacon.seed(0), expected, "seed");
    }

    function test_a_seed_is_written_once() public {
        go(10);
        beacon.seal();
        bytes32 first = beacon.seed(0);
        for (uint256 second = 11; second < 1000; second += 53) {
            go(second);
            holds(beacon.seal(), "still sealed");
            same(beacon.seed(0), first, "unchanged");
        }
        go(1500);
        beacon.seal();
        same(beacon.seed(0), first, "unchanged by the next epoch's");
        holds(beacon.seed(1) != first, "another seed");
    }

    function test_an_epoch_without_a_seed_does_not_count() public {
        go(2500);
        beacon.seal();
        holds(!beacon.counts(0) && !beacon.counts(1), "nobody called in them");
        go(2899);
        holds(!beacon.counts(2), "too few blocks yet");
        go(2900);
        holds(beacon.counts(2), "enough blocks");
        go(9000);
        holds(beacon.counts(2), "for good");
    }

    /// The chain stands still soon after the seed; the first call after it goes on settles that nobody could prove.
    function test_an_epoch_in_which_the_chain_stood_still_does_not_count() public {
        go(10);
        beacon.seal();
        go(300);
        stand(2000);
        beacon.seal();
        holds(!beacon.counts(0), "290 blocks are too few");
        vm.roll(block.number + 10_000);
        holds(!beacon.counts(0), "and stay so");
    }

    function test_an_epoch_with_a_seed_at_its_very_end_does_not_count() public {
        go(999);
        beacon.seal();
        go(1000);
        beacon.seal();
        go(1999);
        holds(!beacon.counts(0), "one block to prove in");
        holds(beacon.counts(1), "the next one does");
    }

    function test_blocks_of_the_next_epoch_count_for_it_alone_once_somebody_called() public {
        go(700);
        beacon.seal();
        go(1050);
        beacon.seal();
        same(beacon.endedBy(0), block.number, "settled");
        go(1800);
        holds(!beacon.counts(0), "350 blocks");
        // Later calls change nothing of it.
        go(2100);
        beacon.seal();
        same(beacon.endedBy(0), 11_050, "still");
        holds(!beacon.counts(0), "still");
    }

    function test_before_the_first_epoch_there_is_nothing_to_seal() public {
        vm.warp(GENESIS - 1);
        vm.expectRevert(EpochClock.BeforeGenesis.selector);
        beacon.seal();
    }

    function test_clocks_need_a_beginning_and_a_length() public {
        vm.expectRevert(EpochClock.ClockSettings.selector);
        new EmbeddedBeacon(0, EPOCH, BLOCKS_MIN);
        vm.expectRevert(EpochClock.ClockSettings.selector);
        new EmbeddedBeacon(GENESIS, 0, BLOCKS_MIN);
    }

    /// Two beacons, two chains, two epochs: no seed serves twice.
    function test_seeds_of_equal_blocks_differ() public {
        EmbeddedBeacon twin = new EmbeddedBeacon(GENESIS, EPOCH, BLOCKS_MIN);
        go(10);
        vm.setBlockhash(block.number - 1, keccak256("hash"));
        beacon.seal();
        twin.seal();
        holds(beacon.seed(0) != twin.seed(0), "two contracts");
        vm.chainId(5);
        EmbeddedBeacon there = new EmbeddedBeacon(GENESIS, EPOCH, BLOCKS_MIN);
        there.seal();
        holds(beacon.seed(0) != there.seed(0), "two chains");
    }
}

contract BlockhashBeaconTest is Chain {
    uint32 private constant DELAY = 100;
    BlockhashBeacon private beacon;

    function setUp() public {
        go(0);
        beacon = new BlockhashBeacon(GENESIS, EPOCH, DELAY, BLOCKS_MIN);
    }

    function test_the_first_call_names_a_block_and_a_later_one_takes_its_hash() public {
        go(10);
        vm.expectEmit(address(beacon));
        emit BlockhashBeacon.DrawOpened(0, 10_110);
        holds(!beacon.seal(), "named");
        go(110);
        holds(!beacon.seal(), "the block itself is too early");
        same(beacon.seed(0), bytes32(0), "no seed");
        go(111);
        vm.setBlockhash(10_110, keccak256("hash"));
        holds(beacon.seal(), "sealed");
        bytes32 expected = keccak256(
            abi.encode("seedbank blockhash beacon 1", block.chainid, address(beacon), uint32(0), keccak256("hash"))
        );
        same(beacon.seed(0), expected, "seed");
    }

    /// Calls in between move nothing: else whoever calls could put the block off until it suits.
    function test_a_named_block_stays_named() public {
        go(10);
        beacon.seal();
        for (uint256 second = 11; second <= 110; second += 9) {
            go(second);
            holds(!beacon.seal(), "waiting");
        }
        go(366);
        vm.setBlockhash(10_110, keccak256("hash"));
        holds(beacon.seal(), "the last block that the chain remembers it in");
    }

    function test_after_256_blocks_another_block_is_named() public {
        go(10);
        beacon.seal();
        go(367);
        vm.expectEmit(address(beacon));
        emit BlockhashBeacon.DrawOpened(0, 10_467);
        holds(!beacon.seal(), "forgotten");
        same(beacon.seed(0), bytes32(0), "no seed from a hash that is zero");
        go(468);
        vm.setBlockhash(10_467, keccak256("second"));
        holds(beacon.seal(), "sealed by the second");
    }

    function test_a_seed_is_written_once() public {
        bytes32 first = sealedFrom(10);
        for (uint256 second = 112; second < 1000; second += 71) {
            go(second);
            holds(beacon.seal(), "still sealed");
            same(beacon.seed(0), first, "unchanged");
        }
        go(1500);
        beacon.seal();
        go(1601);
        beacon.seal();
        same(beacon.seed(0), first, "unchanged by the next epoch's");
        holds(beacon.seed(1) != 0 && beacon.seed(1) != first, "another seed");
    }

    /// A block named too late lies in the next epoch: it gives that one nothing.
    function test_a_draw_does_not_reach_into_the_next_epoch() public {
        go(950);
        beacon.seal();
        go(1060);
        holds(!beacon.seal(), "the next epoch names its own");
        same(beacon.seed(0), bytes32(0), "none");
        go(1161);
        holds(beacon.seal(), "sealed");
        holds(!beacon.counts(0), "never");
        holds(beacon.seed(1) != 0, "its own");
    }

    function test_an_epoch_counts_by_the_blocks_behind_its_seed() public {
        sealedFrom(10);
        go(510);
        holds(!beacon.counts(0), "too few");
        go(511);
        holds(beacon.counts(0), "enough");
    }

    function test_an_epoch_in_which_the_chain_stood_still_does_not_count() public {
        sealedFrom(10);
        go(300);
        stand(2000);
        beacon.seal();
        holds(!beacon.counts(0), "189 blocks are too few");
        vm.roll(block.number + 10_000);
        holds(!beacon.counts(0), "and stay so");
    }

    function test_the_delay_fits_into_what_a_chain_remembers() public {
        vm.expectRevert(EpochClock.ClockSettings.selector);
        new BlockhashBeacon(GENESIS, EPOCH, 0, BLOCKS_MIN);
        vm.expectRevert(EpochClock.ClockSettings.selector);
        new BlockhashBeacon(GENESIS, EPOCH, 256, BLOCKS_MIN);
        new BlockhashBeacon(GENESIS, EPOCH, 255, BLOCKS_MIN);
    }

    function sealedFrom(uint256 second) private returns (bytes32) {
        go(second);
        beacon.seal();
        go(second + DELAY + 1);
        vm.setBlockhash(block.number - 1, keccak256(abi.encode(second)));
        holds(beacon.seal(), "sealed");
        return beacon.seed(0);
    }
}

/// @notice Calls at any time; the chain runs, stands still and runs on.
contract BeaconUsers is Chain {
    EmbeddedBeacon public immutable embedded;
    BlockhashBeacon public immutable blockhashes;
    mapping(address beacon => mapping(uint32 epoch => bytes32)) private seen;
    mapping(address beacon => mapping(uint32 epoch => bool)) private counted;
    mapping(address beacon => mapping(uint32 epoch => uint256)) private sealedIn;
    /// The last block of each epoch that had one, as nobody on the chain can know.
    mapping(uint32 epoch => uint256) private lastBlock;
    string public complaint;

    constructor() {
        go(0);
        embedded = new EmbeddedBeacon(GENESIS, EPOCH, BLOCKS_MIN);
        blockhashes = new BlockhashBeacon(GENESIS, EPOCH, 70, BLOCKS_MIN);
    }

    function doRun(uint256 blocks) external {
        blocks %= 300;
        vm.warp(block.timestamp + blocks);
        vm.roll(block.number + blocks);
        observe();
    }

    function doStand(uint256 time) external {
        stand(time % 1500);
        observe();
    }

    function doSealEmbedded() external {
        holds(embedded.seal(), "an embedded seed needs one call");
        observe();
    }

    function doSealBlockhash() external {
        blockhashes.seal();
        observe();
    }

    function observe() private {
        uint32 now_ = embedded.currentEpoch();
        lastBlock[now_] = block.number;
        look(embedded, now_);
        look(blockhashes, now_);
    }

    function look(IRandomness beacon, uint32 now_) private {
        for (uint32 epoch = now_ < 2 ? 0 : now_ - 2; epoch <= now_; ++epoch) {
            bytes32 seed = beacon.seed(epoch);
            bytes32 before = seen[address(beacon)][epoch];
            if (before != 0 && seed != before) complaint = "a seed changed";
            if (before == 0 && seed != 0 && epoch != now_) complaint = "a seed outside its epoch";
            if (before == 0 && seed != 0) sealedIn[address(beacon)][epoch] = block.number;
            seen[address(beacon)][epoch] = seed;
            bool counts = beacon.counts(epoch);
            if (counts && seed == 0) complaint = "counts without a seed";
            if (counted[address(beacon)][epoch] && !counts) complaint = "counted and then not";
            counted[address(beacon)][epoch] = counts;
            // An epoch that ran as long as it should is never taken from who proved in it.
            if (
                seed != 0 && epoch < now_ && !counts
                    && lastBlock[epoch] >= sealedIn[address(beacon)][epoch] + BLOCKS_MIN
            ) {
                complaint = "a good epoch does not count";
            }
        }
    }
}

contract BeaconInvariants is Check {
    BeaconUsers private users;

    function setUp() public {
        users = new BeaconUsers();
    }

    function targetContracts() public view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(users);
    }

    function invariant_nobody_saw_what_may_never_happen() public view {
        holds(bytes(users.complaint()).length == 0, users.complaint());
    }
}
