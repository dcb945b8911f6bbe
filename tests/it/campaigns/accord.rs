//! A campaign goes as it was rehearsed, on real processes, while workers are killed all along: on each day each account sends as many
//! messages, the last leaves when it was said to, and nobody hears anything twice, outside of the hours, or after an answer.
//!
//! The clock of campaigns goes as fast as any other while there is something to do, and jumps over the time in which there is
//! nothing: nights, a holiday, everybody's waits.
//!
//! Some people answer, or want no more messages, as soon as they have heard the first one. The rehearsal is told who, so these
//! change nothing in what it says. Those of the unruly accounts write whenever they like, best while their next message is on its
//! way, which nobody can rehearse: how much these accounts send is not compared, and they have no part in when it ends.

mod figures;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::figures::{Course, day, is_open};
use self::stage::{Stage, TEXTS};
use crate::harness::{Platform, chaos, secs};

/// How large it is. There is room on the last days: a few messages less on the days before do not make another one.
struct Size {
    people: usize,
    accounts: usize,
    /// People of the first account, which is new. The others have as many each.
    of_new: usize,
    /// Of these, the last so many have people who write whenever they like.
    unruly: usize,
    messages: usize,
    /// What an account may send in a day, and to how many who never answered.
    per_account: u32,
    strangers: u32,
    workers: usize,
    /// Between two kills.
    kill_every: Duration,
    /// Until it must be over.
    patience: Duration,
}

/// Beside everything else that is tested.
const SHORT: Size = Size {
    people: 200,
    accounts: 6,
    of_new: 50,
    unruly: 1,
    messages: 2,
    per_account: 24,
    strangers: 11,
    workers: 3,
    kill_every: Duration::from_millis(1500),
    patience: secs(240),
};

/// As it was promised.
const LONG: Size = Size {
    people: 10_000,
    accounts: 20,
    of_new: 500,
    unruly: 2,
    messages: 3,
    per_account: 300,
    strangers: 100,
    workers: 3,
    kill_every: secs(1),
    patience: secs(3600),
};

/// Kills that one of the workers is spared, each in its turn: what the dead held is taken back by a worker that has lived for five
/// seconds.
const SPARED: usize = 10;

