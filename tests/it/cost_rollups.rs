//! The sums of the cost ledger: a report says the same before they are made, while they are, and after.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::cost_rollups::{advance, grouped};
use entropy_schema::costs::{self, GroupBy};
use uuid::Uuid;

use crate::harness::Book;

/// Lines of two accounts, three people and nobody, three models, over four days, in any minute, some of them taken back and
/// some without a price. They were written up to an hour after what they are about.
fn lines(organization: Uuid, count: u32) -> String {
    format!(
        "INSERT INTO cost_ledgers (id, organization_id, request_id, user_id, wechat_account_id, job_id, model_name,
            input_tokens, output_tokens, priced, calculated_cost, estimated, corrects, occurred_at, created_at)
         SELECT (lpad(to_hex((extract(epoch FROM written) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
            '{organization}', 'r' || n,
            CASE WHEN n % 4 > 0 THEN lpad(to_hex(n % 4), 32, '0')::uuid END,
            CASE WHEN n % 5 > 0 THEN lpad(to_hex(n % 2 + 16), 32, '0')::uuid END, gen_random_uuid(), 'model-' || n % 3,
            n * 7 % 4000, n * 3 % 900, priced, CASE WHEN priced THEN (n * 7919 % 100003) * 0.0000001237 END, n % 13 = 0,
            CASE WHEN n % 17 = 0 THEN gen_random_uuid() END,
            CASE WHEN n % 19 > 0 THEN written - (n % 60) * interval '1 minute' END, written
         FROM (SELECT n, n % 11 > 0 OR n % 17 = 0 AS priced,
                clock_timestamp() - interval '2 minutes' - (n * 104729 % 345600) * interval '1 second' AS written
            FROM generate_series(1, {count}) n) AS t"
    )
}

/// Days in Shanghai, in Kolkata and in UTC, and moments in the middle of an hour.
fn ranges() -> Vec<Vec<DateTime<Utc>>> {
    let midnight = Utc::now().date_naive().and_hms_opt(0, 0, 0).expect("midnight").and_utc();
    let days =
        |offset: TimeDelta| (-5..=1).map(|day| midnight - offset + TimeDelta::days(day)).collect::<Vec<_>>();
    let odd = midnight - TimeDelta::minutes(1234) - TimeDelta::seconds(7);
    vec![
        days(TimeDelta::hours(8)),
        days(TimeDelta::minutes(330)),
        days(TimeDelta::zero()),
        vec![odd - TimeDelta::hours(30), odd],
        vec![odd, odd + TimeDelta::minutes(20)],
    ]
}

/// A group, as text: numbers are the same, however many zeros end them.
type Report = Vec<String>;

/// Returns the reports, those of the sums or those of the lines alone.
async fn reports(book: &Book, sums: bool) -> Vec<Report> {
    let mut conn = book.conn().await;
    let mut all = Vec::new();
    for bounds in ranges() {
        for by in [GroupBy::Day, GroupBy::Model, GroupBy::User, GroupBy::Account, GroupBy::Conversation] {
            let groups = match sums {
                true => grouped(&mut conn, book.organization, &bounds, by, 1000).await,
                false => costs::grouped(&mut conn, book.organization, &bounds, by, 1000).await,
            };
            let shown = |group: costs::Group| {
                let [cost, input, output] =
                    [group.cost, group.input_tokens, group.output_tokens].map(|number| number.normalized());
                format!(
                    "{by:?} {:?}: {cost} {input} {output} {} {}",
                    group.key, group.requests, group.unpriced
                )
            };
            all.push(groups.expect("a report").into_iter().map(shown).collect());
        }
    }
    all
}

#[tokio::test]
async fn a_report_says_the_same_however_much_of_the_ledger_is_added_up() {
    let book = Book::open().await;
    book.run(&lines(book.organization, 3000)).await;
    let before = reports(&book, false).await;
    assert_eq!(reports(&book, true).await, before, "nothing is added up");
    assert!(before.iter().all(|report| !report.is_empty()), "{before:?}");
    // The first line begins it, and then it goes day by day.
    let mut steps = 0;
    while advance(&mut *book.conn().await, book.organization).await.expect("a step") {
        steps += 1;
        assert_eq!(reports(&book, true).await, before, "after step {steps}");
    }
    assert!(steps >= 3, "{steps}");
    assert_eq!(reports(&book, true).await, before, "with all of it added up");
    let sums = "SELECT sum(requests)::bigint AS n FROM cost_rollups";
    let lines = "SELECT count(*) FILTER (WHERE corrects IS NULL) - count(*) FILTER (WHERE corrects IS NOT NULL) AS n \
        FROM cost_ledgers";
    assert_eq!(book.number(sums).await, book.number(lines).await, "no line is left out");

    // A line about an hour that was added up long ago is in the report at once, and in the sums later.
    let organization = book.organization;
    book.run(&format!(
        "INSERT INTO cost_ledgers (id, organization_id, request_id, job_id, model_name, input_tokens, output_tokens, priced,
            calculated_cost, occurred_at)
         VALUES ('{}', '{organization}', 'late', gen_random_uuid(), 'model-late', 1, 1, true, 100, now() - interval '1 day')",
        Uuid::now_v7()
    ))
    .await;
    let late = reports(&book, false).await;
    assert_eq!(reports(&book, true).await, late);
    assert_ne!(late, before);
    assert!(!advance(&mut *book.conn().await, organization).await.expect("a step"));
    assert_eq!(reports(&book, true).await, late);
    // All of it anew, by two at once.
    book.run(
        "UPDATE cost_ledgers SET created_at = created_at - interval '90 seconds' WHERE request_id = 'late'; \
         TRUNCATE cost_rollups, cost_rollup_progress",
    )
    .await;
    let all = async || {
        let mut conn = book.conn().await;
        while advance(&mut conn, organization).await.expect("a step") {}
    };
    tokio::join!(all(), all());
    assert_eq!(
        book.number("SELECT count(*) AS n FROM cost_rollups WHERE model_name = 'model-late'").await,
        1
    );
    assert_eq!(reports(&book, true).await, late);
}

#[tokio::test]
async fn an_organisation_without_costs_has_nothing_to_add_up() {
    let book = Book::open().await;
    assert!(!advance(&mut *book.conn().await, book.organization).await.expect("a step"));
    assert_eq!(book.number("SELECT count(*) AS n FROM cost_rollup_progress").await, 0);
    assert!(reports(&book, true).await.iter().all(Vec::is_empty));
}
