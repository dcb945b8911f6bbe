//! What speaks for an account being at risk of being limited by WeChat, and what is done about it.
//!
//! [`signal`] is a function of what was seen; [`hold`] says what follows: the account is put on hold at once, its campaigns wait,
//! no machine answers for it, people are told, and only a manager lifts it. Nothing is moved to another account.
//!
//! | signal | looked for |
//! |---|---|
//! | `forced_logout`, `login_verification` | when the provider reports it |
//! | `provider_limit`, `login_verification` | in every refusal of the provider |
//! | `failures_in_a_row`, `failure_share` | after a message of a machine was refused |
//! | `recipients_leave` | after somebody deleted the account or wants no more messages |
//! | `complaint` | in every message that comes in |
//! | `echoes_gone` | on the timetable, at accounts that had echoes |

pub mod hold;

use crate::ai::words::normalize;
use crate::provider::{ErrorClass, SendError};

/// Words with which people complain. An organisation may add its own.
pub const COMPLAINTS: [&str; 3] = ["举报", "投诉", "骚扰"];

/// Messages of machines in a row that the provider refused.
const IN_A_ROW: usize = 3;

/// Messages over which the share of the refused ones is counted; over fewer it says nothing.
const SHARE_OVER: usize = entropy_schema::risk::LOOKED_AT;

/// The share of them that is too much, as one in so many.
const SHARE_ONE_IN: usize = 20;

/// The share of a day's recipients that may leave, as one in so many.
const LEAVE_ONE_IN: i64 = 100;

/// One person who leaves is no sign of anything, and neither are two of a handful.
const LEAVE_AT_LEAST: i64 = 2;

/// Recipients of a day below whom nothing can be said.
const LEAVE_OF_AT_LEAST: i64 = 20;

/// Minutes with echoes that an account must have had for their absence to mean anything.
const ECHOES_KNOWN: i32 = 5;

/// Messages without an echo that mean something.
const ECHOES_MISSING: i64 = 20;

/// A sign that WeChat is about to limit an account, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// The session was ended from outside.
    ForcedLogout,
    /// WeChat wants to know who is logged in.
    LoginVerification,
    /// The provider speaks of limits or frequency.
    ProviderLimit,
    /// Several messages in a row were refused.
    FailuresInARow,
    /// Too many of the last messages were refused.
    FailureShare,
    /// Too many of those who were written to delete the account or want no more messages.
    RecipientsLeave,
    /// Somebody complains.
    Complaint,
    /// What is sent is not echoed any more.
    EchoesGone,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Signal; 8] = [
        Signal::ForcedLogout,
        Signal::LoginVerification,
        Signal::ProviderLimit,
        Signal::FailuresInARow,
        Signal::FailureShare,
        Signal::RecipientsLeave,
        Signal::Complaint,
        Signal::EchoesGone,
    ];

    /// Returns the code that is stored and shown.
    pub fn code(self) -> &'static str {
        match self {
            Signal::ForcedLogout => "forced_logout",
            Signal::LoginVerification => "login_verification",
            Signal::ProviderLimit => "provider_limit",
            Signal::FailuresInARow => "failures_in_a_row",
            Signal::FailureShare => "failure_share",
            Signal::RecipientsLeave => "recipients_leave",
            Signal::Complaint => "complaint",
            Signal::EchoesGone => "echoes_gone",
        }
    }

    /// Returns the signal of a code. None: a newer version has written it.
    pub fn parse(code: &str) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| signal.code() == code)
    }

    /// Says it to people.
    pub fn sentence(self) -> &'static str {
        match self {
            Signal::ForcedLogout => "the account was logged out from outside",
            Signal::LoginVerification => "WeChat asks the account to prove who it is",
            Signal::ProviderLimit => {
                "the provider says that WeChat limits the account, or that it acts too often"
            }
            Signal::FailuresInARow => "three messages in a row were refused",
            Signal::FailureShare => "more than one in twenty of the last fifty messages were refused",
            Signal::RecipientsLeave => {
                "more than one in a hundred of those written to within a day deleted the account or want no more messages"
            }
            Signal::Complaint => "somebody complains, or threatens to report the account",
            Signal::EchoesGone => "what the account sends is not echoed any more, though it was before",
        }
    }
}

