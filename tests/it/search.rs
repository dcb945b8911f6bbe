//! Searching messages: in Postgres, and in a stub that speaks as much of Elasticsearch's protocol as we use.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Options, new_job};
use entropy_jobs::kinds::index_messages::IndexMessages;
use entropy_schema::{Db, Profile, SYSTEM_ORGANIZATION, record};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::harness::client::Client;
use crate::harness::process::ENTROPY;
use crate::harness::servers::Database;
use crate::harness::{Platform, book, eventually, secs, turn};

/// A chat of an organisation.
struct Chat {
    organization: Uuid,
    account: Uuid,
    contact: Uuid,
    conversation: Uuid,
}

impl Chat {
    fn of(client: &Client) -> Chat {
        Chat {
            organization: client.organization,
            account: Uuid::now_v7(),
            contact: Uuid::now_v7(),
            conversation: Uuid::now_v7(),
        }
    }

    /// Stores messages that are so many days old, oldest first.
    async fn holds(&self, db: &Db, texts: &[(&str, u32)]) {
        let Chat { organization, account, contact, conversation } = self;
        let mut sql = format!(
            "INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind) \
             VALUES ('{conversation}', '{organization}', '{account}', '{contact}', 'wxid_{contact}', 'friend') \
             ON CONFLICT DO NOTHING;"
        );
        for (n, (text, days)) in texts.iter().enumerate() {
            sql += &format!(
                "INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, \
                     sender_wxid, created_at) \
                 SELECT rpad(lpad(to_hex((EXTRACT(EPOCH FROM at) * 1000)::bigint), 12, '0'), 32, md5(random()::text))::uuid, \
                     '{organization}', '{account}', '{conversation}', 'in', 'customer', 'text', '{}', 'wxid_a', at \
                 FROM (SELECT now() - interval '{days} days' + interval '{n} ms' AS at) AS made;",
                text.replace('\'', "''")
            );
        }
        db.conn().await.expect("a connection").batch_execute(&sql).await.expect("messages");
    }
}

