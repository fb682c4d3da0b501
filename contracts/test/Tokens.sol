// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "../src/TestToken.sol";

/// @notice Takes one hundredth of every transfer.
contract FeeToken is TestToken {
    function _update(address from, address to, uint256 value) internal override {
        if (from == address(0) || to == address(0)) return super._update(from, to, value);
        uint256 fee = value / 100;
        super._update(from, to, value - fee);
        super._update(from, address(0), fee);
    }
}

/// @notice Can be stopped, for everyone or for one account.
contract StoppingToken is TestToken {
    bool public stopped;
    address public blocked;

    error Stopped();

    function stop(bool stopped_) external {
        stopped = stopped_;
    }

    function blockAccount(address account) external {
        blocked = account;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (stopped || to == blocked) revert Stopped();
        super._update(from, to, value);
    }
}

/// @notice Says false instead of reverting.
contract FalseToken is TestToken {
    bool public refuses;

    function refuse(bool refuses_) external {
        refuses = refuses_;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return refuses ? false : super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return refuses ? false : super.transferFrom(from, to, value);
    }
}

/// @notice Answers nothing at all, as some old and much used tokens do.
contract SilentToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function approve(address spender, uint256 value) external {
        allowance[msg.sender][spender] = value;
    }

    function transfer(address to, uint256 value) external {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
    }

    function transferFrom(address from, address to, uint256 value) external {
        allowance[from][msg.sender] -= value;
        balanceOf[from] -= value;
        balanceOf[to] += value;
    }
}

/// @notice Calls somebody in the middle of every transfer, before anything moved.
contract CallingToken is TestToken {
    address private target;
    bytes private data;
    bytes public refusal;
    bool public called;

    function callOnTransfer(address target_, bytes calldata data_) external {
        target = target_;
        data = data_;
        called = false;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (target != address(0)) {
            address target_ = target;
            target = address(0);
            (bool done, bytes memory answer) = target_.call(data);
            called = done;
            refusal = answer;
        }
        super._update(from, to, value);
    }
}
