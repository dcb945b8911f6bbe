//! The plans of lists, searches and reports: what people look at.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use entropy_schema::costs::GroupBy;
use entropy_schema::views::conversations::{self as views, ChatFilter, ContactFilter};
use entropy_schema::{
    Profile, ai_runs, alerts, callbacks, conversations, cost_rollups, costs, drafts, reports, search,
};

use super::super::{MOST_THROWN_AWAY, ORGANIZATION, Observer, SLOWEST};
use super::{ACCOUNT, CHAT, CHATS, CONTACT, LARGE, PEER};
use crate::harness::Book;

/// The bounds of the days of a month that ended `days` ago.
fn month_before(days: u64) -> Vec<DateTime<Utc>> {
    let last: NaiveDate = Utc::now().date_naive() - Days::new(days);
    (0..=30)
        .rev()
        .map(|back| (last - Days::new(back)).and_hms_opt(0, 0, 0).expect("midnight").and_utc())
        .collect()
}

/// Tables that no list may read from end to end. An organisation's accounts are few.
static LISTED: [&str; 12] = [
    "contacts",
    "conversations",
    "messages",
    "turns",
    "mode_changes",
    "callback_events",
    "ai_runs",
    "drafts",
    "alerts",
    "opt_outs",
    "cost_ledgers",
    "budget_periods",
];

/// Goes through the chats or the contacts of an organisation one by one: a known limit, which time alone bounds.
fn allow_all_chats(seen: &mut Observer<'_>, allowed: bool) {
    seen.large = if allowed { &[] } else { &LISTED };
    seen.most_thrown_away = if allowed { f64::from(CHATS) * 1.1 } else { MOST_THROWN_AWAY };
    seen.slowest = if allowed { SLOWEST * 4 } else { SLOWEST };
}

/// What people look at.
pub(super) async fn are_read(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Api);
    allow_all_chats(&mut seen, false);
    let all = ChatFilter::default;
    let filters = [
        ("chats", all()),
        ("chats of an account", ChatFilter { account_id: Some(ACCOUNT), ..all() }),
        ("unread chats", ChatFilter { unread: true, ..all() }),
        ("unread chats of an account", ChatFilter { account_id: Some(ACCOUNT), unread: true, ..all() }),
        ("chats with people", ChatFilter { account_id: Some(ACCOUNT), mode: Some("human"), ..all() }),
    ];
    for (what, filter) in filters {
        allow_all_chats(&mut seen, filter.unread);
        // The accounts of the whole install may be read for it.
        seen.most_thrown_away = seen.most_thrown_away.max(5100.0);
        let page =
            seen.watch(what, async |conn| views::chats(conn, ORGANIZATION, &filter, None, 51).await).await;
        let Some(last) = page.last().map(|chat| (chat.conversation.last_message_at, chat.conversation.id))
        else {
            panic!("{what}: none")
        };
        let next = format!("{what}, next page");
        seen.watch(&next, async |conn| views::chats(conn, ORGANIZATION, &filter, Some(last), 51).await).await;
    }
    allow_all_chats(&mut seen, false);
    seen.watch("a chat", async |conn| views::chat(conn, ORGANIZATION, CHAT).await).await.expect("a chat");
    let page =
        seen.watch("messages", async |conn| views::messages(conn, ORGANIZATION, CHAT, None, 51).await).await;
    let before = page.last().map(|said| said.id);
    seen.watch("messages, next page", async |conn| {
        views::messages(conn, ORGANIZATION, CHAT, before, 51).await
    })
    .await;
    seen.watch("what waits in a chat", async |conn| {
        views::waiting(conn, ORGANIZATION, ACCOUNT, PEER, 51).await
    })
    .await;
    seen.watch("changes of the mode", async |conn| {
        views::mode_changes(conn, ORGANIZATION, CHAT, None, 51).await
    })
    .await;
    assert!(
        seen.watch("mark read", async |conn| conversations::mark_read(conn, ORGANIZATION, CHAT).await).await
    );
    let contacts = [
        ("contacts", ContactFilter::default()),
        ("contacts of an account", ContactFilter { account_id: Some(ACCOUNT), ..ContactFilter::default() }),
        ("contacts with a tag", ContactFilter { tag: Some("重点".into()), ..ContactFilter::default() }),
        ("contacts by name", ContactFilter { name: Some("客户9999".into()), ..ContactFilter::default() }),
    ];
    for (what, filter) in contacts {
        allow_all_chats(&mut seen, filter.name.is_some());
        let page =
            seen.watch(what, async |conn| views::contacts(conn, ORGANIZATION, &filter, None, 51).await).await;
        assert!(!page.is_empty(), "{what}");
    }
    allow_all_chats(&mut seen, false);
    finds(&mut seen).await;
    costs_are_read(&mut seen).await;
    for acknowledged in [None, Some(false), Some(true)] {
        let filter = alerts::Filter { acknowledged, ..alerts::Filter::default() };
        let what = format!("alerts, acknowledged: {acknowledged:?}");
        seen.watch(&what, async |conn| alerts::list(conn, ORGANIZATION, filter, None, 51).await).await;
    }
    for state in [None, Some("waiting".to_owned())] {
        let filter = drafts::Filter { state, ..drafts::Filter::default() };
        let what = format!("drafts {:?}", filter.state);
        seen.watch(&what, async |conn| drafts::list(conn, ORGANIZATION, &filter, 51).await).await;
    }
    for outcome in [None, Some("unknown")] {
        let what = format!("events {outcome:?}");
        seen.watch(&what, async |conn| callbacks::list(conn, ORGANIZATION, outcome, None, None, 51).await)
            .await;
    }
    let runs = ai_runs::Filter { conversation_id: Some(CHAT), ..ai_runs::Filter::default() };
    seen.watch("runs of a chat", async |conn| ai_runs::list(conn, ORGANIZATION, runs, 51).await).await;
    let (from, to) = (Utc::now() - TimeDelta::days(7), Utc::now());
    seen.watch("report: messages", async |conn| reports::messages(conn, ORGANIZATION, from, to).await).await;
    seen.watch("report: turns", async |conn| reports::turns(conn, ORGANIZATION, from, to).await).await;
    seen
}

