//! For whom a dry run is.

use entropy_schema::campaigns::plans::Plan;
use entropy_schema::campaigns::prospects;
use entropy_schema::contacts::Contact;
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use crate::sop::config::WorkflowConfig;
use crate::sop::config::rules::AudienceKind;

/// Returns whom a plan is meant for, in the order of their ids, `limit` at most: whoever it names, or has one of its tags, or
/// everybody where it says so or has a filter. Nobody, where people are only brought in one by one or by events.
///
/// Whether the plan takes them is another question, and so is its filter.
pub(super) async fn recipients(
    conn: &mut Conn,
    plan: &Plan,
    config: &WorkflowConfig,
    limit: i64,
) -> Result<Vec<Uuid>> {
    if plan.target_ids.is_empty() && !plan.everyone && config.audience.filter.is_none() {
        return Ok(Vec::new());
    }
    let kind = match config.audience.kind {
        AudienceKind::Friend => "friend",
        AudienceKind::Group => "group",
    };
    prospects::targets(conn, plan, kind, limit).await
}

/// Tells whether a contact is one of those whom a plan names. A plan that names nobody is for whomever is brought in.
pub fn is_meant_for(plan: &Plan, contact: &Contact) -> bool {
    match plan.target_type.as_str() {
        _ if plan.target_ids.is_empty() => true,
        "tag" => contact.tags.iter().any(|tag| plan.target_ids.contains(tag)),
        _ => plan.target_ids.contains(&contact.id.to_string()),
    }
}
