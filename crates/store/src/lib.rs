//! Keeps fragments on a provider's disks and finds rot before a reader does.
