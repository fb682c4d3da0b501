//! The steward's memory: datasets, versions, segments, placements and jobs, in SQLite.
