// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {AuditAnchor} from "../src/AuditAnchor.sol";
import {Blake3Paths} from "../src/Blake3Paths.sol";
import {BlockhashBeacon} from "../src/BlockhashBeacon.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {Directory} from "../src/Directory.sol";
import {EmbeddedBeacon} from "../src/EmbeddedBeacon.sol";
import {RetrievalChannels} from "../src/RetrievalChannels.sol";
import {StorageMarket} from "../src/StorageMarket.sol";
import {TestToken} from "../src/TestToken.sol";
import {IRandomness} from "../src/interfaces/IRandomness.sol";
import {Vm, vm} from "../test/Vm.sol";

/// @title Deploys everything in the order of README.md.
/// @notice What `seedbank chain deploy` does, for keys that are in no file: `forge script script/Deploy.s.sol --rpc-url URL --ledger
///         --broadcast --legacy`, or `--account NAME`. Without TOKEN in the environment it makes a worthless token; with BEACON_DELAY it
///         takes the beacon for many block producers. The other values have the same defaults as there;
///         a token without `decimals()` needs QUESTION_BOND.
contract Deploy {
    function run() external returns (Directory directory) {
        vm.startBroadcast();
        address token = vm.envOr("TOKEN", address(0));
        if (token == address(0)) token = address(new TestToken());
        uint64 genesis = uint64(vm.envOr("GENESIS", block.timestamp));
        uint32 epochSeconds = uint32(vm.envOr("EPOCH_SECONDS", 1 days));
        uint32 blocksMin = uint32(vm.envOr("BLOCKS_MIN", 720));
        uint32 delay = uint32(vm.envOr("BEACON_DELAY", 0));
        IRandomness randomness = delay == 0
            ? IRandomness(new EmbeddedBeacon(genesis, epochSeconds, blocksMin))
            : IRandomness(new BlockhashBeacon(genesis, epochSeconds, delay, blocksMin));
        uint256 bond = vm.envOr("QUESTION_BOND", uint256(0));
        if (bond == 0) bond = 10 ** IERC20Metadata(token).decimals();
        StorageMarket.Parameters memory parameters = StorageMarket.Parameters({
            token: IERC20(token),
            randomness: randomness,
            chunkPaths: new Blake3Paths(),
            challenges: uint32(vm.envOr("CHALLENGES", 21)),
            slashEpochs: uint32(vm.envOr("SLASH_EPOCHS", 2)),
            stakeEpochs: uint32(vm.envOr("STAKE_EPOCHS", 14)),
            missesMax: uint32(vm.envOr("MISSES_MAX", 5)),
            noticeEpochs: uint32(vm.envOr("NOTICE_EPOCHS", 14)),
            bountyBasisPoints: uint32(vm.envOr("BOUNTY_BASIS_POINTS", 1000)),
            questionBond: SafeCast.toUint128(bond)
        });
        StorageMarket market = new StorageMarket(parameters);
        string[] memory names = new string[](8);
        address[] memory contracts = new address[](8);
        (names[0], contracts[0]) = ("Token", token);
        (names[1], contracts[1]) = ("Randomness", address(randomness));
        (names[2], contracts[2]) = ("ChunkPaths", address(parameters.chunkPaths));
        (names[3], contracts[3]) = ("StorageMarket", address(market));
        (names[4], contracts[4]) = ("ProviderRegistry", address(market.registry()));
        (names[5], contracts[5]) =
        ("RetrievalChannels", address(new RetrievalChannels(IERC20(token), uint64(vm.envOr("EXIT_SECONDS", 3 days)))));
        (names[6], contracts[6]) = ("DatasetRegistry", address(new DatasetRegistry()));
        (names[7], contracts[7]) = ("AuditAnchor", address(new AuditAnchor()));
        directory = new Directory(msg.sender, names, contracts);
        vm.stopBroadcast();
    }
}
