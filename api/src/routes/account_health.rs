//! How careful an account has to be, as people see it: its warm-up, its latest hold.

use chrono::{DateTime, NaiveDate, Utc};
use entropy_jobs::calendar::{Zone, day_of, zone};
use entropy_jobs::campaign::clock;
use entropy_jobs::risk::Signal;
use entropy_jobs::sop::caps::Standing;
use entropy_schema::accounts::Health;
use entropy_schema::{Conn, settings};
use poem_openapi::Object;
use uuid::Uuid;

use crate::problem::ApiError;

/// What campaigns may send from an account, while it is new or was on hold.
#[derive(Debug, Object)]
pub(super) struct WarmUpView {
    /// Since when it has been logged in without a break of a day; null: it never was.
    since: Option<DateTime<Utc>>,
    /// Which of its first seven days it is; null: it is not new any more.
    day: Option<i64>,
    /// Messages of campaigns that it may send today.
    cap_today: u32,
    /// The last day on which it has half of its caps, after a hold.
    halved_until: Option<NaiveDate>,
}

/// The latest hold of an account.
#[derive(Debug, Object)]
pub(super) struct RiskView {
    /// The signal: `forced_logout`, `login_verification`, `provider_limit`, `failures_in_a_row`, `failure_share`, `recipients_leave`,
    /// `complaint` or `echoes_gone`.
    signal: String,
    /// The same for people.
    text: String,
    held_at: Option<DateTime<Utc>>,
    /// When a person lifted a hold of the account last.
    lifted_at: Option<DateTime<Utc>>,
}

/// What an organisation allows its accounts, and which day it is there.
pub(super) struct House {
    account_per_day: u32,
    zone: Zone,
    today: NaiveDate,
}

impl House {
    /// Reads it.
    pub(super) async fn read(conn: &mut Conn, organization: Uuid) -> Result<House, ApiError> {
        let chosen = settings::organization(conn, organization).await?;
        let zone = zone(Some(&chosen.timezone));
        let today = day_of(clock::now(conn).await?, zone);
        let account_per_day = u32::try_from(chosen.account_per_day).unwrap_or_default();
        Ok(House { account_per_day, zone, today })
    }

    /// Says what campaigns may send from an account today.
    pub(super) fn warm_up(&self, health: &Health) -> WarmUpView {
        let day = |at: DateTime<Utc>| day_of(at, self.zone);
        let standing =
            Standing { first_login: health.warm_since.map(day), released: health.risk_lifted_at.map(day) };
        WarmUpView {
            since: health.warm_since,
            day: standing.warm_up_day(self.today),
            cap_today: standing.allowance(self.account_per_day, self.today),
            halved_until: standing.halved_until(self.today),
        }
    }
}

/// Says why an account is on hold, or was last.
pub(super) fn risk_of(health: Health) -> Option<RiskView> {
    let signal = health.risk_signal?;
    let text = Signal::parse(&signal).map_or("", Signal::sentence).to_owned();
    Some(RiskView { signal, text, held_at: health.risk_held_at, lifted_at: health.risk_lifted_at })
}
