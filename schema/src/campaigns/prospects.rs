//! What a dry run must know of people who are in no plan yet, of the accounts that would write to them, and of what that
//! would cost: many at a time, one statement per subject, nothing locked.

use std::collections::HashMap;
use std::sync::LazyLock;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Nullable, Numeric, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::candidates::{CANDIDATES, Candidate};
use super::facts::{FACTS, Facts};
use crate::{Conn, Result};

/// [`CANDIDATES`] for many at once, and besides what plans those people have been in. Of each by itself that is looked up account by
/// account; here it is asked once for all of them.
static CANDIDATES_AT_ONCE: LazyLock<[String; 2]> = LazyLock::new(|| {
    const BEFORE: &str = "LEFT JOIN LATERAL (\n    SELECT ";
    const AFTER: &str = "\n      AND same.wxid = k.wxid\n) was ON true\n";
    let ends = CANDIDATES.find(BEFORE).zip(CANDIDATES.find(AFTER)).filter(|(from, to)| from < to);
    let Some((from, to)) = ends else { return [CANDIDATES.to_owned(), String::new()] };
    let who = format!("{}{}", &CANDIDATES[..from], &CANDIDATES[to + AFTER.len()..])
        .replace("COALESCE(was.in_plan, false)", "false")
        .replace("COALESCE(was.in_other_plan, false)", "false")
        .replace("COALESCE(was.times, 0)", "0::bigint")
        .replace("was.ended_at", "NULL::timestamptz AS ended_at");
    let was = &CANDIDATES[from + BEFORE.len()..to];
    [who, format!("SELECT same.wxid, {was} AND same.wxid = ANY($2) GROUP BY same.wxid")]
});

/// What plans a person has been in, under any account.
#[derive(QueryableByName)]
struct Was {
    #[diesel(sql_type = Text)]
    wxid: String,
    #[diesel(sql_type = Bool)]
    in_plan: bool,
    #[diesel(sql_type = Bool)]
    in_other_plan: bool,
    #[diesel(sql_type = BigInt)]
    times: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
}

/// Reads what decides whether a plan takes contacts of the organisation, as [`super::candidates::look_at`] does for a page.
pub async fn candidates(
    conn: &mut Conn,
    organization: Uuid,
    contacts: &[Uuid],
    sop: Uuid,
    purpose: Option<&str>,
) -> Result<Vec<Candidate>> {
    let [who, was] = &*CANDIDATES_AT_ONCE;
    // Planned each time, for as many as there are.
    let mut candidates: Vec<Candidate> = sql_query(who.as_str())
        .bind::<SqlUuid, _>(organization)
        .bind::<Array<SqlUuid>, _>(contacts)
        .bind::<SqlUuid, _>(sop)
        .bind::<Nullable<Text>, _>(purpose)
        .load(conn)
        .await?;
    let people: Vec<&str> = candidates.iter().map(|candidate| candidate.wxid.as_str()).collect();
    let was: Vec<Was> = sql_query(was.as_str())
        .bind::<SqlUuid, _>(organization)
        .bind::<Array<Text>, _>(people)
        .bind::<SqlUuid, _>(sop)
        .load(conn)
        .await?;
    let was: HashMap<String, Was> = was.into_iter().map(|was| (was.wxid.clone(), was)).collect();
    for candidate in &mut candidates {
        if let Some(was) = was.get(&candidate.wxid) {
            (candidate.in_plan, candidate.in_other_plan) = (was.in_plan, was.in_other_plan);
            (candidate.times, candidate.ended_at) = (was.times, was.ended_at);
        }
    }
    Ok(candidates)
}

/// What is known around somebody, were they in a plan.
#[derive(Debug, Clone, QueryableByName)]
pub struct Known {
    /// The contact.
    #[diesel(sql_type = SqlUuid)]
    pub contact_id: Uuid,
    /// The same that is known of an enrollment, but for the organisation's calendars, which are the same for all.
    #[diesel(embed)]
    pub facts: Facts,
}

