//! Any sequence of moves, any loss, any number of failures.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use crate::backoff::backoff;
use crate::lifecycle::{
    AfterLoss, Delivery, Event, LossReason, LostSend, OnUnknown, QUARANTINE_AFTER, State, after_loss, next,
};

const DELIVERIES: [Delivery; 3] = [Delivery::AtLeastOnce, Delivery::AtMostOnce, Delivery::OnceOrAsk];
const SENDS: [LostSend; 5] =
    [LostSend::NotBegun, LostSend::Sending, LostSend::Sent, LostSend::Failed, LostSend::Unknown];
const POLICIES: [OnUnknown; 3] = [OnUnknown::Hold, OnUnknown::Resend, OnUnknown::Drop];

/// The table in `docs/ARCHITECTURE.md`, "Delivery", row by row.
fn as_documented(
    delivery: Delivery,
    send: LostSend,
    policy: OnUnknown,
    deaths: i16,
    attempts_left: bool,
) -> AfterLoss {
    let uncertain = send == LostSend::Sending || send == LostSend::Unknown;
    let tried_again = if deaths >= 2 {
        AfterLoss::Dead(LossReason::Quarantined)
    } else if !attempts_left {
        AfterLoss::Dead(LossReason::AttemptsSpent)
    } else {
        AfterLoss::Retry
    };
    if send == LostSend::Sent {
        return AfterLoss::Completed;
    }
    match delivery {
        Delivery::AtLeastOnce => tried_again,
        Delivery::AtMostOnce => AfterLoss::Dead(LossReason::AtMostOnce),
        Delivery::OnceOrAsk if !uncertain => tried_again,
        Delivery::OnceOrAsk => match policy {
            OnUnknown::Hold => AfterLoss::Dead(LossReason::OutcomeUnknown),
            OnUnknown::Drop => AfterLoss::Dropped,
            OnUnknown::Resend => tried_again,
        },
    }
}

#[test]
fn every_loss_is_decided_as_documented() {
    for delivery in DELIVERIES {
        for send in SENDS {
            for policy in POLICIES {
                for deaths in [0, 1, 2, 3, i16::MAX] {
                    for left in [false, true] {
                        let decided = after_loss(delivery, send, policy, deaths, QUARANTINE_AFTER, left);
                        let expected = as_documented(delivery, send, policy, deaths, left);
                        assert_eq!(decided, expected, "{delivery:?} {send:?} {policy:?} {deaths} {left}");
                    }
                }
            }
        }
    }
}

/// How one attempt of a job ends: its process dies at some point of a send, or it lives and says retry.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Dies(LostSend),
    Fails,
}

/// What came of a life.
#[derive(Debug, Default)]
struct Life {
    attempts: i16,
    deaths: i16,
    /// Messages that may have left.
    may_have_left: u32,
}

/// Lets a job live through `fates`, as the rescuer and the workers do.
fn live(delivery: Delivery, policy: OnUnknown, max_attempts: i16, fates: &[Fate]) -> Life {
    let mut life = Life::default();
    for fate in fates {
        life.attempts += 1;
        let left = life.attempts < max_attempts;
        let goes_on = match fate {
            Fate::Fails => left,
            Fate::Dies(send) => {
                life.deaths += 1;
                if matches!(send, LostSend::Sending | LostSend::Sent | LostSend::Unknown) {
                    life.may_have_left += 1;
                }
                after_loss(delivery, *send, policy, life.deaths, QUARANTINE_AFTER, left) == AfterLoss::Retry
            }
        };
        if !goes_on {
            break;
        }
    }
    life
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![2 => Just(Fate::Fails), 3 => select(&SENDS[..]).prop_map(Fate::Dies)];
    prop::collection::vec(fate, 1..40)
}

proptest! {
    #[test]
    fn a_life_keeps_its_promises(
        delivery in select(&DELIVERIES[..]),
        policy in select(&POLICIES[..]),
        max_attempts in 1_i16..20,
        fates in fates(),
    ) {
        let life = live(delivery, policy, max_attempts, &fates);
        prop_assert!(life.attempts <= max_attempts, "{life:?}");
        prop_assert!(life.deaths <= QUARANTINE_AFTER, "{life:?}");
        if delivery == Delivery::AtMostOnce {
            prop_assert!(life.deaths <= 1, "{life:?}");
        }
        if delivery == Delivery::OnceOrAsk && policy != OnUnknown::Resend {
            prop_assert!(life.may_have_left <= 1, "sent again unasked: {life:?}");
        }
    }

    #[test]
    fn any_sequence_of_moves_keeps_the_diagram(events in prop::collection::vec(select(&Event::ALL[..]), 0..60)) {
        for start in [State::Scheduled, State::Available] {
            let (mut state, mut ended_well) = (start, false);
            for event in &events {
                let Some(moved) = next(state, *event) else { continue };
                prop_assert!(moved != state, "{event:?} leads nowhere from {state}");
                prop_assert!(!ended_well, "{event:?} moved a job that was over");
                if state.is_final() {
                    prop_assert_eq!(state, State::Dead, "only a dead job goes on");
                    prop_assert!(matches!(event, Event::Revive | Event::ResolveSent));
                }
                prop_assert_eq!(moved == State::Running, *event == Event::Claim);
                if moved == State::Completed {
                    prop_assert!(state == State::Running || *event == Event::ResolveSent);
                }
                ended_well = matches!(moved, State::Completed | State::Cancelled);
                state = moved;
            }
            // Whatever happened, a person can end what lives and revive what is dead.
            if !state.is_final() {
                prop_assert_eq!(next(state, Event::Cancel), Some(State::Cancelled));
            }
            prop_assert_eq!(next(state, Event::Revive).is_some(), state == State::Dead);
        }
    }

    #[test]
    fn a_policy_is_read_as_it_was_written_and_anything_else_asks_a_person(word in ".{0,12}") {
        for policy in POLICIES {
            let written = serde_json::to_value(policy).expect("a word");
            prop_assert_eq!(OnUnknown::parse(written.as_str()), policy);
        }
        if !["resend", "drop"].contains(&word.as_str()) {
            prop_assert_eq!(OnUnknown::parse(Some(&word)), OnUnknown::Hold);
        }
    }

    #[test]
    fn a_backoff_stays_between_its_bounds_and_never_shrinks(failed in any::<u32>(), jitter in any::<f64>()) {
        let wait = backoff(failed, jitter);
        let (longest, shortest) = (backoff(failed, 0.0), backoff(failed, 1.0));
        prop_assert!(wait <= longest && wait >= shortest, "{wait:?}");
        prop_assert!(longest <= Duration::from_secs(600) && shortest >= Duration::from_millis(800));
        let later = backoff(failed.saturating_add(1), 0.0);
        prop_assert!(later >= longest && later <= longest * 2, "{longest:?} then {later:?}");
        // A fifth at most.
        prop_assert!(shortest * 5 + Duration::from_millis(1) >= longest * 4);
    }
}
