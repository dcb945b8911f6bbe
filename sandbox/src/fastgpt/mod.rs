//! The FastGPT half: chat completions, the records behind them, and the switches to script both.
//!
//! `keys` says who may ask, `scripts` what is answered and how it fails, `nodes` what the workflow's
//! nodes report, `wire` how an answer looks in each version, `runs` and `chats` what is remembered.
//! A run goes on when its client has left, as the real one does, and is saved.

mod chats;
mod completions;
mod control;
mod keys;
mod nodes;
mod runs;
mod scripts;
mod wire;

use std::collections::VecDeque;
use std::time::Instant;

use poem::{Route, get, post};
use serde::{Deserialize, Serialize};

/// The prefix under which the FastGPT half answers; what follows is FastGPT's own path.
pub(crate) const PREFIX: &str = "/fastgpt";

pub(crate) use control::routes as control_routes;

/// Which version is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Profile {
    /// One total of tokens per node.
    #[serde(rename = "v4.8")]
    V4_8,
    /// `flowResponses` after `[DONE]`; a failed node has an `errorText`.
    #[default]
    #[serde(rename = "v4.12")]
    V4_12,
    /// `flowResponses` before `[DONE]`; refusals for haste are HTTP 429.
    #[serde(rename = "main")]
    Main,
}

/// What holds for every call.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) profile: Profile,
    /// Calls of a team in any 60 seconds; none: no limit.
    pub(crate) requests_per_minute: Option<u32>,
    /// Every call is refused because the team's points are used up.
    pub(crate) points_exhausted: bool,
    /// Between two empty chunks while a run is silent.
    pub(crate) heartbeat_ms: u64,
    /// How long the model thinks before its first word, unless a script says otherwise.
    pub(crate) delay_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            requests_per_minute: None,
            points_exhausted: false,
            heartbeat_ms: 10_000,
            delay_ms: 0,
        }
    }
}

/// Everything that the FastGPT half remembers.
#[derive(Default)]
pub(crate) struct FastGpt {
    pub(crate) settings: Settings,
    pub(crate) keys: keys::Keys,
    pub(crate) scripts: scripts::Scripts,
    pub(crate) chats: chats::Chats,
    pub(crate) runs: runs::Runs,
    /// When it was called, over the last minute.
    recent: VecDeque<Instant>,
}

impl FastGpt {
    /// Forgets everything but the numbers of the runs, so that one that is under way cannot be taken for another.
    pub(crate) fn reset(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.clear();
        *self = Self { runs, ..Self::default() };
    }

    /// Counts a call towards the team's limit; an `Err` tells in how many seconds to come again.
    fn admit(&mut self, now: Instant) -> Result<(), u64> {
        let Some(limit) = self.settings.requests_per_minute else { return Ok(()) };
        while self.recent.front().is_some_and(|at| now.duration_since(*at).as_secs() >= 60) {
            self.recent.pop_front();
        }
        if self.recent.len() >= limit as usize {
            let oldest = self.recent.front().map_or(0, |at| now.duration_since(*at).as_secs());
            return Err(60 - oldest.min(59));
        }
        self.recent.push_back(now);
        Ok(())
    }
}

/// FastGPT's own routes, with both families of the paths of its records.
pub(crate) fn routes() -> Route {
    let mut routes = Route::new()
        .at("/api/v1/chat/completions", post(completions::v1))
        .at("/api/v2/chat/completions", post(completions::v2));
    for family in ["/api/core/chat", "/api/core/chat/history", "/api/core/chat/record"] {
        routes = routes
            .at(format!("{family}/getResData"), get(chats::res_data))
            .at(format!("{family}/getPaginationRecords"), post(chats::pagination_records))
            .at(format!("{family}/getHistories"), post(chats::histories));
    }
    routes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_limit_of_a_team_is_a_window_of_a_minute() {
        let mut fastgpt = FastGpt::default();
        let start = Instant::now();
        assert_eq!(fastgpt.admit(start), Ok(()));
        fastgpt.settings.requests_per_minute = Some(2);
        assert_eq!(fastgpt.admit(start), Ok(()));
        assert_eq!(fastgpt.admit(start), Ok(()));
        assert_eq!(fastgpt.admit(start + Duration::from_secs(20)), Err(40));
        assert_eq!(fastgpt.admit(start + Duration::from_secs(60)), Ok(()));
    }
}
