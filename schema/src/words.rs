//! Words that an answer of the model must not say, or not without a person.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::sensitive_words;
use crate::{Conn, Result};

/// Name of the index that a word that is there already runs into.
pub const WORD_KEY: &str = "sensitive_words_key";

/// A word, and what is done with an answer in which it stands.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = sensitive_words)]
pub struct Word {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// As it was entered.
    pub word: String,
    /// As it is compared; unique in the organisation.
    pub normalized: String,
    /// `block`, `review` or `mask`.
    pub action: String,
    /// Who entered it.
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Returns the organisation's words, newest first, older than `before`, all or those of one action.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    action: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Word>> {
    let mut query = sensitive_words::table
        .filter(sensitive_words::organization_id.eq(organization))
        .order(sensitive_words::id.desc())
        .limit(limit)
        .select(Word::as_select())
        .into_boxed();
    if let Some(action) = action {
        query = query.filter(sensitive_words::action.eq(action));
    }
    if let Some(before) = before {
        query = query.filter(sensitive_words::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns all words of the organisation, for checking texts.
pub async fn all(conn: &mut Conn, organization: Uuid) -> Result<Vec<Word>> {
    Ok(sensitive_words::table
        .filter(sensitive_words::organization_id.eq(organization))
        .order(sensitive_words::id)
        .select(Word::as_select())
        .load(conn)
        .await?)
}

/// Counts the organisation's words.
pub async fn count(conn: &mut Conn, organization: Uuid) -> Result<i64> {
    Ok(sensitive_words::table
        .filter(sensitive_words::organization_id.eq(organization))
        .count()
        .get_result(conn)
        .await?)
}

/// Returns those of the organisation's words that compare equal to one of `normalized`.
pub async fn known(conn: &mut Conn, organization: Uuid, normalized: &[&str]) -> Result<Vec<Word>> {
    Ok(sensitive_words::table
        .filter(sensitive_words::organization_id.eq(organization))
        .filter(sensitive_words::normalized.eq_any(normalized))
        .select(Word::as_select())
        .load(conn)
        .await?)
}

/// Adds words, except those that are there already. Returns the ids of the new ones.
pub async fn add(conn: &mut Conn, words: &[Word]) -> Result<Vec<Uuid>> {
    let mut added = Vec::new();
    // A statement has at most 65,535 parameters.
    for slice in words.chunks(1000) {
        let ids: Vec<Uuid> = diesel::insert_into(sensitive_words::table)
            .values(slice)
            .on_conflict((sensitive_words::organization_id, sensitive_words::normalized))
            .do_nothing()
            .returning(sensitive_words::id)
            .get_results(conn)
            .await?;
        added.extend(ids);
    }
    Ok(added)
}

/// Removes a word and returns it. None: the organisation has no such word.
pub async fn remove(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Word>> {
    let word = sensitive_words::table.find(id).filter(sensitive_words::organization_id.eq(organization));
    Ok(diesel::delete(word).returning(Word::as_returning()).get_result(conn).await.optional()?)
}
