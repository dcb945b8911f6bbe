//! Looks whether what a material links to is there.

use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::campaigns::materials::{self, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::background;
use crate::campaign::material::DEAD;
use crate::job::{Done, Failure, Job, JobError};
use crate::lifecycle::Delivery;
use crate::media::FetchError;
use crate::services::Context;

/// One look at one revision. Safe to repeat: the last one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckMaterial {
    /// The material.
    pub material_id: Uuid,
    /// Its revision.
    pub revision: i32,
}

/// The fields of a message that are addresses.
const ADDRESSES: [&str; 3] = ["url", "thumb_url", "cover_url"];

impl Job for CheckMaterial {
    const KIND: &'static str = "check_material";
    const QUEUE: &'static str = background::QUEUE;
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 3;

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let organization = ctx.organization_id;
        let mut conn = ctx.conn().await?;
        let found = materials::revision(&mut conn, organization, self.material_id, self.revision).await?;
        // Nothing is held while others are asked.
        drop(conn);
        let Some(revision) = found else {
            let gone = Failure::new("material_gone", "the material has no such revision any more");
            return Err(JobError::Cancel(gone));
        };
        let (error, passing) = look(ctx, &revision).await;
        if passing && ctx.attempt < Self::MAX_ATTEMPTS {
            let message = "an address of the material did not answer; it is looked at once more";
            return Err(JobError::Retry(Failure::new("material_silent", message)));
        }
        let mut conn = ctx.conn().await?;
        materials::checked(&mut conn, organization, self.material_id, self.revision, error.as_deref())
            .await?;
        if let Some(error) = error.as_deref().filter(|_| revision.approved_at.is_some()) {
            tell(&mut conn, &revision, error).await?;
        }
        Ok(Done { result: Some(json!({ "error": error })), lane_wait: None })
    }
}

/// Returns what is wrong with a revision's addresses, and whether that may be otherwise in a moment.
///
/// What is proved to be dead begins with [`DEAD`].
async fn look(ctx: &Context, revision: &Revision) -> (Option<String>, bool) {
    if let Some(path) = &revision.path {
        let kept = ctx.services.store.locate(path);
        let there = match kept {
            Some(kept) => tokio::fs::try_exists(&kept).await.unwrap_or(false),
            None => false,
        };
        return ((!there).then(|| format!("{DEAD} the uploaded file is gone: upload it again")), false);
    }
    let (mut wrong, mut passing) = (Vec::new(), false);
    for field in ADDRESSES {
        let Some(url) = revision.content.get(field).and_then(Value::as_str).filter(|url| !url.is_empty())
        else {
            continue;
        };
        // The address itself stands in the material; here it would be in every log.
        if let Err(error) = ctx.services.media.probe(url).await {
            passing |= matches!(error, FetchError::Failed(_));
            wrong.push(format!("{field}: {}", sentence(error)));
        }
    }
    // Who cannot be reached from here just now may well be reached by a phone.
    let kind = if passing { "silent:" } else { DEAD };
    ((!wrong.is_empty()).then(|| format!("{kind} {}", wrong.join("; "))), passing)
}

fn sentence(error: FetchError) -> &'static str {
    match error {
        FetchError::Gone => "there is nothing at this address",
        FetchError::Refused("redirect" | "too_many_redirects") => "the address leads on and nowhere",
        FetchError::Refused(_) => "the address does not answer as a public one does",
        FetchError::Failed(_) | FetchError::TooLong => "the address does not answer",
    }
}

/// Tells people of a material that plans may be sending: once a day.
async fn tell(
    conn: &mut entropy_schema::Conn,
    revision: &Revision,
    error: &str,
) -> entropy_schema::Result<()> {
    let day = entropy_schema::clock::now(conn).await?.date_naive();
    alerts::raise(
        conn,
        &NewAlert {
            organization_id: revision.organization_id,
            kind: "material_dead",
            severity: Severity::Warning,
            dedupe_key: &format!("material_dead:{}:{}:{day}", revision.material_id, revision.revision),
            text: "a material that campaigns may send cannot be opened; change it, and have it approved",
            account_id: None,
            conversation_id: None,
            details: Some(json!({
                "material_id": revision.material_id, "revision": revision.revision, "error": error,
            })),
        },
    )
    .await?;
    Ok(())
}
