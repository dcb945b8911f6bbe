//! The ways to fail, and which call is to fail in which way.
//!
//! A failure is planned through the control API for the calls to come, or asked for by one call in
//! its `X-Sandbox-Failure` header, which wins over any plan and spends none.
//! What no plan meets may be met by a mix (`mix`), which deals modes in fixed shares.
//! How a mode looks on the wire is `gewe::faults`'s business.

use std::time::Duration;

use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde::{Deserialize, Serialize};

use crate::mix::Mix;

/// The longest delay that can be asked for.
const MAX_DELAY_MS: u64 = 600_000;

/// One way to fail.
///
/// "Accepted" means that the message goes to the phone, if the account's state and throttle allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Accepted at once, answered after the delay.
    DelayAfterAccept,
    /// Accepted after the delay; lost if the client has hung up by then.
    DelayBeforeAccept,
    /// Accepted after the delay, even if the client has hung up by then.
    LateAccept,
    /// The connection is reset without an answer; not accepted.
    ResetBeforeAccept,
    /// The connection is reset without an answer; accepted.
    ResetAfterAccept,
    /// The answer breaks off in its middle; accepted.
    TruncatedBody,
    /// HTTP 502 with a page of HTML; not accepted.
    #[serde(alias = "bad_gateway_html_before_accept")]
    BadGatewayHtml,
    /// HTTP 502 with a page of HTML; accepted.
    BadGatewayHtmlAfterAccept,
    /// HTTP 200 with something that is not JSON; accepted.
    NotJson,
    /// `ret` 500, the account is offline; not accepted.
    Offline,
    /// `ret` 500, too frequent; not accepted.
    Risk,
    /// `ret` 500, the token is refused; not accepted.
    Token,
    /// `ret` 500 with a code that nobody documents; not accepted.
    UnknownError,
    /// `ret` 200 with ids as usual; not delivered.
    SilentDrop,
    /// The answer comes byte by byte, the delay between any two; accepted.
    SlowDrip,
    /// The answer is right and larger than 10 MiB; accepted.
    HugeBody,
    /// The answer is right and calls itself HTML; accepted.
    WrongContentType,
    /// HTTP 302 to a private address; not accepted.
    Redirect,
    /// HTTP 500 with a failure envelope; not accepted.
    ServerErrorEnvelope,
    /// An answer that goes on for ever, a byte after each delay; accepted.
    EndlessDrip,
    /// More than 10 MiB of something that is not JSON; accepted.
    HugeGarbage,
    /// The right answer, compressed though nobody asked for that; accepted.
    GzipBody,
    /// HTTP 204, with nothing; accepted.
    EmptyAnswer,
    /// The right answer behind more headers than a client takes; accepted.
    HeaderFlood,
    /// `ret` 200 without an id of the message; accepted.
    NoMessageId,
    /// `ret` 200 with ids that no database takes for a text; accepted.
    UnstorableId,
    /// `ret` 500, because GeWe lost its own connection in the middle of the call; accepted.
    UpstreamLost,
    /// `ret` 500 with an answer that repeats the token and the request at length; not accepted.
    EchoingRefusal,
    /// HTTP 307 to the very same address; not accepted, but who follows it sends.
    RedirectToItself,
}

/// What a mode does to the message, whatever it does to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Accept,
    Drop,
    Refuse,
}

impl Mode {
    pub(crate) fn effect(self) -> Effect {
        match self {
            Self::DelayAfterAccept
            | Self::DelayBeforeAccept
            | Self::LateAccept
            | Self::ResetAfterAccept
            | Self::TruncatedBody
            | Self::BadGatewayHtmlAfterAccept
            | Self::NotJson
            | Self::SlowDrip
            | Self::HugeBody
            | Self::WrongContentType
            | Self::EndlessDrip
            | Self::HugeGarbage
            | Self::GzipBody
            | Self::EmptyAnswer
            | Self::HeaderFlood
            | Self::NoMessageId
            | Self::UnstorableId
            | Self::UpstreamLost => Effect::Accept,
            Self::SilentDrop => Effect::Drop,
            Self::ResetBeforeAccept
            | Self::BadGatewayHtml
            | Self::Offline
            | Self::Risk
            | Self::Token
            | Self::UnknownError
            | Self::Redirect
            | Self::ServerErrorEnvelope
            | Self::EchoingRefusal
            | Self::RedirectToItself => Effect::Refuse,
        }
    }

