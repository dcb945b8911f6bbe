//! Bounds what may wait, so that one caller cannot fill the disk of all.
//!
//! The bounds are soft. Each process reads how much waits at most every two seconds for a lane and every ten for an
//! organisation, and adds what it accepted itself since then; several processes may together exceed a bound by what
//! they accept in that time. Jobs that were asked for a later time count for the organisation but not for the lane.

use std::time::Duration;

use entropy_schema::jobs;
use uuid::Uuid;

use crate::fresh::Fresh;
use crate::problem::ApiError;

/// Jobs that may wait in one lane.
pub(crate) const PER_LANE: i64 = 100_000;
/// Jobs that may wait in one organisation.
pub(crate) const PER_ORGANIZATION: i64 = 1_000_000;

const LANE_LIFETIME: Duration = Duration::from_secs(2);
/// Counting a million rows takes a tenth of a second.
const ORGANIZATION_LIFETIME: Duration = Duration::from_secs(10);
/// When it makes sense to come back: a full lane empties slowly.
const RETRY_AFTER_S: u64 = 30;

/// How much waits, as this process knows it.
#[derive(Debug)]
pub(crate) struct Backlog {
    lanes: Fresh<Uuid, i64>,
    organizations: Fresh<Uuid, i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Lane(Uuid),
    Organization(Uuid),
}

impl Default for Backlog {
    fn default() -> Self {
        Backlog { lanes: Fresh::new(LANE_LIFETIME), organizations: Fresh::new(ORGANIZATION_LIFETIME) }
    }
}

impl Backlog {
    /// Takes note of `count` jobs for `organization`, `lanes` telling how many of them go where. Refuses all of them
    /// if they do not fit.
    pub(crate) async fn admit(
        &self,
        db: &entropy_schema::Db,
        organization: Uuid,
        count: i64,
        lanes: &[(Uuid, i64)],
    ) -> Result<(), ApiError> {
        let places = std::iter::once((Place::Organization(organization), count, PER_ORGANIZATION))
            .chain(lanes.iter().map(|(lane, count)| (Place::Lane(*lane), *count, PER_LANE)));
        let places: Vec<_> = places.collect();
        for (place, count, limit) in &places {
            if self.waiting(db, *place, *limit).await? + count > *limit {
                return Err(full(*place, *limit));
            }
        }
        for (place, count, _) in places {
            let (known, id) = self.known(place);
            known.change(&id, |waiting| *waiting += count);
        }
        Ok(())
    }

    async fn waiting(&self, db: &entropy_schema::Db, place: Place, limit: i64) -> Result<i64, ApiError> {
        let (known, id) = self.known(place);
        if let Some(waiting) = known.get(&id) {
            return Ok(waiting);
        }
        let mut conn = db.conn().await?;
        let waiting = match place {
            Place::Lane(lane) => jobs::waiting_in_lane(&mut conn, lane, limit + 1).await?,
            Place::Organization(id) => jobs::waiting_in_organization(&mut conn, id, limit + 1).await?,
        };
        known.put(id, waiting);
        Ok(waiting)
    }

    fn known(&self, place: Place) -> (&Fresh<Uuid, i64>, Uuid) {
        match place {
            Place::Lane(id) => (&self.lanes, id),
            Place::Organization(id) => (&self.organizations, id),
        }
    }
}

fn full(place: Place, limit: i64) -> ApiError {
    let what = match place {
        Place::Lane(_) => "this account's lane",
        Place::Organization(_) => "your organisation",
    };
    let detail =
        format!("{limit} jobs wait in {what}, and no more may. Wait until some are done, or cancel some.");
    ApiError::too_many("backlog_full", detail, RETRY_AFTER_S)
}