async fn texts(client: &Client, query: &str) -> Vec<String> {
    let found = client.all_by(&format!("/messages/search?{query}"), 2).await;
    found.iter().map(|message| message["text"].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn messages_are_found_by_what_they_say_and_only_those_of_the_organisation() {
    let platform = Platform::with().workers(0).start().await;
    let (admin, other) = (platform.register().await, platform.register().await);
    let (first, second, foreign) = (Chat::of(&admin), Chat::of(&admin), Chat::of(&other));
    let in_first =
        [("多少钱一套？", 40), ("打 50% 折吗", 3), ("Price LIST please", 2), ("价格_表", 1), ("多少钱", 0)];
    first.holds(&platform.db, &in_first).await;
    second.holds(&platform.db, &[("他们说多少钱？", 1), ("50x折", 1), ("价格表", 0)]).await;
    foreign.holds(&platform.db, &[("别人的多少钱", 0)]).await;

    assert_eq!(texts(&admin, "q=多少钱").await, ["多少钱", "他们说多少钱？", "多少钱一套？"], "newest first");
    assert_eq!(texts(&other, "q=多少钱").await, ["别人的多少钱"]);
    assert_eq!(texts(&admin, &format!("q=多少钱&conversation_id={}", foreign.conversation)).await, [""; 0]);
    assert_eq!(texts(&admin, "q=price%20list").await, ["Price LIST please"]);
    assert_eq!(texts(&admin, "q=50%25").await, ["打 50% 折吗"], "a percent sign means itself");
    assert_eq!(texts(&admin, "q=%E4%BB%B7%E6%A0%BC_").await, ["价格_表"], "so does an underscore");
    assert_eq!(texts(&admin, "q='%3B%20DROP%20TABLE%20messages").await, [""; 0]);
    for narrowed in [
        format!("account_id={}", second.account),
        format!("contact_id={}", second.contact),
        format!("conversation_id={}", second.conversation),
    ] {
        assert_eq!(texts(&admin, &format!("q=多少钱&{narrowed}")).await, ["他们说多少钱？"]);
    }
    let days_ago = |days| (chrono::Utc::now() - chrono::TimeDelta::days(days)).format("%Y-%m-%dT%H:%M:%SZ");
    let between = format!("from={}&to={}", days_ago(50), days_ago(30));
    assert_eq!(texts(&admin, &format!("q=多少钱&{between}")).await, ["多少钱一套？"]);
    // Two characters are looked for among the recent ones, unless something narrows the search.
    assert_eq!(texts(&admin, "q=多少").await, ["多少钱", "他们说多少钱？"]);
    let in_chat = format!("q=多少&conversation_id={}", first.conversation);
    assert_eq!(texts(&admin, &in_chat).await, ["多少钱", "多少钱一套？"]);

    // What we sent stands as it does in the conversation.
    let (send, account, conversation) = (Uuid::now_v7(), first.account, first.conversation);
    let mut conn = platform.db.conn().await.expect("a connection");
    conn.batch_execute(&format!(
        "INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, state, \
             new_msg_id, started_at, window_at) \
         VALUES ('{send}', '{o}', '{account}', 'install', '{send}', 1, 'wxid_1', 'text', 'unknown', '123', now(), now()); \
         INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, \
             sender_wxid, send_id) \
         VALUES ('{send}', '{o}', '{account}', '{conversation}', 'out', 'ai', 'text', '每套一百元', 'wxid_a', '{send}'); \
         INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, \
             sender_wxid) \
         VALUES ('{}', '{o}', '{account}', '{conversation}', 'out', 'phone', 'text', '每套九十元', 'wxid_a')",
        Uuid::now_v7(),
        o = admin.organization,
    ))
    .await
    .expect("a message");
    drop(conn);
    let path = format!("/conversations/{conversation}/messages");
    for (text, status) in [("每套一百元", "unknown"), ("每套九十元", "sent"), ("价格_表", "received")]
    {
        let found = admin.get(&format!("/messages/search?q={text}")).await.expect(200);
        assert_eq!(found["items"][0]["status"], status, "{found}");
        let listed = admin.all(&path).await;
        let same = listed.iter().find(|message| message["text"] == text).expect("in the conversation");
        assert_eq!(same["status"], status);
        assert_eq!(same["new_msg_id"], found["items"][0]["new_msg_id"]);
    }

    for wrong in ["q=", "q=%20", "q=%00", "q=a%0Ab", &format!("q={}", "长".repeat(201))] {
        assert_eq!(
            admin.get(&format!("/messages/search?{wrong}")).await.problem(400),
            "invalid_request",
            "{wrong}"
        );
    }
    assert_eq!(admin.get("/messages/search").await.problem(400), "invalid_request");
    assert_eq!(admin.get(&format!("/messages/search?q={}", "长".repeat(200))).await.status, 200);
}

/// As much of Elasticsearch as we use, over the documents that it was given.
#[derive(Debug, Clone, Default)]
struct Stub {
    index: Arc<Mutex<Option<Value>>>,
    documents: Arc<Mutex<Vec<Value>>>,
    /// What it was asked, and with which media type.
    asked: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<bool>>,
}

impl Stub {
    async fn start() -> (Stub, String) {
        let stub = Stub::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://elastic:geheim@{}", listener.local_addr().expect("an address"));
        let all = stub.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(all.clone().serve(stream));
            }
        });
        (stub, address)
    }

    async fn serve(self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut line, mut head) = (String::new(), Vec::new());
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let first = line.trim().to_owned();
            let mut length = 0;
            loop {
                line.clear();
                stream.read_line(&mut line).await?;
                if line.trim().is_empty() {
                    break;
                }
                let header = line.trim().to_ascii_lowercase();
                if let Some(number) = header.strip_prefix("content-length: ") {
                    length = number.parse().expect("a length");
                }
                head.push(header);
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let (status, answer) = self.answer(&first, &head, &String::from_utf8(body).expect("UTF-8"));
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            stream.write_all(format!("{head}{answer}").as_bytes()).await?;
        }
    }

    fn answer(&self, first: &str, head: &[String], body: &str) -> (u16, Value) {
        self.asked.lock().expect("a lock").push(first.to_owned());
        if *self.broken.lock().expect("a lock") {
            return (503, json!({"error": {"type": "cluster_block_exception", "reason": "多少钱"}}));
        }
        // `elastic:geheim`
        if !head.contains(&"authorization: basic zwxhc3rpyzpnzwhlaw0=".to_owned()) {
            return (401, json!({}));
        }
        let mut index = self.index.lock().expect("a lock");
        let mut documents = self.documents.lock().expect("a lock");
        let (method, path) = first.trim_end_matches(" HTTP/1.1").split_once(' ').expect("a request");
        let path = path.strip_prefix('/').expect("a path");
        let (name, call) = path.split_once('/').unwrap_or((path, ""));
        assert!(name.starts_with("it") && name.ends_with("-messages"), "{name}");
        match (method, call) {
            ("PUT", "") if index.is_some() => {
                (400, json!({"error": {"type": "resource_already_exists_exception"}}))
            }
            ("PUT", "") => {
                let asked: Value = serde_json::from_str(body).expect("JSON");
                assert_eq!(asked["mappings"]["properties"]["text"]["analyzer"], "pieces");
                *index = Some(asked);
                (200, json!({"acknowledged": true}))
            }
            _ if index.is_none() => (404, json!({"error": {"type": "index_not_found_exception"}})),
            ("POST", "_bulk") => {
                assert!(head.contains(&"content-type: application/x-ndjson".to_owned()), "{head:?}");
                assert!(body.ends_with('\n'), "the last line is a line");
                let lines: Vec<Value> =
                    body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
                for pair in lines.chunks(2) {
                    let id = &pair[0]["index"]["_id"];
                    assert_eq!(id, &pair[1]["id"]);
                    documents.retain(|document| document["id"] != *id);
                    documents.push(pair[1].clone());
                }
                (200, json!({"errors": false, "items": []}))
            }
            ("POST", "_search") => {
                let asked: Value = serde_json::from_str(body).expect("JSON");
                let mut hits: Vec<&Value> =
                    documents.iter().filter(|document| fits(document, &asked["query"])).collect();
                hits.sort_by_key(|document| {
                    std::cmp::Reverse(document["id"].as_str().expect("an id").to_owned())
                });
                hits.truncate(usize::try_from(asked["size"].as_u64().expect("a size")).expect("small"));
                let hits: Vec<Value> = hits.iter().map(|document| json!({"_id": document["id"]})).collect();
                (200, json!({"hits": {"hits": hits}}))
            }
            _ => (405, json!({})),
        }
    }
}

