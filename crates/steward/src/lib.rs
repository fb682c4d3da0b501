//! The owner's daemon: places, repairs, renews and publishes.