    fn default_delay(self) -> Duration {
        match self {
            Self::DelayAfterAccept | Self::DelayBeforeAccept | Self::LateAccept => Duration::from_secs(30),
            Self::SlowDrip => Duration::from_millis(20),
            Self::EndlessDrip => Duration::from_millis(50),
            _ => Duration::ZERO,
        }
    }
}

/// A failure as it meets one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) mode: Mode,
    pub(crate) delay: Duration,
}

impl Failure {
    pub(crate) fn new(mode: Mode, delay_ms: Option<u64>) -> Result<Self, String> {
        if delay_ms.is_some_and(|delay| delay > MAX_DELAY_MS) {
            return Err(format!("delay_ms must be at most {MAX_DELAY_MS}"));
        }
        let delay = delay_ms.map_or_else(|| mode.default_delay(), Duration::from_millis);
        Ok(Self { mode, delay })
    }

    /// Reads the value of an `X-Sandbox-Failure` header: `<mode>[;delay_ms=<n>]`.
    pub(crate) fn from_header(value: &str) -> Result<Self, String> {
        let mut parts = value.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let name: serde::de::value::StrDeserializer<'_, ValueError> = name.into_deserializer();
        let mode = Mode::deserialize(name).map_err(|error| error.to_string())?;
        let mut delay_ms = None;
        for part in parts {
            let value = part.strip_prefix("delay_ms=").ok_or_else(|| format!("unknown option `{part}`"))?;
            delay_ms = Some(value.parse().map_err(|_| format!("delay_ms is not a number: `{value}`"))?);
        }
        Self::new(mode, delay_ms)
    }
}

/// A failure planned through the control API.
///
/// Absent conditions match everything, but a plan without a `route` meets sends only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPlan {
    #[serde(default)]
    app_id: Option<String>,
    #[serde(default)]
    to_wxid: Option<String>,
    /// The last part of a route, such as `postText` or `checkOnline`.
    #[serde(default)]
    route: Option<String>,
    mode: Mode,
    /// How many calls it meets; 1 if absent, and 0 means every call until it is removed.
    #[serde(default = "once")]
    times: u64,
    /// The chance that it meets a call that matches; a call it spares does not count.
    #[serde(default = "always")]
    probability: f64,
    #[serde(default)]
    delay_ms: Option<u64>,
}

fn once() -> u64 {
    1
}

fn always() -> f64 {
    1.0
}

/// A plan in force.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    id: u64,
    app_id: Option<String>,
    to_wxid: Option<String>,
    route: Option<String>,
    mode: Mode,
    delay_ms: u64,
    probability: f64,
    /// How many calls it will still meet; absent if it has no end.
    remaining: Option<u64>,
    /// How many calls it has met.
    met: u64,
    #[serde(skip)]
    failure: Failure,
}

/// The call that a failure is wanted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) app_id: Option<&'a str>,
    pub(crate) to_wxid: Option<&'a str>,
    /// The last part of the route.
    pub(crate) route: &'a str,
    pub(crate) is_send: bool,
}

/// All plans, oldest first, and the mixes that meet what no plan meets.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    plans: Vec<Plan>,
    mixes: Vec<Mix>,
    last_id: u64,
}

impl Failures {
    /// Adds a plan behind those that exist, or says what is wrong with it.
    pub(crate) fn add(&mut self, new: NewPlan) -> Result<Plan, String> {
        if !(0.0..=1.0).contains(&new.probability) {
            return Err("probability must be between 0 and 1".to_owned());
        }
        let failure = Failure::new(new.mode, new.delay_ms)?;
        self.last_id += 1;
        let plan = Plan {
            id: self.last_id,
            app_id: new.app_id,
            to_wxid: new.to_wxid,
            route: new.route,
            mode: new.mode,
            delay_ms: failure.delay.as_millis() as u64,
            probability: new.probability,
            remaining: (new.times > 0).then_some(new.times),
            met: 0,
            failure,
        };
        self.plans.push(plan.clone());
        Ok(plan)
    }

