//! The three-day plan for new leads, from the tag that begins it to its end, through every branch: what was said, when, and why.
//!
//! [`people`] are the tables, and [`stage`] is the platform with a clock that stands still.

mod people;
mod stage;

use chrono::{DateTime, FixedOffset};
use serde_json::{Value, json};

use self::people::What::{Tags, Writes};
use self::people::{LEAD, PEOPLE, Person, What};
use self::stage::Stage;
use crate::harness::client::Account;

/// A moment of 2026 in Shanghai.
fn at(text: &str) -> DateTime<FixedOffset> {
    let (day, time) = text.split_once(' ').expect("a day and a time");
    DateTime::parse_from_rfc3339(&format!("2026-{day}T{time}:00+08:00")).expect("a time")
}

/// The accounts: one that writes to most people, one whose messages are refused, one without an adviser's name.
async fn accounts(stage: &Stage) -> [Account; 3] {
    let admin = &stage.admin;
    let accounts = [admin.account(600, 0).await, admin.account(600, 0).await, admin.account(600, 0).await];
    for (account, adviser) in accounts.iter().zip(["'小李'", "'小李'", "NULL"]) {
        stage
            .run(&format!(
                "UPDATE wechat_accounts SET warm_since = '2025-12-01', adviser_name = {adviser} WHERE id = '{}'",
                account.id
            ))
            .await;
    }
    let refuses = json!({ "mode": "server_error_envelope", "app_id": accounts[1].app_id, "times": 2 });
    stage.platform.sandbox.fail(refuses).await;
    accounts
}

/// Everything that the plan names.
async fn surroundings(stage: &Stage) {
    let settings = json!({ "max_unanswered": 4, "campaign_name": "启明教育" });
    stage.admin.put("/organization/settings", settings).await.expect(200);
    let workflow = json!({
        "alias": "sales_assistant", "api_key": "fastgpt-three-days", "app_id": "app3days", "reserve_yuan": "0.01",
        "requests_per_minute": 600, "timeout_ms": 2000
    });
    stage.admin.post("/ai-workflows", workflow).await.expect(201);
    // No room for any call of the model: everybody gets the plan's own text, which the tables can know.
    let budget = json!({ "scope": "organization", "period": "month", "limit_yuan": "0.001" });
    stage.admin.put("/budgets", budget).await.expect(200);
    let url = |path: &str| format!("https://www.example.com/{path}");
    for (key, content) in [
        ("mat_outline", json!({ "kind": "file", "url": url("outline.pdf"), "name": "课程大纲.pdf" })),
        (
            "mat_case_article",
            json!({ "kind": "link", "title": "三位学员的一年", "desc": "他们学到了什么", "url": url("case"), "thumb_url": url("case.jpg") }),
        ),
        (
            "mat_trial_booking",
            json!({
                "kind": "mini_program", "app_id": "wx1234567890abcdef", "display_name": "启明教育", "page_path": "pages/book.html",
                "cover_url": url("cover.jpg"), "title": "预约试听", "user_name": "gh_0123456789ab@app"
            }),
        ),
    ] {
        stage.material(key, content).await;
    }
}

#[tokio::test]
async fn the_three_day_plan_says_what_it_should_when_it_should_on_every_way_through_it() {
    let mut stage = Stage::set("2026-02-13T09:00:00+08:00").await;
    surroundings(&stage).await;
    let accounts = accounts(&stage).await;
    let example = include_str!("../../../jobs/src/sop/examples/new_lead_3_days.json");
    let plan = stage.plan(&serde_json::from_str(example).expect("the example"), LEAD).await;
    for (n, account) in accounts.iter().enumerate() {
        let items: Vec<Value> = PEOPLE.iter().filter(|who| who.account == n).map(Person::import).collect();
        let body = json!({ "account_id": account.id, "items": items });
        let done = stage.admin.post("/contacts/import", body).await.expect(200);
        assert_eq!(done["errors"], json!([]));
    }
    let contacts = stage.admin.all("/contacts").await;
    let contact = |who: &Person| {
        let wxid = who.wxid();
        let found = contacts.iter().find(|one| one["wxid"] == wxid.as_str());
        found.unwrap_or_else(|| panic!("{wxid} is no contact"))["id"].as_str().expect("an id").to_owned()
    };

    let mut happens: Vec<(DateTime<FixedOffset>, &Person, What)> = PEOPLE
        .iter()
        .flat_map(|who| who.happens.iter().map(move |(when, what)| (at(when), who, *what)))
        .collect();
    happens.sort_by_key(|(when, _, _)| *when);
    let mut happens = happens.into_iter().peekable();
    let mut moments = 0;
    loop {
        // The next thing that happens, or the next moment for which somebody waits.
        let due = stage.next_due().await;
        let Some(now) = happens.peek().map(|(when, _, _)| *when).into_iter().chain(due).min() else { break };
        stage.clock(now).await;
        while let Some((_, who, what)) = happens.next_if(|(when, _, _)| *when == now) {
            match what {
                Writes(text) => stage.writes(&accounts[who.account], &who.wxid(), text).await,
                Tags(tags) => {
                    let path = format!("/contacts/{}", contact(who));
                    stage.admin.put(&path, json!({ "tags": tags })).await.expect(200);
                    // Nothing but the enrollment itself knows its id yet.
                    stage
                        .run(&format!(
                            "UPDATE sop_enrollments SET id = '{}' WHERE contact_id = '{}'",
                            who.enrollment(),
                            contact(who)
                        ))
                        .await;
                }
            }
        }
        stage.settles().await;
        moments += 1;
        assert!(moments < 300, "it never ends");
    }

    for who in PEOPLE {
        let record = format!(
            "SELECT concat_ws(' ', to_char(at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI'), what, how, why, outcome) AS word FROM ( \
                 SELECT COALESCE(s.sent_at, s.finished_at) AS at, s.step_id AS what, s.state AS how, s.reason AS why, NULL AS outcome \
                 FROM sop_steps s WHERE s.enrollment_id = '{id}' \
                 UNION ALL SELECT COALESCE(e.finished_at, e.reached_at), e.state, NULL, e.reason, e.outcome \
                 FROM sop_enrollments e WHERE e.id = '{id}') AS rows",
            id = who.enrollment()
        );
        let (mut found, mut expected) = (stage.words(&record).await, who.record());
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{}", who.name);
    }
    let (mut heard, mut expected) =
        (stage.heard().to_vec(), PEOPLE.iter().flat_map(Person::hears).collect::<Vec<_>>());
    heard.sort();
    expected.sort();
    assert_eq!(heard, expected);

    // Who was handed over is a person's, and who was not is not.
    let human = "SELECT k.remark AS word FROM conversations c JOIN contacts k ON k.id = c.contact_id WHERE c.mode = 'human' \
        ORDER BY k.remark COLLATE \"C\"";
    assert_eq!(stage.words(human).await, ["周先生", "孙女士", "张女士", "李女士", "蒋女士"]);
    let tags = |name: &str| {
        format!("SELECT array_to_string(tags, ' ') AS word FROM contacts WHERE remark = '{name}'")
    };
    assert_eq!(stage.words(&tags("王先生")).await, [format!("{LEAD} 暂不考虑")]);
    assert_eq!(stage.words(&tags("沈先生")).await, ["三天SOP未回复"]);
    let all = format!("SELECT count(*) AS n FROM sop_enrollments WHERE sop_id = '{plan}'");
    assert_eq!(
        stage.platform.number(&all).await,
        PEOPLE.iter().filter(|who| !who.table.is_empty()).count() as i64
    );
    stage.platform.assert_sound().await;
}