/// [`FACTS`] of contacts as if they were enrolled.
static FACTS_OF_CONTACTS: LazyLock<String> = LazyLock::new(|| {
    let facts = FACTS
        .replacen("SELECT ", "SELECT k.id AS contact_id, ", 1)
        .replace(
            "FROM sop_enrollments e\n",
            "FROM contacts k CROSS JOIN LATERAL (
                SELECT k.id AS contact_id, k.account_id, k.organization_id, $3::uuid AS sop_id) e\n",
        )
        .replace("JOIN contacts k ON k.id = e.contact_id\n", "")
        .replace("WHERE e.id = $1", "WHERE k.id = ANY($1) AND k.organization_id = $2");
    let calendars = facts.find("(SELECT jsonb_object_agg(").zip(facts.find(" AS calendars"));
    let Some((from, to)) = calendars.filter(|(from, to)| from < to) else { return facts };
    format!("{}NULL::jsonb{}", &facts[..from], &facts[to..])
});

/// Reads what would be known around contacts of the organisation, were they in a plan.
pub async fn facts(conn: &mut Conn, organization: Uuid, contacts: &[Uuid], sop: Uuid) -> Result<Vec<Known>> {
    Ok(sql_query(FACTS_OF_CONTACTS.as_str())
        .bind::<Array<SqlUuid>, _>(contacts)
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(sop)
        .load(conn)
        .await?)
}

/// What campaigns have sent to somebody.
#[derive(Debug, Clone, QueryableByName)]
pub struct Had {
    /// The contact.
    #[diesel(sql_type = SqlUuid)]
    pub contact_id: Uuid,
    /// Since the moment that was asked for.
    #[diesel(sql_type = Nullable<Array<Timestamptz>>)]
    pub recent: Option<Vec<DateTime<Utc>>>,
    /// Last.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last: Option<DateTime<Utc>>,
    /// Since it answered.
    #[diesel(sql_type = BigInt)]
    pub unanswered: i64,
}

/// Counts what campaigns have sent to contacts, given with when they answered last: the same that
/// [`super::facts::counts`] counts for one.
pub async fn had(
    conn: &mut Conn,
    contacts: &[Uuid],
    answered: &[Option<DateTime<Utc>>],
    week: DateTime<Utc>,
) -> Result<Vec<Had>> {
    Ok(sql_query(
        "SELECT w.contact_id, x.recent, x.last, x.unanswered
         FROM unnest($1, $2) AS w (contact_id, answered) CROSS JOIN LATERAL (
             SELECT array_agg(s.sent_at) FILTER (WHERE s.sent_at >= $3) AS recent, max(s.sent_at) AS last,
                 count(*) FILTER (WHERE s.sent_at > COALESCE(w.answered, '-infinity')) AS unanswered
             FROM sop_steps s WHERE s.contact_id = w.contact_id AND s.sent_at IS NOT NULL) x
         WHERE x.last IS NOT NULL",
    )
    .bind::<Array<SqlUuid>, _>(contacts)
    .bind::<Array<Nullable<Timestamptz>>, _>(answered)
    .bind::<Timestamptz, _>(week)
    .load(conn)
    .await?)
}

/// An account that would write.
#[derive(Debug, Clone, QueryableByName)]
pub struct Sender {
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Whose it is, of our people.
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub messages_per_minute: i32,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub min_gap_ms: i32,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub messages_per_day: i32,
    /// Limit.
    #[diesel(sql_type = Integer)]
    pub recipients_per_minute: i32,
    /// Limit, of its token.
    #[diesel(sql_type = Integer)]
    pub api_calls_per_hour: i32,
    /// The token; the same for all that have none of their own.
    #[diesel(sql_type = Text)]
    pub token_key: String,
    /// Campaign messages that it has sent today.
    #[diesel(sql_type = BigInt)]
    pub sent: i64,
    /// Campaign messages that wait in its lane.
    #[diesel(sql_type = BigInt)]
    pub waiting: i64,
    /// Contacts who never answered to whom it has written today, or for whom a message waits.
    #[diesel(sql_type = BigInt)]
    pub new_contacts: i64,
}

/// Returns accounts of the organisation, with what they have sent since the day began.
pub async fn senders(
    conn: &mut Conn,
    organization: Uuid,
    accounts: &[Uuid],
    day: DateTime<Utc>,
) -> Result<Vec<Sender>> {
    Ok(sql_query(
        "SELECT a.id, a.user_id, a.messages_per_minute, a.min_gap_ms, a.messages_per_day, a.recipients_per_minute,
             a.api_calls_per_hour, COALESCE(a.token_key, '') AS token_key,
             (SELECT count(*) FROM sop_steps s WHERE s.account_id = a.id AND s.sent_at >= $3) AS sent,
             (SELECT count(*) FROM sop_steps s WHERE s.account_id = a.id AND s.state = 'due') AS waiting,
             (SELECT count(*) FROM (
                     SELECT s.contact_id FROM sop_steps s WHERE s.account_id = a.id AND s.sent_at >= $3
                     UNION SELECT s.contact_id FROM sop_steps s WHERE s.account_id = a.id AND s.state = 'due') w
                 JOIN contacts k ON k.id = w.contact_id
                 WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.account_id = a.id AND c.peer_wxid = k.wxid
                     AND c.last_inbound_at IS NOT NULL)) AS new_contacts
         FROM wechat_accounts a WHERE a.id = ANY($1) AND a.organization_id = $2 ORDER BY a.id",
    )
    .bind::<Array<SqlUuid>, _>(accounts)
    .bind::<SqlUuid, _>(organization)
    .bind::<Timestamptz, _>(day)
    .load(conn)
    .await?)
}

