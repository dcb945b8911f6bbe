//! Pruning: what is old goes, what is young stays, whatever the clock that made its id.

use chrono::{TimeDelta, Utc};
use entropy_jobs::media::Store;
use entropy_jobs::media::prune::{Pruned, prune};
use entropy_schema::media;
use entropy_schema::retention::{prune_callbacks, prune_jobs, prune_sends};
use entropy_schema::search::first_id_of;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::Book;

/// Makes ended jobs and their sends that are so many days old; their ids were made by a clock that was `fast` minutes
/// ahead.
async fn history(book: &Book, days: &[u32], fast: i32) {
    for days in days {
        book.run(&format!(
            "INSERT INTO jobs (id, organization_id, kind, queue, class, args, args_version, max_attempts, trace_id, \
                 created_at, final_state, finalized_at) \
             SELECT id, '{o}', 'cost_tally', 'cost', 2, '{{}}', 1, 1, 't', at, 'completed', at \
             FROM (SELECT now() - interval '{days} days' AS at, \
                 rpad(lpad(to_hex((EXTRACT(EPOCH FROM now() - interval '{days} days' + interval '{fast} minutes') \
                     * 1000)::bigint), 12, '0'), 32, md5(random()::text))::uuid AS id) AS made; \
             INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, \
                 state, started_at, window_at) \
             SELECT id, organization_id, id, 'install', id, 1, 'wxid_1', 'text', 'sent', created_at, created_at \
             FROM jobs ON CONFLICT DO NOTHING",
            o = book.organization,
        ))
        .await;
    }
}

#[tokio::test]
async fn what_is_older_than_its_days_is_pruned_and_nothing_else() {
    let book = Book::open().await;
    for fast in [0, 5, -5] {
        history(&book, &[1, 29, 31, 32, 100], fast).await;
    }
    let mut conn = book.conn().await;
    let mut after = Uuid::nil();
    let mut removed = 0;
    // In slices, as the job does it.
    loop {
        let slice = prune_jobs(&mut conn, after, 30, 90, 2).await.expect("pruned");
        removed += slice.removed;
        match slice.last {
            Some(last) => after = last,
            None => break,
        }
    }
    assert_eq!(removed, 9);
    let young = "SELECT count(*) AS n FROM jobs WHERE created_at > now() - interval '30 days'";
    assert_eq!((book.number(young).await, book.number("SELECT count(*) AS n FROM jobs").await), (6, 6));

    assert_eq!(prune_sends(&mut conn, 30, 4).await.expect("pruned"), 4, "no more than a slice");
    assert_eq!(prune_sends(&mut conn, 30, 100).await.expect("pruned"), 5);
    assert_eq!(prune_sends(&mut conn, 0, 100).await.expect("pruned"), 3, "two days are kept in any case");
    assert_eq!(book.number("SELECT count(*) AS n FROM sends").await, 3);
}

#[tokio::test]
async fn handled_events_of_the_provider_are_pruned_and_their_keys_stay() {
    let book = Book::open().await;
    for (days, handled) in [(1, true), (29, true), (32, true), (33, true), (40, false)] {
        book.run(&format!(
            "WITH made AS (
                 INSERT INTO callback_events (id, organization_id, account_id, event_type, body, received_at, outcome, \
                     processed_at) \
                 SELECT rpad(lpad(to_hex((EXTRACT(EPOCH FROM at) * 1000)::bigint), 12, '0'), 32, md5(random()::text))::uuid, \
                     '{o}', '{o}', 'AddMsg', '{{}}', at, CASE WHEN {handled} THEN 'applied' END, \
                     CASE WHEN {handled} THEN at END \
                 FROM (SELECT now() - interval '{days} days' AS at) AS times RETURNING id, account_id \
             ) INSERT INTO callback_keys (account_id, event_key, event_id) SELECT account_id, 'm:' || id, id FROM made",
            o = book.organization,
        ))
        .await;
    }
    let mut conn = book.conn().await;
    assert_eq!(prune_callbacks(&mut conn, 30, 1).await.expect("pruned"), 1, "no more than a slice");
    assert_eq!(prune_callbacks(&mut conn, 30, 100).await.expect("pruned"), 1);
    assert_eq!(book.number("SELECT count(*) AS n FROM callback_events").await, 3);
    assert_eq!(book.number("SELECT count(*) AS n FROM callback_keys").await, 5);
}

#[tokio::test]
async fn media_go_when_their_time_has_passed_and_their_messages_say_so() {
    let book = Book::open().await;
    let root = std::env::temp_dir().join(format!("entropy-it-media-{:016x}", fastrand::u64(..)));
    let store = Store::new(&root, 1000);
    let folder = |days: i64| {
        let month = (Utc::now() - TimeDelta::days(days)).format("%Y/%m");
        format!("{}/{month}", book.organization)
    };
    let mut messages = Vec::new();
    for (days, state) in [(1, "stored"), (179, "stored"), (181, "stored"), (400, "stored"), (400, "gone")] {
        let at = Utc::now() - TimeDelta::days(days);
        let id = Uuid::from_u128(first_id_of(at).as_u128() | u128::from(fastrand::u64(..)));
        book.run(&format!(
            "INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, \
                 sender_wxid, media_state, media_path, media_type, media_bytes, created_at) \
             VALUES ('{id}', '{o}', '{o}', '{o}', 'in', 'customer', 'image', 'wxid_a', '{state}', \
                 CASE WHEN '{state}' = 'stored' THEN 'somewhere' END, 'image/png', 3, '{}')",
            at.to_rfc3339(),
            o = book.organization,
        ))
        .await;
        let file = root.join(folder(days)).join(format!("{id}.png"));
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(&file, "png").expect("a file");
        messages.push((id, file));
    }
    // Of another install, or of nobody: it is not ours to delete.
    let stray = root.join(folder(400)).join(format!("{}.png", Uuid::from_u128(1)));
    std::fs::write(&stray, "png").expect("a file");
    let stop = CancellationToken::new();
    let now = Utc::now();
    // Two workers at once.
    let (one, other) =
        tokio::join!(prune(&book.db, &store, 180, now, &stop), prune(&book.db, &store, 180, now, &stop));
    let deleted = one.expect("pruned").media + other.expect("pruned").media;
    assert_eq!(deleted, 3, "two that were kept, and one that nobody could see");
    let mut conn = book.conn().await;
    let mut states = Vec::new();
    for (id, file) in &messages {
        let found = media::get(&mut conn, book.organization, *id).await.expect("read").expect("there");
        states.push((found.media_state.expect("a state"), found.media_path.is_some(), file.exists()));
    }
    let said = |state: &str, path, file| (state.to_owned(), path, file);
    let expected = [
        said("stored", true, true),
        said("stored", true, true),
        said("pruned", false, false),
        said("pruned", false, false),
        said("gone", false, false),
    ];
    assert_eq!(states, expected);
    assert!(stray.exists());
    // The process died after it had written the record and before it deleted the file.
    std::fs::write(&messages[3].1, "png").expect("a file");
    let again = prune(&book.db, &store, 180, now, &stop).await.expect("pruned");
    assert_eq!(again, Pruned { media: 1, leftovers: 0 });
    let again = prune(&book.db, &store, 180, now, &stop).await.expect("pruned");
    assert_eq!(again, Pruned::default());
    std::fs::remove_dir_all(root).expect("removed");
}
