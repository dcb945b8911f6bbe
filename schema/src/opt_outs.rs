//! Who wants no more messages, over all accounts of an organisation.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::opt_outs;
use crate::{Conn, Result};

/// Somebody wants no more messages.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = opt_outs)]
pub struct NewOptOut<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// Who.
    pub wxid: &'a str,
    /// The word that was written, or `person`.
    pub reason: &'a str,
    /// The account that was written to.
    pub account_id: Option<Uuid>,
    /// The message.
    pub message_id: Option<Uuid>,
    /// The person of ours who noted it.
    pub created_by: Option<Uuid>,
}

/// Notes an opt-out. Returns false if there was one already.
pub async fn insert(conn: &mut Conn, opt_out: &NewOptOut<'_>) -> Result<bool> {
    let inserted =
        diesel::insert_into(opt_outs::table).values(opt_out).on_conflict_do_nothing().execute(conn).await?;
    Ok(inserted == 1)
}

/// Lifts an opt-out. Returns false if there was none.
pub async fn remove(conn: &mut Conn, organization: Uuid, wxid: &str) -> Result<bool> {
    Ok(diesel::delete(opt_outs::table.find((organization, wxid))).execute(conn).await? == 1)
}

/// An opt-out.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = opt_outs)]
pub struct OptOut {
    /// Who.
    pub wxid: String,
    /// The word that was written, or `person`.
    pub reason: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Returns those of `wxids` that want no more messages.
pub async fn of(conn: &mut Conn, organization: Uuid, wxids: &[&str]) -> Result<Vec<OptOut>> {
    Ok(opt_outs::table
        .filter(opt_outs::organization_id.eq(organization).and(opt_outs::wxid.eq_any(wxids)))
        .select(OptOut::as_select())
        .load(conn)
        .await?)
}
