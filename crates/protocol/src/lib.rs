//! Messages and sans-IO exchanges between client, provider and steward.

pub mod address;
pub mod answers;
pub mod hedging;
pub mod latency;
pub mod messages;
pub mod moment;
pub mod payment;
pub mod read_exchange;
pub mod routes;
pub mod store_exchange;