fn fits(document: &Value, query: &Value) -> bool {
    let Some(all) = query.get("bool") else { return query.get("match_all").is_some() };
    let phrase = all["must"][0]["match_phrase"]["text"].as_str().expect("a phrase").to_lowercase();
    let text = document["text"].as_str().expect("a text").to_lowercase();
    text.contains(&phrase)
        && all["filter"].as_array().expect("filters").iter().all(|filter| {
            if let Some((name, value)) = filter["term"].as_object().and_then(|term| term.iter().next()) {
                return document[name] == *value;
            }
            let (name, range) =
                filter["range"].as_object().and_then(|range| range.iter().next()).expect("a range");
            let held = document[name].as_str().expect("a text");
            range.get("lt").and_then(Value::as_str).is_none_or(|most| held < most)
                && range.get("gte").and_then(Value::as_str).is_none_or(|least| held >= least)
        })
}

async fn index(platform: &Platform) {
    let options = Options {
        organization_id: SYSTEM_ORGANIZATION,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: "0123456789abcdef0123456789abcdef".into(),
        created_by: None,
    };
    let mut conn = platform.db.conn().await.expect("a connection");
    record::enqueue::enqueue(&mut conn, &[new_job(&IndexMessages {}, options)]).await.expect("enqueued");
    drop(conn);
    platform.idle(secs(30)).await;
}

#[tokio::test]
async fn the_letters_of_chinese_are_in_the_index_of_a_private_server() {
    let _turn = turn::shared().await;
    let database = Database::create().await;
    let db = Db::new(database.url(), 1, Profile::Api).expect("a pool");
    let trigrams = "SELECT cardinality(show_trgm('多少钱一套'))::bigint AS n";
    assert!(book::number(&db, trigrams).await > 3);
}

#[tokio::test]
async fn with_elasticsearch_messages_are_indexed_once_and_found_there() {
    let (stub, address) = Stub::start().await;
    let mut platform = Platform::with().env("ELASTICSEARCH_URL", &address).start().await;
    let (admin, other) = (platform.register().await, platform.register().await);
    let (chat, foreign) = (Chat::of(&admin), Chat::of(&other));
    chat.holds(&platform.db, &[("多少钱一套？", 40), ("", 3), ("Price LIST", 2)]).await;
    foreign.holds(&platform.db, &[("别人的多少钱", 0)]).await;
    index(&platform).await;
    assert_eq!(stub.documents.lock().expect("a lock").len(), 3, "an empty text is not worth a document");
    chat.holds(&platform.db, &[("还是多少钱", 0)]).await;
    index(&platform).await;
    index(&platform).await;
    assert_eq!(stub.documents.lock().expect("a lock").len(), 4);

    assert_eq!(texts(&admin, "q=多少钱").await, ["还是多少钱", "多少钱一套？"]);
    assert_eq!(texts(&other, "q=多少钱").await, ["别人的多少钱"]);
    assert_eq!(texts(&admin, &format!("q=price&contact_id={}", chat.contact)).await, ["Price LIST"]);
    assert_eq!(texts(&admin, "q=多少").await, ["还是多少钱"], "recent ones");
    // A message that is gone from the record is not shown, whatever the index says.
    let gone = format!(
        "DELETE FROM messages WHERE text = '还是多少钱' AND organization_id = '{}'",
        admin.organization
    );
    platform.db.conn().await.expect("a connection").batch_execute(&gone).await.expect("deleted");
    assert_eq!(texts(&admin, "q=多少钱").await, ["多少钱一套？"]);

    *stub.broken.lock().expect("a lock") = true;
    assert_eq!(admin.get("/messages/search?q=多少钱").await.problem(503), "search_unavailable");
    *stub.broken.lock().expect("a lock") = false;

    stub.documents.lock().expect("a lock").clear();
    let mut backfill = platform.other_process("backfill", ENTROPY.as_ref(), &["search", "backfill"], &[]);
    assert!(backfill.ended(secs(30)).await.success(), "{}", backfill.log());
    let indexed = || stub.documents.lock().expect("a lock").len();
    eventually("all is indexed again", Duration::from_secs(1), async || indexed() == 3).await;
    for (name, log) in platform.logs() {
        assert!(!log.contains("geheim") && !log.contains("多少钱"), "{name} tells");
    }
}
