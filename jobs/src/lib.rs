//! jobs
pub mod message;
pub mod outbound_url;
pub mod provider;
pub mod secret;
pub mod vault;
