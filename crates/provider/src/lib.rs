//! The storage provider's daemon.
