//! Plans of campaigns and their versions, as they are shown.

use chrono::{DateTime, Utc};
use entropy_jobs::campaign::life::Status;
use entropy_schema::campaigns::plans::{Listed, Plan};
use entropy_schema::campaigns::versions::{Summary, Version};
use poem_openapi::{Enum, Object};
use serde_json::Value;
use uuid::Uuid;

use super::sop::FindingView;

/// Of whom `target_ids` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum TargetType {
    /// Contacts that are people, by id.
    Friend,
    /// Contacts that are groups, by id.
    Group,
    /// Contacts with one of these tags.
    Tag,
}

impl TargetType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            TargetType::Friend => "friend",
            TargetType::Group => "group",
            TargetType::Tag => "tag",
        }
    }

    pub(super) fn of(stored: &str) -> TargetType {
        match stored {
            "group" => TargetType::Group,
            "tag" => TargetType::Tag,
            _ => TargetType::Friend,
        }
    }
}

/// Where a plan's life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum PlanStatus {
    /// It is being written.
    Draft,
    /// It waits for its approval.
    InReview,
    /// It may be started.
    Approved,
    /// People enter it, and it writes to them.
    Running,
    /// Nobody enters it, and nothing is sent, until it is resumed.
    Paused,
    /// It has ended.
    Stopped,
    /// It is kept for the record.
    Archived,
}

impl PlanStatus {
    pub(super) fn stored(self) -> Status {
        match self {
            PlanStatus::Draft => Status::Draft,
            PlanStatus::InReview => Status::InReview,
            PlanStatus::Approved => Status::Approved,
            PlanStatus::Running => Status::Running,
            PlanStatus::Paused => Status::Paused,
            PlanStatus::Stopped => Status::Stopped,
            PlanStatus::Archived => Status::Archived,
        }
    }

    fn of(status: Status) -> PlanStatus {
        match status {
            Status::Draft => PlanStatus::Draft,
            Status::InReview => PlanStatus::InReview,
            Status::Approved => PlanStatus::Approved,
            Status::Running => PlanStatus::Running,
            Status::Paused => PlanStatus::Paused,
            Status::Stopped => PlanStatus::Stopped,
            Status::Archived => PlanStatus::Archived,
        }
    }
}

/// A plan.
#[derive(Debug, Object)]
pub(super) struct PlanView {
    id: Uuid,
    organization_id: Uuid,
    /// Who made it.
    user_id: Uuid,
    name: String,
    description: String,
    target_type: TargetType,
    /// Null in a list that would become too long: ask for the plan itself.
    target_ids: Option<Vec<String>>,
    account_ids: Vec<Uuid>,
    everyone: bool,
    /// The draft. Null in a list that would become too long: ask for the plan itself.
    workflow_config: Option<Value>,
    status: PlanStatus,
    /// Why it is paused, when a person did not do it.
    status_reason: Option<String>,
    /// The version that new people are enrolled in; null: none was approved.
    version: Option<i32>,
    /// The version that waits for its approval. Not in lists.
    review: Option<ReviewView>,
    /// When its trigger fires next, if it is one of time.
    next_trigger_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// What somebody should look at, when it was submitted just now.
    #[oai(skip_serializing_if_is_none)]
    warnings: Option<Vec<FindingView>>,
}

/// A version that waits for its approval.
#[derive(Debug, Object)]
pub(super) struct ReviewView {
    version: i32,
    /// What to approve: SHA-256 of the config, in hexadecimal digits.
    sha256: String,
    /// Who submitted it.
    submitted_by: Uuid,
    submitted_at: DateTime<Utc>,
}

/// A version of a plan in a list.
#[derive(Debug, Object)]
pub(super) struct VersionSummary {
    version: i32,
    /// `in_review`, `approved`, or `retired`.
    state: String,
    /// SHA-256 of the config, in hexadecimal digits.
    sha256: String,
    /// The revision of every material that the steps name, by key.
    materials: Value,
    created_by: Uuid,
    created_at: DateTime<Utc>,
    approved_by: Option<Uuid>,
    approved_at: Option<DateTime<Utc>>,
}

/// A version of a plan.
#[derive(Debug, Object)]
pub(super) struct VersionView {
    version: i32,
    /// `in_review`, `approved`, or `retired`.
    state: String,
    /// What it says.
    workflow_config: Value,
    /// SHA-256 of the config, in hexadecimal digits.
    sha256: String,
    /// The revision of every material that the steps name, by key.
    materials: Value,
    created_by: Uuid,
    created_at: DateTime<Utc>,
    approved_by: Option<Uuid>,
    approved_at: Option<DateTime<Utc>>,
}

/// Writes bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A plan as it is shown, with the version that waits.
pub(super) fn view(plan: Plan, waiting: Option<Version>) -> PlanView {
    PlanView {
        id: plan.id,
        organization_id: plan.organization_id,
        user_id: plan.user_id,
        name: plan.name,
        description: plan.description,
        target_type: TargetType::of(&plan.target_type),
        target_ids: Some(plan.target_ids),
        account_ids: plan.account_ids,
        everyone: plan.everyone,
        workflow_config: Some(plan.workflow_config),
        status: PlanStatus::of(plan.status.parse().unwrap_or(Status::Draft)),
        status_reason: plan.status_reason,
        version: plan.version,
        review: waiting.map(|version| ReviewView {
            version: version.version,
            sha256: hex(&version.sha256),
            submitted_by: version.created_by,
            submitted_at: version.created_at,
        }),
        next_trigger_at: plan.next_trigger_at,
        started_at: plan.started_at,
        created_at: plan.created_at,
        updated_at: plan.updated_at,
        warnings: None,
    }
}

impl PlanView {
    /// Adds what somebody should look at.
    pub(super) fn with_warnings(self, warnings: Vec<FindingView>) -> PlanView {
        PlanView { warnings: Some(warnings), ..self }
    }
}

/// A plan on a page.
pub(super) fn listed(plan: Listed) -> PlanView {
    PlanView {
        id: plan.id,
        organization_id: plan.organization_id,
        user_id: plan.user_id,
        name: plan.name,
        description: plan.description,
        target_type: TargetType::of(&plan.target_type),
        target_ids: plan.target_ids,
        account_ids: plan.account_ids,
        everyone: plan.everyone,
        workflow_config: plan.workflow_config,
        status: PlanStatus::of(plan.status.parse().unwrap_or(Status::Draft)),
        status_reason: plan.status_reason,
        version: plan.version,
        review: None,
        next_trigger_at: plan.next_trigger_at,
        started_at: plan.started_at,
        created_at: plan.created_at,
        updated_at: plan.updated_at,
        warnings: None,
    }
}

/// A version in a list.
pub(super) fn summary(version: Summary) -> VersionSummary {
    VersionSummary {
        version: version.version,
        state: version.state,
        sha256: hex(&version.sha256),
        materials: version.materials,
        created_by: version.created_by,
        created_at: version.created_at,
        approved_by: version.approved_by,
        approved_at: version.approved_at,
    }
}

/// A version as it is shown.
pub(super) fn version_view(version: Version) -> VersionView {
    VersionView {
        version: version.version,
        state: version.state,
        workflow_config: version.config,
        sha256: hex(&version.sha256),
        materials: version.materials,
        created_by: version.created_by,
        created_at: version.created_at,
        approved_by: version.approved_by,
        approved_at: version.approved_at,
    }
}
