//! Messages and sans-IO exchanges between client, provider and steward.