async fn finds(seen: &mut Observer<'_>) {
    let filter = |text: &str| search::Filter {
        organization_id: ORGANIZATION,
        text: text.into(),
        account_id: None,
        contact_id: None,
        conversation_id: None,
        from: None,
        to: None,
        before: None,
        limit: 51,
    };
    let found = seen.watch("search", async |conn| search::find(conn, &filter("退货退款")).await).await;
    assert_eq!(found.len(), 51);
    let rare =
        seen.watch("search for one", async |conn| search::find(conn, &filter("第54321号")).await).await;
    assert_eq!(rare.len(), 1);
    let none = seen.watch("search in vain", async |conn| search::find(conn, &filter("合同发票")).await).await;
    assert!(none.is_empty());
    // Two characters have no trigram: the API bounds them by a time, a chat, a contact or an account.
    let chat = search::Filter { conversation_id: Some(CHAT), ..filter("套餐") };
    seen.watch("search in a chat", async |conn| search::find(conn, &chat).await).await;
    let contact = search::Filter { contact_id: Some(CONTACT), ..filter("套餐") };
    allow_all_chats(seen, true);
    seen.watch("search by contact", async |conn| search::find(conn, &contact).await).await;
    allow_all_chats(seen, false);
    let recent = search::Filter { from: Some(Utc::now() - TimeDelta::hours(6)), ..filter("发票") };
    seen.watch("search in some hours", async |conn| search::find(conn, &recent).await).await;
    seen.watch("messages by id", async |conn| search::messages(conn, ORGANIZATION, &found).await).await;
}

async fn costs_are_read(seen: &mut Observer<'_>) {
    let ledgers = [
        ("ledger", costs::Filter::default()),
        ("ledger of an account", costs::Filter { account_id: Some(ACCOUNT), ..costs::Filter::default() }),
        ("ledger of a chat", costs::Filter { conversation_id: Some(CHAT), ..costs::Filter::default() }),
        (
            "ledger of a time",
            costs::Filter {
                from: Some(Utc::now() - TimeDelta::days(200)),
                to: Some(Utc::now() - TimeDelta::days(199)),
                ..costs::Filter::default()
            },
        ),
    ];
    for (what, filter) in ledgers {
        let page =
            seen.watch(what, async |conn| costs::entries(conn, ORGANIZATION, &filter, None, 51).await).await;
        assert!(!page.is_empty(), "{what}");
    }
    for days in [0, 300] {
        let bounds = month_before(days);
        for group_by in [GroupBy::Day, GroupBy::Account, GroupBy::Model, GroupBy::User, GroupBy::Conversation]
        {
            let what = format!("costs by {group_by:?}, {days} days ago");
            let groups = seen
                .watch(&what, async |conn| {
                    cost_rollups::grouped(conn, ORGANIZATION, &bounds, group_by, 1000).await
                })
                .await;
            assert!(!groups.is_empty(), "{what}");
        }
        let (from, to) = (bounds[0], bounds[1]);
        let what = format!("spent on a day, {days} days ago");
        seen.watch(&what, async |conn| {
            costs::spent(conn, ORGANIZATION, Some(ACCOUNT), None, None, from, to).await
        })
        .await;
    }
}
