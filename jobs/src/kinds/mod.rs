//! The kinds of jobs, one file each, and the list of them.

use crate::registry::Registry;

pub mod ai_reply;
pub mod check_calendars;
pub mod check_material;
pub mod check_online;
pub mod check_risk;
pub mod check_silence;
pub mod cost_tally;
pub mod download_media;
pub mod each_account;
pub mod expire_keys;
pub mod handle_callback;
pub mod index_messages;
pub mod prune_history;
pub mod prune_media;
pub mod reap_workers;
pub mod roll_up_costs;
pub mod send_message;
pub mod settle_runs;
pub mod sop_enroll;
pub mod sop_step;
pub mod sop_write;
pub mod sync_contacts;
pub mod sync_labels;

/// Every kind of this build.
pub fn registry() -> Registry {
    Registry::default()
        .register::<ai_reply::AiReply>()
        .register::<check_calendars::CheckCalendars>()
        .register::<check_material::CheckMaterial>()
        .register::<check_online::CheckOnline>()
        .register::<check_risk::CheckRisk>()
        .register::<check_silence::CheckSilence>()
        .register::<cost_tally::CostTally>()
        .register::<download_media::DownloadMedia>()
        .register::<each_account::EachAccount>()
        .register::<expire_keys::ExpireKeys>()
        .register::<handle_callback::HandleCallback>()
        .register::<index_messages::IndexMessages>()
        .register::<prune_history::PruneHistory>()
        .register::<prune_media::PruneMedia>()
        .register::<reap_workers::ReapWorkers>()
        .register::<roll_up_costs::RollUpCosts>()
        .register::<send_message::SendMessage>()
        .register::<settle_runs::SettleRuns>()
        .register::<sop_enroll::SopEnroll>()
        .register::<sop_step::SopStep>()
        .register::<sop_write::SopWrite>()
        .register::<sync_contacts::SyncContacts>()
        .register::<sync_labels::SyncLabels>()
}
