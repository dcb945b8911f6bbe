//! The accounts of a dry run: their pace and limits, and what of them is used up already.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::campaigns::prospects::{Calls, Sender};
use uuid::Uuid;

use crate::process::config::Ceilings;
use crate::sop::caps::Standing;
use crate::sop::rehearsal::Account;
use crate::sop::rehearsal::reason::{CALLS_PER_HOUR, MESSAGES_PER_DAY};
use crate::sop::rehearsal::rolling::Limit;
use crate::sop::spread;

/// Accounts with their limits, as a rehearsal takes them.
pub(super) struct Played {
    pub(super) ids: Vec<Uuid>,
    pub(super) accounts: Vec<Account>,
    pub(super) limits: Vec<Limit>,
}

/// Calls, oldest first.
type Used = Vec<(DateTime<Utc>, usize)>;

/// Puts accounts together with what they have sent. `shift` is by how much the clock of campaigns is ahead of the true one, in
/// which calls are counted.
pub(super) fn played(
    senders: &[Sender],
    calls: &[Calls],
    standings: &HashMap<Uuid, Standing>,
    ceilings: &Ceilings,
    now: DateTime<Utc>,
    shift: TimeDelta,
) -> Played {
    let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let most = |n: i32| usize::try_from(n).unwrap_or_default();
    let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
    let tokens: HashMap<Uuid, &str> =
        senders.iter().map(|sender| (sender.id, sender.token_key.as_str())).collect();
    let mut least = HashMap::<&str, i32>::new();
    for sender in senders {
        // Each account looks at the token's hour with its own number; the smallest holds for the rest of them.
        let least = least.entry(&sender.token_key).or_insert(sender.api_calls_per_hour);
        *least = sender.api_calls_per_hour.min(*least);
    }
    let (mut used_in_day, mut used_in_hour) = (HashMap::<Uuid, Used>::new(), HashMap::<&str, Used>::new());
    for calls in calls {
        let at = (calls.until + shift).min(now);
        let used = (at, usize::try_from(calls.calls).unwrap_or_default());
        if at > now - day {
            used_in_day.entry(calls.account_id).or_default().push(used);
        }
        if let Some(token) = tokens.get(&calls.account_id).filter(|_| at > now - hour) {
            used_in_hour.entry(*token).or_default().push(used);
        }
    }
    let (mut limits, mut known_tokens) = (Vec::new(), HashMap::<&str, usize>::new());
    let mut accounts = Vec::with_capacity(senders.len());
    for sender in senders {
        let key = sender.token_key.as_str();
        let token = *known_tokens.entry(key).or_insert_with(|| {
            let calls = least.get(key).copied().unwrap_or_default().min(ceilings.api_calls_per_hour);
            let used = used_in_hour.remove(key).unwrap_or_default();
            limits.push(Limit { most: most(calls), period: hour, used });
            limits.len() - 1
        });
        let used = used_in_day.remove(&sender.id).unwrap_or_default();
        limits.push(Limit { most: most(sender.messages_per_day), period: day, used });
        // Every message goes to somebody else.
        let per_minute =
            sender.messages_per_minute.min(ceilings.messages_per_minute).min(sender.recipients_per_minute);
        let gap = TimeDelta::milliseconds(sender.min_gap_ms.into());
        accounts.push(Account {
            pace: spread::pace(u32::try_from(per_minute).unwrap_or_default(), gap),
            standing: standings.get(&sender.id).copied().unwrap_or_default(),
            sent: number(sender.sent + sender.waiting),
            new_contacts: number(sender.new_contacts),
            limits: vec![(token, CALLS_PER_HOUR), (limits.len() - 1, MESSAGES_PER_DAY)],
        });
    }
    Played { ids: senders.iter().map(|sender| sender.id).collect(), accounts, limits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_one_token_share_its_hour_and_each_has_a_day_of_its_own() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(100);
        let sender = |id: u128, token_key: &str| Sender {
            id: Uuid::from_u128(id),
            user_id: Uuid::nil(),
            messages_per_minute: 40,
            min_gap_ms: 1000,
            messages_per_day: 500,
            recipients_per_minute: 10,
            api_calls_per_hour: 100,
            token_key: token_key.to_owned(),
            sent: 7,
            waiting: 1,
            new_contacts: 2,
        };
        let calls = |id: u128, minutes: i64| Calls {
            account_id: Uuid::from_u128(id),
            until: now - TimeDelta::minutes(minutes),
            calls: 5,
        };
        let senders = [sender(1, ""), sender(2, ""), sender(3, "own")];
        let ceilings = Ceilings { messages_per_minute: 20, api_calls_per_hour: 1000 };
        let played = played(
            &senders,
            &[calls(1, 300), calls(1, 30), calls(2, 20)],
            &HashMap::new(),
            &ceilings,
            now,
            TimeDelta::zero(),
        );
        assert_eq!(played.accounts[0].pace, TimeDelta::seconds(6));
        assert_eq!((played.accounts[0].sent, played.accounts[0].new_contacts), (8, 2));
        let tokens: Vec<usize> = played.accounts.iter().map(|account| account.limits[0].0).collect();
        assert!(tokens[0] == tokens[1] && tokens[1] != tokens[2]);
        let used = |limit: usize| played.limits[limit].used.iter().map(|(_, calls)| calls).sum::<usize>();
        assert_eq!((used(tokens[0]), used(played.accounts[0].limits[1].0)), (10, 10));
        assert_eq!(used(played.accounts[2].limits[1].0), 0);
    }
}
