//! Carries an enrollment on now.

use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Idempotency, new_job};
use entropy_jobs::kinds::sop_step::SopStep;
use entropy_schema::campaigns::enrollments;
use poem::web::Data;
use poem_openapi::param::Header;
use poem_openapi::{Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::enqueue::{Accepted, Making, accept, checked_key, request_hash};
use super::enrollments::enrollment_not_found;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::problem::ApiError;

/// An enrollment to be carried on.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct SopStepRequest {
    /// The enrollment.
    enrollment_id: Uuid,
}

/// Steps on demand.
pub(super) struct SopSteps;

#[OpenApi(tag = "Tag::Jobs")]
impl SopSteps {
    /// Carries an enrollment on
    ///
    /// Needs the role agent. Runs the step that is due now, without waiting for the dispatcher. What is not due stays so: the job then
    /// says that there was nothing to do. 409 if the enrollment is over (`enrollment_over`).
    #[oai(path = "/jobs/sop-step", method = "post", operation_id = "enqueue_sop_step")]
    async fn sop_step(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        /// The caller's token, 1 to 255 characters: the same key and body is the same job.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<SopStepRequest>,
    ) -> Result<Accepted, ApiError> {
        caller.require(Role::Agent)?;
        let key = checked_key(idempotency_key.0.as_deref(), "Idempotency-Key")?;
        let id = body.0.enrollment_id;
        let found = enrollments::get(&mut *state.db.conn().await?, caller.organization_id, id).await?;
        let found = found.ok_or_else(enrollment_not_found)?;
        if found.finished_at.is_some() {
            return Err(ApiError::conflict(
                "enrollment_over",
                "This enrollment is over; nothing of it is due any more.",
            ));
        }
        let args = SopStep { enrollment_id: id, account_id: found.account_id };
        let request_hash = request_hash(&json!({"kind": "sop_step", "enrollment_id": id}));
        let idempotency = key.map(|key| Idempotency { key, request_hash });
        let context = Making { state: &state, caller: &caller, origin: &origin, now: state.now().await };
        let job = new_job(&args, context.options(Class::Interactive, None, None, idempotency));
        accept(&context, job, None).await
    }
}
