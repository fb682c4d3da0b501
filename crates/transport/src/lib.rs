//! Drives protocol exchanges over real connections.
