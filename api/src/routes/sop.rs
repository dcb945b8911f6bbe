//! The format of plans: its schema, its validation, templates, and plans as JSON files.

use diesel_async::AsyncConnection;
use entropy_jobs::campaign::surroundings::Held;
use entropy_jobs::sop::config::SCHEMA;
use entropy_jobs::sop::finding::Finding;
use entropy_jobs::sop::templates;
use entropy_schema::campaigns::plans;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;

use super::Tag;
use super::sop_tasks::{Created, PutPlan, insert, new_plan, plan_not_found, read};
use super::sop_tasks_view::{TargetType, view};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::ApiError;

/// What a file with a plan calls itself.
const FORMAT: &str = "entropy-sop/1";

/// One thing to be said about a plan.
#[derive(Debug, Object)]
pub(super) struct FindingView {
    /// `E01` to `E18`: wrong; `W01` to `W06`: to be looked at.
    code: String,
    /// Where: a JSON pointer into the config, such as `/steps/3/next`; the whole is the empty text.
    path: String,
    /// What is wrong, and what to change.
    message: String,
}

/// Shows a finding.
pub(super) fn finding(finding: Finding) -> FindingView {
    FindingView { code: finding.code.to_string(), path: finding.path, message: finding.message }
}

/// A plan to look at.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ValidatePlan {
    /// In format 1; see `GET sop/schema`.
    workflow_config: Value,
}

/// What is to be said about a plan.
#[derive(Debug, Object)]
struct PlanReport {
    /// What must be changed before it can be submitted: at most 200.
    errors: Vec<FindingView>,
    /// What somebody should look at: at most 200.
    warnings: Vec<FindingView>,
}

/// A plan to begin with.
#[derive(Debug, Object)]
struct TemplateView {
    /// Stable name.
    key: String,
    name: String,
    description: String,
    target_type: TargetType,
    /// Has no errors; make a plan of it with `POST sop-tasks`.
    workflow_config: Value,
}

/// The templates.
#[derive(Debug, Object)]
struct TemplatesView {
    items: Vec<TemplateView>,
}

/// A plan as a file: what it says, without the people and accounts of the organisation that it comes from.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct PlanFile {
    /// `entropy-sop/1`.
    format: Text,
    /// 1 to 100 characters.
    name: Text,
    /// Up to 2000 characters.
    description: Option<Text>,
    target_type: TargetType,
    workflow_config: Value,
}

/// The format of plans.
pub(super) struct Sop;

#[OpenApi(tag = "Tag::Campaigns")]
impl Sop {
    /// Shows the JSON Schema of plans
    ///
    /// Draft 2020-12, of format 1: for the flow editor.
    #[oai(path = "/sop/schema", method = "get", operation_id = "get_sop_schema")]
    async fn schema(&self, _caller: Caller) -> Result<Json<Value>, ApiError> {
        Ok(Json(serde_json::from_str(SCHEMA).map_err(ApiError::internal)?))
    }

    /// Lists the templates
    ///
    /// Plans to begin with: 新线索, 活动邀约, 沉默唤醒, 复购. They are copied, never referred to.
    #[oai(path = "/sop/templates", method = "get", operation_id = "list_sop_templates")]
    async fn templates(&self, _caller: Caller) -> Result<Json<TemplatesView>, ApiError> {
        let items = templates::ALL.iter().map(|template| {
            Ok(TemplateView {
                key: template.key.to_owned(),
                name: template.name.to_owned(),
                description: template.description.to_owned(),
                target_type: TargetType::Friend,
                workflow_config: template.config().map_err(ApiError::internal)?,
            })
        });
        Ok(Json(TemplatesView { items: items.collect::<Result<_, ApiError>>()? }))
    }

    /// Looks at a plan
    ///
    /// Says everything that is wrong with it at once, held against the organisation's materials, workflows, hours, caps and
    /// words. Nothing is stored.
    #[oai(path = "/sop-tasks/validate", method = "post", operation_id = "validate_sop_task")]
    async fn validate(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        body: Body<ValidatePlan>,
    ) -> Result<Json<PlanReport>, ApiError> {
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let held = Held::read(&mut conn, caller.organization_id, now).await?;
        drop(conn);
        let (report, _) = held.check(&body.0.workflow_config);
        Ok(Json(PlanReport {
            errors: report.errors.into_iter().map(finding).collect(),
            warnings: report.warnings.into_iter().map(finding).collect(),
        }))
    }

    /// Shows a plan as a file
    ///
    /// For another organisation, or to keep: `POST sop-tasks/import` takes it as it is. Targets and accounts are not in it.
    #[oai(path = "/sop-tasks/:id/export", method = "get", operation_id = "export_sop_task")]
    async fn export(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<PlanFile>, ApiError> {
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, caller.organization_id, id.0).await?.ok_or_else(plan_not_found)?;
        Ok(Json(PlanFile {
            format: Text(FORMAT.to_owned()),
            name: Text(plan.name),
            description: Some(Text(plan.description)),
            target_type: TargetType::of(&plan.target_type),
            workflow_config: plan.workflow_config,
        }))
    }

    /// Makes a plan of a file
    ///
    /// Needs the role agent. It is a draft without targets, and may have errors.
    #[oai(path = "/sop-tasks/import", method = "post", operation_id = "import_sop_task")]
    async fn import(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<PlanFile>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Agent)?;
        let file = body.0;
        if &*file.format != FORMAT {
            let message = format!("must be {FORMAT}: this is a file of something else, or of a later format");
            return Err(ApiError::field("format", "unknown_format", message));
        }
        let asked = PutPlan {
            name: file.name,
            description: file.description,
            target_type: file.target_type,
            target_ids: None,
            account_ids: None,
            everyone: None,
            workflow_config: file.workflow_config,
        };
        let fields = read(&caller, asked)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let plan = conn
            .transaction(async |conn| {
                let plan = new_plan(&caller, fields, now);
                insert(conn, &caller, &origin, &plan, "sop_task.import").await?;
                Ok::<_, ApiError>(plan)
            })
            .await?;
        Ok(Created::Created(Json(view(plan, None))))
    }
}
