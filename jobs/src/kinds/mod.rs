//! The kinds of jobs, one file each, and the list of them.

use crate::registry::Registry;

pub mod ai_reply;
pub mod cost_tally;
pub mod expire_keys;
pub mod handle_callback;
pub mod prune_history;
pub mod reap_workers;
pub mod send_message;

/// Every kind of this build.
pub fn registry() -> Registry {
    Registry::default()
        .register::<ai_reply::AiReply>()
        .register::<cost_tally::CostTally>()
        .register::<expire_keys::ExpireKeys>()
        .register::<handle_callback::HandleCallback>()
        .register::<prune_history::PruneHistory>()
        .register::<reap_workers::ReapWorkers>()
        .register::<send_message::SendMessage>()
}