/// Kills one worker after the other until told to stop, and starts another in its place each time. Returns how often.
async fn strike(platform: &mut Platform, every: Duration, stop: &CancellationToken) -> usize {
    let (workers, mut kills) = (platform.workers.len(), 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return kills,
        }
        let spared = kills / SPARED % workers;
        platform.replace_worker((spared + 1 + kills % (workers - 1)) % workers);
        kills += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_goes_as_it_was_rehearsed_while_workers_are_killed() {
    let size = if chaos::long() { &LONG } else { &SHORT };
    let mut platform = Platform::with().workers(size.workers).alone().start().await;
    let stage = Stage::set(&platform, size).await;
    let (rehearsed, took) = stage.rehearse().await;
    let bottleneck = stage.accounts[0].id;
    assert_eq!((rehearsed.targets, rehearsed.recipients), (size.people, size.people));
    assert_eq!(rehearsed.bottleneck, Some(bottleneck), "the new account holds up the end");
    let foreseen = Course::foreseen(&stage, &rehearsed);

    let (begins, begun) = (stage.now().await, Instant::now());
    stage.start().await;
    let stop = CancellationToken::new();
    let drive = async {
        let written = stage.drive(size.patience).await;
        stop.cancel();
        written
    };
    let (kills, written) = futures::join!(strike(&mut platform, size.kill_every, &stop), drive);
    let lasted = begun.elapsed();
    platform.ready().await;
    platform.idle(secs(120)).await;
    platform.assert_sound().await;
    let course = stage.course().await;

    // Nobody twice, and what the record says is what the phones have received.
    let mut heard: BTreeMap<(String, String), usize> = BTreeMap::new();
    for arrival in platform.ledger().await {
        if TEXTS.contains(&arrival.message.text.as_str()) {
            *heard.entry((arrival.message.to_wxid, arrival.message.text)).or_default() += 1;
        }
    }
    assert!(heard.values().all(|times| *times == 1), "nobody hears it twice");
    let (mut unknown, mut failed) = (0, 0);
    let mut went_wrong = BTreeSet::new();
    for step in &course.steps {
        let times =
            heard.remove(&(step.wxid.clone(), step.text.clone().unwrap_or_default())).unwrap_or_default();
        match step.state.as_str() {
            "sent" => assert_eq!(times, 1, "{step:?}"),
            // Its worker died between its gate and its end.
            "unknown" => unknown += 1,
            // Two workers died of it: it is left to a person.
            "failed" => {
                (failed, _) = (failed + 1, went_wrong.insert(step.contact_id));
                assert_eq!(times, 0, "{step:?}");
            }
            "canceled" | "skipped" => assert_eq!(times, 0, "{step:?}"),
            _ => panic!("nobody is on the way any more: {step:?}"),
        }
    }
    assert!(heard.is_empty(), "nothing that is not on record: {heard:?}");

    // Nothing outside of the hours, nothing above a cap.
    let (mut of_contact, mut of_strangers) = (BTreeMap::new(), BTreeMap::new());
    for step in course.steps.iter().filter(|step| step.left()) {
        let at = step.sent_at.expect("a time");
        assert!(is_open(at), "{step:?}");
        *of_contact.entry((step.contact_id, day(at))).or_insert(0) += 1;
        // Whoever answers makes room for somebody else.
        if stage.is_stranger(step.contact_id) && stage.is_ruly(step.account_id) {
            *of_strangers.entry((step.account_id, day(at))).or_insert(0) += 1;
        }
    }
    assert!(of_contact.values().all(|sent| *sent == 1), "one message a day for everybody");
    assert!(of_strangers.values().all(|sent| *sent <= size.strangers), "{of_strangers:?}");
    for ((account, on), sent) in course.by_day() {
        let is_new = account == bottleneck && on < stage::WARM.parse().expect("a day");
        let most = if is_new { 20 } else { size.per_account };
        assert!(sent <= most, "{sent} of {account} on {on}");
    }

    // Nothing after an answer: both are written under the enrollment's lock.
    let mut said: BTreeMap<Uuid, Vec<DateTime<Utc>>> = BTreeMap::new();
    for step in course.steps.iter().filter(|step| step.left()) {
        said.entry(step.contact_id).or_default().extend(step.sent_at);
    }
    let (mut replied, mut opted_out) = (0, 0);
    for way in &course.ways {
        assert!(way.finished_at.is_some(), "{way:?}");
        let silent_from = match way.reason.as_deref() {
            Some("opted_out") => way.finished_at,
            _ => way.replied_at,
        };
        let Some(silent_from) = silent_from else { continue };
        match way.reason.as_deref() {
            Some("opted_out") => opted_out += 1,
            _ => replied += 1,
        }
        let own = said.get(&way.contact_id).into_iter().flatten();
        let late = own.filter(|at| **at > silent_from).count();
        assert_eq!(late, 0, "{way:?}");
    }
    assert!(replied > 0 && opted_out > 0, "{written} have written");

    // As it was rehearsed.
    let same = course.compare(&foreseen, &stage, bottleneck, &went_wrong);
    let (ends, ended) = (rehearsed.ends_at.expect("an end"), course.ends_at());
    let share =
        (ended - ends).num_milliseconds().abs() as f64 * 100.0 / (ends - begins).num_milliseconds() as f64;
    chaos::report(&format!(
        "accord: {} people over {} accounts, {} messages rehearsed in {took:.1?}; end foreseen {ends:.0?}, real {ended:.0?} \
         ({share:.2} % off); {} of {} days of accounts the same, {} messages on another day, {} at most\n\
         {kills} workers killed in {lasted:.0?}; {} messages sent, {unknown} unknown, {failed} failed; {replied} people answered, \
         {opted_out} opted out; of the new account {}\n",
        size.people,
        size.accounts,
        rehearsed.messages,
        same.days,
        same.of,
        same.moved,
        same.most,
        course.by_day().values().sum::<u32>(),
        same.of_new,
    ));
    assert!(share <= 2.0, "foreseen {ends}, ended {ended}");
    assert_eq!(course.last_account(), bottleneck);
    // Whose step met a death comes behind the others, and where a cap is full by then, on another day, as does what follows.
    assert!(same.moved * 20 <= same.messages && same.most <= 5.max(size.per_account / 10), "{same:?}");
    assert!(failed * 50 <= course.steps.len(), "{failed} messages failed");
    assert!(kills > 3);
}
