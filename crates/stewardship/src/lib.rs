//! Decides placement, audit verdicts, repairs and tiers.
