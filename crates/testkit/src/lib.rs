//! In-memory ports and fixtures for tests.