/// Calls of an account in ten minutes.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct Calls {
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// The end of the ten minutes, by the true clock.
    #[diesel(sql_type = Timestamptz)]
    pub until: DateTime<Utc>,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub calls: i64,
}

/// Returns what accounts have sent in the last 24 hours, whoever it was for, oldest first.
pub async fn calls(conn: &mut Conn, accounts: &[Uuid]) -> Result<Vec<Calls>> {
    Ok(sql_query(
        "SELECT s.account_id, date_bin('10 minutes', s.window_at, 'epoch') + interval '10 minutes' AS until,
             count(*) AS calls
         FROM unnest($1) AS w (id) JOIN sends s ON s.account_id = w.id AND s.counts
             AND s.window_at > (SELECT clock_timestamp()) - interval '1 day'
         GROUP BY 1, 2 ORDER BY 2",
    )
    .bind::<Array<SqlUuid>, _>(accounts)
    .load(conn)
    .await?)
}

/// What a workflow's runs have cost.
#[derive(Debug, Clone, QueryableByName)]
pub struct Cost {
    /// The name that plans use.
    #[diesel(sql_type = Text)]
    pub alias: String,
    /// What is reserved for a run.
    #[diesel(sql_type = Numeric)]
    pub reserve_yuan: BigDecimal,
    /// Runs of the last 30 days whose cost is known, the newest 500 at most.
    #[diesel(sql_type = BigInt)]
    pub runs: i64,
    /// What one of them has cost on the average.
    #[diesel(sql_type = Nullable<Numeric>)]
    pub mean_yuan: Option<BigDecimal>,
}

/// Returns what runs of the organisation's workflows have cost.
pub async fn costs(conn: &mut Conn, organization: Uuid, aliases: &[String]) -> Result<Vec<Cost>> {
    Ok(sql_query(
        "SELECT w.alias, w.reserve_yuan, count(l.yuan) AS runs, round(avg(l.yuan), 10) AS mean_yuan
         FROM ai_workflows w
         LEFT JOIN LATERAL (
             SELECT r.id FROM ai_runs r WHERE r.key_hash = w.key_hash
               AND r.started_at > (SELECT clock_timestamp()) - interval '30 days' AND r.workflow_id = w.id
             ORDER BY r.started_at DESC LIMIT 500
         ) r ON true
         LEFT JOIN LATERAL (SELECT sum(c.calculated_cost) AS yuan FROM cost_ledgers c WHERE c.run_id = r.id) l ON true
         WHERE w.organization_id = $1 AND w.alias = ANY($2) AND w.deleted_at IS NULL
         GROUP BY w.id, w.alias, w.reserve_yuan",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Array<Text>, _>(aliases)
    .load(conn)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_of_contacts_is_what_is_read_of_enrollments() {
        let facts = FACTS_OF_CONTACTS.as_str();
        assert!(
            facts.contains("$3::uuid AS sop_id") && facts.contains("NULL::jsonb AS calendars"),
            "{facts}"
        );
        assert!(!facts.contains("sop_enrollments") && !facts.contains("e.id"), "{facts}");
        assert_eq!(facts.matches("contacts k").count(), 1, "{facts}");
    }

    #[test]
    fn what_is_asked_of_many_is_what_is_asked_of_each() {
        let [who, was] = &*CANDIDATES_AT_ONCE;
        assert!(!who.contains("was") && who.ends_with("ORDER BY k.id"), "{who}");
        assert!(was.starts_with("SELECT same.wxid, bool_or(") && was.contains("ended_at"), "{was}");
        assert!(
            was.contains("o.organization_id = $1") && !was.contains("k.") && !was.contains("$4"),
            "{was}"
        );
    }
}
