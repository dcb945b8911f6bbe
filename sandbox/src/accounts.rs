//! The WeChat accounts behind the device ids, and WeChat's own throttle.
//!
//! An account is known by its `appId`. Every `appId` that begins with `wx_` exists from the first
//! call on; any other one only after it was set through the control API.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How WeChat treats an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccountState {
    /// Logged in; sends arrive.
    #[default]
    Online,
    /// Logged out; every send answers `微信已离线`. Ends by the control API only.
    Offline,
    /// Under risk control; every send answers a "too frequent" text.
    Risk,
}

/// Limits on the sends of one account in any 60 seconds; each that is absent is off.
///
/// They bite in the order of their severity: a call above several gets the worst.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Throttle {
    /// Above this, `ret` is 200 and nothing arrives.
    #[serde(default)]
    pub(crate) per_minute_silent_drop: Option<u32>,
    /// Above this, a send answers the risk text.
    #[serde(default)]
    pub(crate) per_minute_risk: Option<u32>,
    /// Above this, the account goes offline and stays so.
    #[serde(default)]
    pub(crate) per_minute_offline: Option<u32>,
}

/// What becomes of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Deliver,
    Drop,
    Risk,
    Offline,
    Unknown,
}

/// All accounts of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    throttle: Throttle,
    accounts: BTreeMap<String, Account>,
}

#[derive(Debug, Default)]
struct Account {
    state: AccountState,
    /// Its id in WeChat, if it was told.
    wxid: Option<String>,
    /// The token that last called for it.
    token: Option<String>,
    /// When it tried to send, over the last minute; filled only while a throttle is set.
    recent: VecDeque<DateTime<Utc>>,
}

impl Accounts {
    pub(crate) fn knows(&self, app_id: &str) -> bool {
        app_id.starts_with("wx_") || self.accounts.contains_key(app_id)
    }

    /// Answers whether the account is online, or `None` if there is no such device.
    ///
    /// An account under risk control is still online: GeWe says so as well.
    pub(crate) fn is_online(&self, app_id: &str) -> Option<bool> {
        match self.accounts.get(app_id) {
            Some(account) => Some(account.state != AccountState::Offline),
            None => self.knows(app_id).then_some(true),
        }
    }

    pub(crate) fn set_state(&mut self, app_id: &str, state: AccountState) {
        self.accounts.entry(app_id.to_owned()).or_default().state = state;
    }

    /// Returns how WeChat treats the account.
    pub(crate) fn state(&self, app_id: &str) -> AccountState {
        self.accounts.get(app_id).map_or(AccountState::Online, |account| account.state)
    }

    /// Returns the account's id in WeChat: the one that was told, or one made out of the device's.
    pub(crate) fn wxid(&self, app_id: &str) -> String {
        let told = self.accounts.get(app_id).and_then(|account| account.wxid.clone());
        told.unwrap_or_else(|| format!("wxid_{}", app_id.trim_start_matches("wx_").to_lowercase()))
    }

    pub(crate) fn set_wxid(&mut self, app_id: &str, wxid: &str) {
        self.accounts.entry(app_id.to_owned()).or_default().wxid = Some(wxid.to_owned());
    }

    /// Returns the token that last called for the account.
    pub(crate) fn token(&self, app_id: &str) -> Option<&str> {
        self.accounts.get(app_id)?.token.as_deref()
    }

    pub(crate) fn set_token(&mut self, app_id: &str, token: &str) {
        let account = self.accounts.entry(app_id.to_owned()).or_default();
        if account.token.as_deref() != Some(token) {
            account.token = Some(token.to_owned());
        }
    }

    /// Lists the accounts that have sent or were set, by `appId`.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, AccountState)> {
        self.accounts.iter().map(|(app_id, account)| (app_id.as_str(), account.state))
    }

    pub(crate) fn throttle(&self) -> Throttle {
        self.throttle
    }

    /// Replaces the limits; the counts begin anew.
    pub(crate) fn set_throttle(&mut self, throttle: Throttle) {
        self.throttle = throttle;
        self.accounts.values_mut().for_each(|account| account.recent.clear());
    }

    /// Decides about one send, which counts towards the throttle whatever the answer.
    pub(crate) fn admit(&mut self, app_id: &str, now: DateTime<Utc>) -> Admission {
        if !self.knows(app_id) {
            return Admission::Unknown;
        }
        let throttle = self.throttle;
        if !self.accounts.contains_key(app_id) {
            self.accounts.insert(app_id.to_owned(), Account::default());
        }
        let Some(account) = self.accounts.get_mut(app_id) else {
            return Admission::Unknown;
        };
        match account.state {
            AccountState::Offline => return Admission::Offline,
            AccountState::Risk => return Admission::Risk,
            AccountState::Online => {}
        }
        if throttle.is_off() {
            return Admission::Deliver;
        }
        let sends = account.count_send(now);
        let admission = throttle.admission(sends);
        if admission == Admission::Offline {
            account.state = AccountState::Offline;
        }
        admission
    }
}

impl Account {
    /// Notes a send and returns how many there were in the minute that ends with it.
    fn count_send(&mut self, now: DateTime<Utc>) -> usize {
        while self.recent.front().is_some_and(|at| now - at >= TimeDelta::seconds(60)) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len()
    }
}

impl Throttle {
    fn is_off(&self) -> bool {
        self.per_minute_silent_drop.is_none()
            && self.per_minute_risk.is_none()
            && self.per_minute_offline.is_none()
    }

    fn admission(&self, sends: usize) -> Admission {
        let above = |limit: Option<u32>| limit.is_some_and(|limit| sends > limit as usize);
        if above(self.per_minute_offline) {
            Admission::Offline
        } else if above(self.per_minute_risk) {
            Admission::Risk
        } else if above(self.per_minute_silent_drop) {
            Admission::Drop
        } else {
            Admission::Deliver
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_worsens_with_the_rate_and_forgets_after_a_minute() {
        let mut accounts = Accounts::default();
        accounts.set_throttle(Throttle {
            per_minute_silent_drop: Some(1),
            per_minute_risk: Some(2),
            per_minute_offline: None,
        });
        let start = Utc::now();
        assert_eq!(accounts.admit("wx_a", start), Admission::Deliver);
        assert_eq!(accounts.admit("wx_a", start), Admission::Drop);
        assert_eq!(accounts.admit("wx_a", start), Admission::Risk);
        assert_eq!(accounts.admit("wx_b", start), Admission::Deliver);
        assert_eq!(accounts.admit("wx_a", start + TimeDelta::seconds(60)), Admission::Deliver);
    }

    #[test]
    fn an_account_thrown_out_by_the_throttle_stays_offline() {
        let mut accounts = Accounts::default();
        accounts.set_throttle(Throttle { per_minute_offline: Some(0), ..Throttle::default() });
        let start = Utc::now();
        assert_eq!(accounts.admit("wx_a", start), Admission::Offline);
        accounts.set_throttle(Throttle::default());
        assert_eq!(accounts.admit("wx_a", start + TimeDelta::hours(1)), Admission::Offline);
        assert_eq!(accounts.is_online("wx_a"), Some(false));
    }

    #[test]
    fn only_ids_with_the_device_prefix_exist_unasked() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.is_online("wx_new"), Some(true));
        assert_eq!(accounts.is_online("other"), None);
        assert_eq!(accounts.admit("other", Utc::now()), Admission::Unknown);
        accounts.set_state("other", AccountState::Online);
        assert_eq!(accounts.admit("other", Utc::now()), Admission::Deliver);
    }
}
