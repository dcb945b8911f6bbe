//! A text that a model writes for a step: asked for, paid, and written into the step's row.
//!
//! Around the call there are two short transactions, both under the enrollment's lock. `prepare` looks at everything that speaks
//! against the message once more, reserves in the budgets, and writes the run as `calling`. `answered`, `failed` and `lost`
//! write what became of it, book its cost whatever that is, and have the enrollment looked at, which then says the text or the
//! plan's own. A customer who has written meanwhile is answered with nothing that was asked for before.

mod ask;
mod conclude;

use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::steps::{self, Step as Row};
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::{Conn, Error};
use serde_json::json;
use uuid::Uuid;

pub(crate) use self::ask::prepare;
pub(crate) use self::conclude::{answered, failed, lost};
use super::say::is_writing;
use crate::ai::prepare::cancel;
use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::job::{Done, JobError};
use crate::kinds::sop_write::SopWrite;
use crate::services::Context;

/// Makes the job that has the text of a step written at which an enrollment stands. There is one at a time per step.
pub(super) fn job(ctx: &Context, enrollment: &Enrollment) -> NewJob {
    let args = SopWrite {
        enrollment_id: enrollment.id,
        step_id: enrollment.step_id.clone().unwrap_or_default(),
        account_id: enrollment.account_id,
    };
    let options = Options {
        organization_id: enrollment.organization_id,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: ctx.trace_id.clone(),
        created_by: enrollment.created_by,
    };
    new_job(&args, options)
}

/// A step that a job is to write, under the lock of its enrollment.
struct AtHand {
    enrollment: Enrollment,
    row: Row,
}

impl AtHand {
    /// Locks it. None: it waits for this job no more.
    async fn lock(conn: &mut Conn, ctx: &Context, job: &SopWrite) -> Result<Option<AtHand>, Error> {
        let locked = enrollments::lock(conn, job.enrollment_id).await?;
        let Some(enrollment) = locked.filter(|one| one.organization_id == ctx.organization_id) else {
            return Ok(None);
        };
        let stands =
            enrollment.finished_at.is_none() && enrollment.step_id.as_deref() == Some(job.step_id.as_str());
        let row = steps::get(conn, enrollment.id, &job.step_id).await?;
        let row = row.filter(|row| stands && is_writing(row) && row.job_id == Some(ctx.job_id));
        Ok(row.map(|row| AtHand { enrollment, row }))
    }

    /// The step is asked anew, at once.
    async fn give_back(self, conn: &mut Conn, reason: &str) -> Result<(), Error> {
        let AtHand { enrollment, row } = self;
        let (state, reason) = ("planned".to_owned(), Some(reason.to_owned()));
        steps::put(conn, &[Row { state, reason, job_id: None, ..row }]).await?;
        if enrollment.state != "paused" {
            enrollments::put_off(conn, &[enrollment.id], 0).await?;
        }
        Ok(())
    }

    /// The plan's own text takes the place of a model's.
    async fn fall_back(mut self, conn: &mut Conn, code: &str) -> Result<(), Error> {
        self.row.text = None;
        self.row.fallback_code = Some(code.to_owned());
        self.give_back(conn, "written").await
    }
}

fn fallen_back(run: Option<Uuid>, code: &str) -> Done {
    let result = json!({"run_id": run, "outcome": "fallback", "details": {"reason": code}});
    Done { result: Some(result), lane_wait: None }
}

fn passed_by() -> JobError {
    cancel("step_passed", "the campaign has gone on without this text")
}