/// What was seen of an account.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// The provider reports a logout that did not come from a lost connection.
    LoggedOut,
    /// The provider reports that WeChat asks for a verification of the login.
    Verification,
    /// The provider refused a call in words of limits, frequency or verification.
    Refused(&'a SendError),
    /// The last messages of machines, newest first: whether they were refused.
    Sends(&'a [bool]),
    /// Of so many people who were written to within a day, so many have gone since.
    Leavers {
        /// Written to.
        recipients: i64,
        /// Gone.
        gone: i64,
    },
    /// Somebody wrote this; the organisation's own words for complaints.
    Wrote(&'a str, &'a [String]),
    /// Echoes came in so many minutes, and so many messages since have none.
    Echoes {
        /// With an echo.
        minutes: i32,
        /// Messages without one.
        silent: i64,
    },
}

/// Tells which signal it is, if it is one.
pub fn signal(seen: Seen<'_>) -> Option<Signal> {
    let (met, signal) = match seen {
        Seen::LoggedOut => (true, Signal::ForcedLogout),
        Seen::Verification => (true, Signal::LoginVerification),
        Seen::Refused(error) if error.class != ErrorClass::RiskControl => return None,
        Seen::Refused(error) if error.code == VERIFICATION_CODE => (true, Signal::LoginVerification),
        Seen::Refused(_) => (true, Signal::ProviderLimit),
        Seen::Sends(refused) => {
            let row = refused.len() >= IN_A_ROW && refused[..IN_A_ROW].iter().all(|refused| *refused);
            if row {
                return Some(Signal::FailuresInARow);
            }
            let window = &refused[..refused.len().min(SHARE_OVER)];
            let count = window.iter().filter(|refused| **refused).count();
            (window.len() == SHARE_OVER && count * SHARE_ONE_IN > SHARE_OVER, Signal::FailureShare)
        }
        Seen::Leavers { recipients, gone } => (
            gone >= LEAVE_AT_LEAST && recipients >= LEAVE_OF_AT_LEAST && gone * LEAVE_ONE_IN > recipients,
            Signal::RecipientsLeave,
        ),
        Seen::Wrote(text, own) => {
            let text = normalize(text);
            let has = |word: &str| {
                let word = normalize(word);
                !word.is_empty() && text.contains(&word)
            };
            (COMPLAINTS.into_iter().any(has) || own.iter().any(|word| has(word)), Signal::Complaint)
        }
        Seen::Echoes { minutes, silent } => {
            (minutes >= ECHOES_KNOWN && silent >= ECHOES_MISSING, Signal::EchoesGone)
        }
    };
    met.then_some(signal)
}

/// The code of a refusal by which the provider passes on that WeChat asks for a verification of the login.
pub const VERIFICATION_CODE: &str = "login_verification";

/// Words with which WeChat, in the provider's answers and events, asks for a verification of the login.
const VERIFICATION: [&str; 7] =
    ["安全验证", "登录验证", "身份验证", "验证码", "滑块", "人脸识别", "环境异常"];

/// Tells whether a text of the provider's asks for a verification of the login.
pub fn asks_for_verification(text: &str) -> bool {
    VERIFICATION.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(refused: &[usize], of: usize) -> Option<Signal> {
        let list: Vec<bool> = (0..of).map(|n| refused.contains(&n)).collect();
        signal(Seen::Sends(&list))
    }

    #[test]
    fn three_failures_in_a_row_are_a_signal_and_two_with_a_success_between_are_none() {
        assert_eq!(sends(&[0, 1, 2], 3), Some(Signal::FailuresInARow));
        assert_eq!(sends(&[0, 1], 2), None);
        assert_eq!(sends(&[0, 1, 3], 10), None);
        assert_eq!(sends(&[1, 2, 3], 10), None, "the last one went through");
        assert_eq!(sends(&[], 0), None);
    }

    #[test]
    fn more_than_one_in_twenty_of_fifty_is_a_signal() {
        assert_eq!(sends(&[0, 25], 50), None, "four in a hundred");
        assert_eq!(sends(&[0, 25, 49], 50), Some(Signal::FailureShare));
        assert_eq!(sends(&[0, 25, 48], 49), None, "fewer than fifty say nothing");
    }

    #[test]
    fn more_than_one_in_a_hundred_who_leave_are_a_signal_but_never_one_alone() {
        let leave = |gone, recipients| signal(Seen::Leavers { recipients, gone });
        assert_eq!(leave(1, 50), None);
        assert_eq!(leave(2, 19), None);
        assert_eq!(leave(2, 20), Some(Signal::RecipientsLeave));
        assert_eq!(leave(2, 199), Some(Signal::RecipientsLeave));
        assert_eq!(leave(2, 200), None, "exactly one in a hundred");
        assert_eq!(leave(3, 200), Some(Signal::RecipientsLeave));
    }

    #[test]
    fn complaints_are_found_however_they_are_written() {
        let wrote = |text: &str, own: &[&str]| {
            let own: Vec<String> = own.iter().map(|word| (*word).to_owned()).collect();
            signal(Seen::Wrote(text, &own))
        };
        for text in ["再发我就投诉了", "我要举 报你们", "这是骚\u{200b}扰！"] {
            assert_eq!(wrote(text, &[]), Some(Signal::Complaint), "{text}");
        }
        assert_eq!(wrote("多少钱？", &[]), None);
        assert_eq!(wrote("你们是骗子吧", &["骗子", " "]), Some(Signal::Complaint));
    }

    #[test]
    fn echoes_that_never_came_are_not_missed() {
        let echoes = |minutes, silent| signal(Seen::Echoes { minutes, silent });
        assert_eq!(echoes(0, 100), None);
        assert_eq!(echoes(4, 100), None);
        assert_eq!(echoes(5, 19), None);
        assert_eq!(echoes(5, 20), Some(Signal::EchoesGone));
    }

    #[test]
    fn every_signal_has_a_code_of_its_own_and_a_sentence() {
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.code()), Some(signal));
            assert!(signal.sentence().contains(' '));
        }
        assert_eq!(Signal::parse("weather"), None);
    }

    #[test]
    fn a_wrong_argument_is_no_verification() {
        assert!(asks_for_verification("需要进行安全验证"));
        assert!(!asks_for_verification("参数验证失败"));
    }
}
