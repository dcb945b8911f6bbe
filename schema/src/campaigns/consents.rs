//! What contacts have agreed to, and on what ground we believe it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::consents;
use crate::{Conn, Result};

/// A contact's consent to a purpose.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = consents)]
pub struct Consent {
    /// Who.
    pub contact_id: Uuid,
    /// To what.
    pub purpose: String,
    /// The tenant.
    pub organization_id: Uuid,
    /// On what ground we believe it.
    pub basis: String,
    /// When it was given.
    pub given_at: DateTime<Utc>,
    /// Since when it does not hold any more.
    pub withdrawn_at: Option<DateTime<Utc>>,
    /// The person of ours who noted it.
    pub recorded_by: Option<Uuid>,
}

/// Returns the consents of contacts, withdrawn ones too, in the order of their purposes.
pub async fn of(conn: &mut Conn, organization: Uuid, contacts: &[Uuid]) -> Result<Vec<Consent>> {
    Ok(consents::table
        .filter(consents::contact_id.eq_any(contacts).and(consents::organization_id.eq(organization)))
        .order((consents::contact_id, consents::purpose))
        .select(Consent::as_select())
        .load(conn)
        .await?)
}

/// Makes these the consents of a contact: those that are not among them are withdrawn, and kept with that.
pub async fn replace(conn: &mut Conn, organization: Uuid, contact: Uuid, given: &[Consent]) -> Result<()> {
    let purposes: Vec<&str> = given.iter().map(|consent| consent.purpose.as_str()).collect();
    diesel::update(consents::table)
        .filter(consents::contact_id.eq(contact).and(consents::organization_id.eq(organization)))
        .filter(consents::withdrawn_at.is_null().and(consents::purpose.ne_all(purposes)))
        .set(consents::withdrawn_at.eq(diesel::dsl::now))
        .execute(conn)
        .await?;
    give(conn, given).await
}

/// Notes consents; those that were known are replaced, withdrawn ones hold again.
pub async fn give(conn: &mut Conn, given: &[Consent]) -> Result<()> {
    if given.is_empty() {
        return Ok(());
    }
    diesel::insert_into(consents::table)
        .values(given)
        .on_conflict((consents::contact_id, consents::purpose))
        .do_update()
        .set((
            consents::basis.eq(excluded(consents::basis)),
            consents::given_at.eq(excluded(consents::given_at)),
            consents::withdrawn_at.eq(excluded(consents::withdrawn_at)),
            consents::recorded_by.eq(excluded(consents::recorded_by)),
            consents::recorded_at.eq(diesel::dsl::now),
        ))
        .execute(conn)
        .await?;
    Ok(())
}
