//! What people look at and change: numbers, lists, dry runs, the end of a plan. Here the planner chooses, and has statistics.

use chrono::{TimeDelta, Utc};
use entropy_schema::Profile;
use entropy_schema::campaigns::audience::{self, By as Named};
use entropy_schema::campaigns::enrollments::{self, Whose};
use entropy_schema::campaigns::funnel::{self, By};
use entropy_schema::campaigns::{candidates, plans, prospects, runs, steps, succession};
use uuid::Uuid;

use super::super::{MOST_THROWN_AWAY, ORGANIZATION, Observer, SLOWEST};
use super::{CONTACT, ENDED, ENROLLMENT, FEW, LARGE, LIVING, PLAN, VERSION, contacts, wanted};
use crate::harness::Book;

/// The people of a part of a dry run.
const SLICE: u128 = 5000;

/// What people look at.
pub(super) async fn are_read(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Api);
    numbers(&mut seen).await;
    lists(&mut seen).await;
    prospects(&mut seen).await;
    seen
}

/// Everybody is counted, from indexes. Arms stand in the rows themselves, and those are read.
async fn numbers(seen: &mut Observer<'_>) {
    for (by, version) in [By::All, By::Step].into_iter().flat_map(|by| [(by, None), (by, Some(VERSION))]) {
        let what = format!("people by {by:?} in {version:?}");
        let people =
            seen.watch(&what, async |conn| funnel::people(conn, ORGANIZATION, PLAN, version, by).await);
        let counted: i64 = people.await.iter().map(|row| row.people).sum();
        assert_eq!(counted, if version.is_none() { LIVING + ENDED } else { LIVING / 100 * 99 }, "{what}");
        let what = format!("steps in {version:?}");
        let steps =
            seen.watch(&what, async |conn| funnel::steps(conn, ORGANIZATION, PLAN, version).await).await;
        assert!(steps.iter().map(|row| row.steps).sum::<i64>() > 100_000, "{what}");
    }
    (seen.large, seen.slowest) = (&[], SLOWEST * 2);
    let arms = seen
        .watch("people by arm", async |conn| funnel::people(conn, ORGANIZATION, PLAN, None, By::Arm).await);
    assert_eq!(arms.await.iter().map(|row| row.people).sum::<i64>(), LIVING + ENDED);
    (seen.large, seen.slowest) = (&LARGE, SLOWEST);
    seen.most_read = FEW;
    let unknown =
        seen.watch("unknown", async |conn| funnel::unknown(conn, ORGANIZATION, PLAN, Some(1)).await);
    assert_eq!(unknown.await, 20);
    seen.most_read = f64::INFINITY;
    let live = seen.watch("by version", async |conn| plans::live_by_version(conn, ORGANIZATION, PLAN).await);
    assert_eq!(live.await.len(), 2);
}

async fn lists(seen: &mut Observer<'_>) {
    for state in ["pending", "waiting", "paused", "completed", "exited", "failed"] {
        // Who is on their way is looked for from the newest on, where there are many of them, else among those of their state.
        let living = matches!(state, "pending" | "waiting" | "paused");
        seen.most_read = if living { 2000.0 } else { FEW };
        seen.most_thrown_away = if living { LIVING as f64 / 10.0 } else { 0.0 };
        let what = format!("those who are {state}");
        let page = seen
            .watch(&what, async |conn| {
                enrollments::list(conn, ORGANIZATION, PLAN, Some(state), None, None, 51).await
            })
            .await;
        assert_eq!(page.len(), 51, "{what}");
        let (what, before) = (format!("{what}, next page"), page.last().map(|row| row.id));
        seen.watch(&what, async |conn| {
            enrollments::list(conn, ORGANIZATION, PLAN, Some(state), None, before, 51).await
        })
        .await;
    }
    (seen.most_read, seen.most_thrown_away) = (FEW, MOST_THROWN_AWAY);
    for contact in [None, Some(CONTACT)] {
        let what = format!("people, contact: {contact:?}");
        let page = seen.watch(&what, async |conn| {
            enrollments::list(conn, ORGANIZATION, PLAN, None, contact, None, 51).await
        });
        assert_eq!(page.await.len(), if contact.is_some() { 2 } else { 51 });
    }
    seen.watch("one", async |conn| enrollments::get(conn, ORGANIZATION, ENROLLMENT).await).await;
    let of_contact = seen.watch("what campaigns did with somebody", async |conn| {
        funnel::of_contact(conn, ORGANIZATION, CONTACT, None, 51).await
    });
    assert_eq!(of_contact.await.len(), 2);
    seen.watch("somebody's steps", async |conn| steps::of(conn, ORGANIZATION, ENROLLMENT).await).await;
    for sop in [None, Some(PLAN)] {
        let what = format!("texts that wait for a person, of {sop:?}");
        let held = seen.watch(&what, async |conn| steps::held(conn, ORGANIZATION, sop, None, 51).await).await;
        assert_eq!(held.len(), 51);
        let before = held.last().map(|step| step.enrollment_id);
        seen.watch(&what, async |conn| steps::held(conn, ORGANIZATION, sop, before, 51).await).await;
    }
    let page = seen.watch("runs", async |conn| runs::list(conn, ORGANIZATION, PLAN, None, 51).await).await;
    let before = page.last().map(|run| run.id);
    seen.watch("runs, next page", async |conn| runs::list(conn, ORGANIZATION, PLAN, before, 51).await).await;
    let open = seen.watch("open runs", async |conn| runs::open(conn, ORGANIZATION, PLAN).await);
    assert_eq!(open.await.len(), 3);
    seen.watch("plans", async |conn| {
        plans::list(conn, ORGANIZATION, Some("RUNNING"), None, 51, 1_000_000).await
    })
    .await;
    let known = contacts(50);
    let faces = seen.watch("faces", async |conn| audience::faces(conn, ORGANIZATION, &known).await);
    assert_eq!(faces.await.len(), 50);
    seen.most_read = f64::INFINITY;
}

