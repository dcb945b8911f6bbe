//! What left, when, to whom, with which outcome: the unknown ones first.

use chrono::{DateTime, Utc};
use entropy_schema::views::sends::{self, Filter, Part, Send};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::jobs::storable;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::page::{Page, bad_cursor, decode, encode, limit_of};
use crate::problem::ApiError;

/// Where a send stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum SendState {
    /// The call is under way.
    Sending,
    /// The provider has accepted it.
    Sent,
    /// It was refused, or surely did not leave.
    Failed,
    /// Nobody can know.
    Unknown,
}

impl SendState {
    fn as_str(self) -> &'static str {
        match self {
            SendState::Sending => "sending",
            SendState::Sent => "sent",
            SendState::Failed => "failed",
            SendState::Unknown => "unknown",
        }
    }
}

/// One call that may have left the machine.
#[derive(Debug, Object)]
struct SendView {
    id: Uuid,
    job_id: Uuid,
    attempt: i16,
    account_id: Uuid,
    to_wxid: String,
    message_kind: String,
    /// `sending`, `sent`, `failed` or `unknown`.
    state: String,
    /// Nobody knows the outcome, and nobody has decided: see `/jobs/{job_id}/resolve`.
    needs_decision: bool,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    /// The provider's ids, as strings: JavaScript cannot count that far.
    msg_id: Option<String>,
    new_msg_id: Option<String>,
    create_time: Option<String>,
    error_class: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    /// How an unknown outcome was decided: `sent`, `failed`, `resend` or `drop`.
    resolved_as: Option<String>,
    /// Who decided; null: the caller's policy did.
    resolved_by: Option<Uuid>,
    resolved_at: Option<DateTime<Utc>>,
}

/// The send record.
pub(super) struct Sends;

#[OpenApi(tag = "Tag::Sends")]
impl Sends {
    /// Lists sends
    ///
    /// First those whose outcome waits for a person's decision, newest first; then all others, newest first.
    #[oai(path = "/sends", method = "get", operation_id = "list_sends")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only in this state.
        #[oai(name = "state")]
        send_state: Query<Option<SendState>>,
        /// Only from this account.
        account_id: Query<Option<Uuid>>,
        /// Only of this job.
        job_id: Query<Option<Uuid>>,
        /// Only to this recipient.
        to_wxid: Query<Option<String>>,
        /// Only begun at this time or later.
        from: Query<Option<DateTime<Utc>>>,
        /// Only begun before this time.
        to: Query<Option<DateTime<Utc>>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<SendView>>, ApiError> {
        let limit = limit_of(limit.0)?;
        let (part, before) = place(cursor.0.as_deref())?;
        let filter = Filter {
            state: send_state.0.map(|state| state.as_str().to_owned()),
            account_id: account_id.0,
            job_id: job_id.0,
            to_wxid: to_wxid.0,
            from: from.0.map(storable),
            to: to.0.map(storable),
        };
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let mut rows: Vec<(Part, Send)> = Vec::new();
        let mut rest_before = before;
        // One more than asked for tells whether there is a next page.
        let mut missing = limit + 1;
        if part == Part::Open {
            rest_before = None;
            if matches!(send_state.0, None | Some(SendState::Unknown)) {
                let open = sends::list(&mut conn, organization, Part::Open, &filter, before, missing).await?;
                missing -= i64::try_from(open.len()).unwrap_or(missing);
                rows.extend(open.into_iter().map(|send| (Part::Open, send)));
            }
        }
        if missing > 0 {
            let rest =
                sends::list(&mut conn, organization, Part::Rest, &filter, rest_before, missing).await?;
            rows.extend(rest.into_iter().map(|send| (Part::Rest, send)));
        }
        let asked = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked;
        rows.truncate(asked);
        let next_cursor = rows.last().filter(|_| more).map(|(part, send)| cursor_after(*part, send.id));
        Ok(Json(Page { items: rows.into_iter().map(|(_, send)| view(send)).collect(), next_cursor }))
    }
}

fn cursor_after(part: Part, id: Uuid) -> String {
    let part = match part {
        Part::Open => "open",
        Part::Rest => "rest",
    };
    encode(&format!("{part}:{id}"))
}

fn place(cursor: Option<&str>) -> Result<(Part, Option<Uuid>), ApiError> {
    let Some(cursor) = cursor else { return Ok((Part::Open, None)) };
    let text = decode(cursor)?;
    let (part, id) = text.split_once(':').ok_or_else(bad_cursor)?;
    let part = match part {
        "open" => Part::Open,
        "rest" => Part::Rest,
        _ => return Err(bad_cursor()),
    };
    Ok((part, Some(id.parse().map_err(|_| bad_cursor())?)))
}

fn view(send: Send) -> SendView {
    SendView {
        id: send.id,
        job_id: send.job_id,
        attempt: send.attempt,
        account_id: send.account_id,
        to_wxid: send.to_wxid,
        message_kind: send.message_kind,
        needs_decision: send.state == "unknown" && send.resolved_at.is_none(),
        state: send.state,
        started_at: send.started_at,
        finished_at: send.finished_at,
        msg_id: send.msg_id,
        new_msg_id: send.new_msg_id,
        create_time: send.create_time.map(|time| time.to_string()),
        error_class: send.error_class,
        error_code: send.error_code,
        error_message: send.error_message,
        resolved_as: send.resolved_as,
        resolved_by: send.resolved_by,
        resolved_at: send.resolved_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_part_and_place() {
        let id = Uuid::now_v7();
        for part in [Part::Open, Part::Rest] {
            assert_eq!(place(Some(&cursor_after(part, id))).ok(), Some((part, Some(id))));
        }
        assert_eq!(place(None).ok(), Some((Part::Open, None)));
        assert!(place(Some(&encode("else:1"))).is_err());
    }
}
