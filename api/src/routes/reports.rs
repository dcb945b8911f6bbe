//! What became of conversations, counted by account.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use entropy_schema::{reports, settings};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::span::{self, Range};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::problem::ApiError;

/// Messages that were sent, by who wrote them.
#[derive(Debug, Default, Object)]
struct SentByView {
    /// Typed on the phone.
    phone: i64,
    /// Sent by people over the API.
    person: i64,
    /// Written by a model.
    ai: i64,
    /// Sent by a procedure.
    sop: i64,
}

/// What became of the conversations of an account.
#[derive(Debug, Default, Object)]
struct AccountConversationsView {
    /// Null in the sum over all accounts.
    account_id: Option<Uuid>,
    /// Messages from customers.
    received: i64,
    sent: SentByView,
    /// Turns: what a customer wrote in a row.
    turns: i64,
    /// Turns that a model answered.
    answered_by_ai: i64,
    /// `answered_by_ai` of `turns`, from 0 to 1; null if there was no turn.
    ai_share: Option<f64>,
    /// Seconds from a turn's first message to the first part of its answer by a model: half were quicker.
    first_answer_median_s: Option<f64>,
    /// The same: nine in ten were quicker.
    first_answer_p90_s: Option<f64>,
    /// Turns that went to a person.
    handoffs: i64,
    /// People who opted out.
    opt_outs: i64,
}

/// What became of conversations.
#[derive(Debug, Object)]
struct ConversationsReportView {
    /// By account; those in which nothing happened are left out.
    items: Vec<AccountConversationsView>,
    /// Over all accounts.
    total: AccountConversationsView,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// The zone of the days.
    timezone: String,
}

/// Reports.
pub(super) struct Reports;

#[OpenApi(tag = "Tag::Costs")]
impl Reports {
    /// Counts what became of conversations
    ///
    /// By account: messages received and sent, the share of turns that a model answered and how soon, handoffs and opt-outs.
    #[oai(path = "/reports/conversations", method = "get", operation_id = "report_conversations")]
    async fn conversations(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// A day, `2026-11-01`, which begins in the organisation's zone, or a moment; 29 days before today if not given.
        from: Query<Option<String>>,
        /// A day, which counts to its end, or a moment, exclusive; today if not given. At most 92 days after `from`.
        to: Query<Option<String>>,
    ) -> Result<Json<ConversationsReportView>, ApiError> {
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let chosen = settings::organization(&mut conn, caller.organization_id).await?;
        let range = Range::read(from.0.as_deref(), to.0.as_deref(), now, &chosen.timezone, span::QUARTER)?;
        let (organization, begin, end) = (caller.organization_id, range.from, range.to);
        let mut accounts = BTreeMap::<Option<Uuid>, AccountConversationsView>::new();
        for row in reports::messages(&mut conn, organization, begin, end).await? {
            let view = accounts.entry(row.account_id).or_default();
            view.received = row.received;
            view.sent = SentByView { phone: row.phone, person: row.person, ai: row.ai, sop: row.sop };
        }
        for row in reports::turns(&mut conn, organization, begin, end).await? {
            let view = accounts.entry(row.account_id).or_default();
            (view.turns, view.answered_by_ai, view.handoffs) = (row.turns, row.answered, row.handed_off);
            // Counts are far below 2^53.
            view.ai_share = (row.turns > 0).then(|| row.answered as f64 / row.turns as f64);
            (view.first_answer_median_s, view.first_answer_p90_s) = (row.median_s, row.p90_s);
        }
        for row in reports::opt_outs(&mut conn, organization, begin, end).await? {
            accounts.entry(row.account_id).or_default().opt_outs = row.opt_outs;
        }
        let total = accounts.remove(&None).unwrap_or_default();
        let items = accounts
            .into_iter()
            .map(|(account_id, view)| AccountConversationsView { account_id, ..view })
            .collect();
        let timezone = range.zone.to_string();
        Ok(Json(ConversationsReportView { items, total, from: begin, to: end, timezone }))
    }
}