/// What a dry run reads of each part of its people. It may look at all accounts for each, and at nobody else.
async fn prospects(seen: &mut Observer<'_>) {
    let people = contacts(SLICE);
    // Contacts and conversations may be read as a whole for so many: that is the quicker way here.
    (seen.large, seen.slowest) = (&["sop_enrollments", "sop_steps"], SLOWEST * 4);
    seen.most_read = 2.0 * SLICE as f64;
    let tags = ["重点".to_owned()];
    let mut tagged = 0;
    seen.watch("an audience by tag", async |conn| {
        audience::each(conn, &wanted(Named::Tags(&tags)), LIVING, |_| tagged += 1).await
    })
    .await;
    assert_eq!(tagged, 200);
    seen.watch("candidates of a dry run", async |conn| {
        candidates::look_at(conn, ORGANIZATION, &people, PLAN, Some("活动通知")).await
    })
    .await;
    let known = seen
        .watch("facts of a dry run", async |conn| prospects::facts(conn, ORGANIZATION, &people, PLAN).await);
    assert_eq!(known.await.len(), people.len());
    let answered = vec![None; people.len()];
    let week = Utc::now() - TimeDelta::days(7);
    let had =
        seen.watch("what they have had", async |conn| prospects::had(conn, &people, &answered, week).await);
    assert_eq!(had.await.len(), people.len());
    let accounts: Vec<Uuid> =
        (0..50).map(|n| Uuid::from_u128(0x0181_0000_0000_7000_8000_0000_0000_0000 + n)).collect();
    let day = Utc::now() - TimeDelta::days(1);
    let senders = seen.watch("accounts of a dry run", async |conn| {
        prospects::senders(conn, ORGANIZATION, &accounts, day).await
    });
    assert_eq!(senders.await.len(), 50);
    seen.watch("calls of accounts", async |conn| prospects::calls(conn, &accounts).await).await;
    (seen.large, seen.slowest, seen.most_read) = (&LARGE, SLOWEST, f64::INFINITY);
}

/// What people change. Of many, a page at a time.
pub(super) async fn are_changed(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Api);
    (seen.most_read, seen.slowest) = (3000.0, SLOWEST * 2);
    seen.watch("a plan goes on", async |conn| {
        enrollments::wake_waiting(conn, ORGANIZATION, PLAN, "sop_paused").await
    })
    .await;
    // They are gone through in the order of their ids, those at an end as well.
    seen.most_thrown_away = (LIVING + ENDED) as f64;
    let steps = ["rest".to_owned()];
    let moved = seen.watch("people move to another version", async |conn| {
        let after = Uuid::nil();
        succession::move_on(conn, ORGANIZATION, PLAN, (1, VERSION), &steps, after, 100).await
    });
    assert_eq!(moved.await.moved, 100);
    seen.most_thrown_away = MOST_THROWN_AWAY;
    for (what, whose) in [
        ("people of a version end", Whose::Version(PLAN, 1, 1000)),
        ("people of a plan end", Whose::Plan(PLAN, 1000)),
        ("more of them end", Whose::Plan(PLAN, 1000)),
    ] {
        let ended =
            seen.watch(what, async |conn| enrollments::end(conn, ORGANIZATION, whose, "canceled").await);
        assert_eq!(ended.await.ended, 1000, "{what}");
    }
    seen
}