    pub(crate) fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// Adds a mix behind those that exist.
    pub(crate) fn add_mix(&mut self, mix: Mix) {
        self.mixes.push(mix);
    }

    pub(crate) fn clear(&mut self) {
        self.plans.clear();
        self.mixes.clear();
    }

    /// Takes the failure of the oldest plan that meets this call, if one does, or else what the oldest mix for it deals.
    pub(crate) fn take(&mut self, target: Target<'_>) -> Option<Failure> {
        self.take_planned(target)
            .or_else(|| self.mixes.iter_mut().find(|mix| mix.meets(target))?.deal(target))
    }

    fn take_planned(&mut self, target: Target<'_>) -> Option<Failure> {
        let index = self.plans.iter().position(|plan| {
            plan.matches(target) && (plan.probability >= 1.0 || fastrand::f64() < plan.probability)
        })?;
        let plan = self.plans.get_mut(index)?;
        let failure = plan.failure;
        plan.met += 1;
        if let Some(remaining) = &mut plan.remaining {
            *remaining -= 1;
            if *remaining == 0 {
                self.plans.remove(index);
            }
        }
        Some(failure)
    }
}

impl Plan {
    fn matches(&self, target: Target<'_>) -> bool {
        let named = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        let right_route = match &self.route {
            Some(route) => route == target.route,
            None => target.is_send,
        };
        right_route && named(&self.app_id, target.app_id) && named(&self.to_wxid, target.to_wxid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: serde_json::Value) -> NewPlan {
        serde_json::from_value(json).unwrap()
    }

    fn send_of(app_id: &str) -> Target<'_> {
        Target { app_id: Some(app_id), to_wxid: Some("wxid_1"), route: "postText", is_send: true }
    }

    #[test]
    fn a_plan_meets_as_many_calls_as_it_says() {
        let mut failures = Failures::default();
        failures.add(plan(serde_json::json!({"mode": "risk", "app_id": "wx_a", "times": 2}))).unwrap();
        assert_eq!(failures.take(send_of("wx_b")), None);
        assert!(failures.take(send_of("wx_a")).is_some());
        assert!(failures.take(send_of("wx_a")).is_some());
        assert_eq!(failures.take(send_of("wx_a")), None);
        assert!(failures.plans().is_empty());
    }

    #[test]
    fn zero_times_means_for_ever_and_no_chance_means_never() {
        let mut failures = Failures::default();
        failures.add(plan(serde_json::json!({"mode": "risk", "probability": 0.0}))).unwrap();
        failures.add(plan(serde_json::json!({"mode": "offline", "times": 0}))).unwrap();
        for _ in 0..10 {
            assert_eq!(failures.take(send_of("wx_a")).map(|failure| failure.mode), Some(Mode::Offline));
        }
    }

    #[test]
    fn a_plan_without_a_route_spares_calls_that_send_nothing() {
        let mut failures = Failures::default();
        failures.add(plan(serde_json::json!({"mode": "risk", "times": 0}))).unwrap();
        let check = Target { app_id: Some("wx_a"), to_wxid: None, route: "checkOnline", is_send: false };
        assert_eq!(failures.take(check), None);
        failures.add(plan(serde_json::json!({"mode": "not_json", "route": "checkOnline"}))).unwrap();
        assert_eq!(failures.take(check).map(|failure| failure.mode), Some(Mode::NotJson));
    }

    #[test]
    fn header_names_a_mode_and_perhaps_a_delay() {
        let failure = Failure::from_header("delay_after_accept; delay_ms=250").unwrap();
        assert_eq!(failure.mode, Mode::DelayAfterAccept);
        assert_eq!(failure.delay, Duration::from_millis(250));
        assert_eq!(Failure::from_header("risk").unwrap().delay, Duration::ZERO);
        assert!(Failure::from_header("explode").unwrap_err().contains("expected one of"));
        assert!(Failure::from_header("risk;delay=5").is_err());
        assert!(Failure::from_header("risk;delay_ms=999999999").is_err());
    }
}
