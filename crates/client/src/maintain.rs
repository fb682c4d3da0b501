//! What keeps datasets healthy: single bounded steps that somebody repeats at their own pace.
