//! Register, log in, who am I, and everybody who may not.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_problem, id, person, unique};
use crate::harness::platform::JWT_SECRET;
use crate::harness::process::ENTROPY;
use crate::harness::{Here, Platform, eventually, secs};

#[tokio::test]
async fn registering_makes_an_organisation_and_logs_its_admin_in() {
    let here = Here::open().await;
    let (username, password) = (unique("admin-"), unique("correct horse "));
    let body = json!({"organization": "熵变销售", "username": username, "password": password});
    let registered = here.anonymous().post("/auth/register", body).await.expect(201);
    let login = json!({"username": username, "password": password});
    let logged_in = here.anonymous().post("/auth/login", login).await.expect(200);
    for answer in [&registered, &logged_in] {
        let fields: Vec<&String> = answer.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["access_token", "expires_in", "token_type", "user"]);
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("bearer"), &json!(86_400)));
        assert_eq!(
            (&answer["user"]["username"], &answer["user"]["role"]),
            (&json!(username), &json!("admin"))
        );
        assert_eq!(answer["user"], registered["user"]);
    }
    id(&registered["user"]["id"]);
    id(&registered["user"]["organization_id"]);
    let me = here.anonymous().with_token(logged_in["access_token"].as_str().expect("a token"));
    assert_eq!(me.get("/auth/me").await.expect(200), registered["user"]);
    // Names are found whatever their case.
    let shouted = json!({"username": username.to_uppercase(), "password": password});
    here.anonymous().post("/auth/login", shouted).await.expect(200);
}

#[tokio::test]
async fn a_taken_username_is_refused_and_leaves_no_organisation_behind() {
    let here = Here::open().await;
    let (username, organization) = (unique("Admin-"), unique("zweite "));
    let body = json!({"organization": "erste", "username": username, "password": "a good password"});
    here.anonymous().post("/auth/register", body).await.expect(201);
    for name in [username.clone(), username.to_lowercase()] {
        let body = json!({"organization": organization, "username": name, "password": "a good password"});
        assert_problem(here.anonymous().post("/auth/register", body).await, 409, "username_taken", "");
    }
    let left = format!("SELECT count(*) AS n FROM organizations WHERE name = '{organization}'");
    assert_eq!(here.number(&left).await, 0);
}

#[tokio::test]
async fn what_nobody_can_be_called_is_refused_with_every_reason() {
    let here = Here::open().await;
    let body = json!({"organization": " ", "username": "a b", "password": "kurz17"});
    let reply = here.anonymous().post("/auth/register", body).await;
    for path in ["organization", "username", "password"] {
        assert_problem(reply.clone(), 422, "validation_failed", path);
    }
    assert!(!reply.text.contains("kurz17"), "a password is never repeated: {}", reply.text);
    for (field, value) in [
        ("organization", json!(7)),
        ("username", json!(12345)),
        ("password", json!(123_456_789)),
        ("password", json!(true)),
    ] {
        let mut body = json!({"organization": "a", "username": unique("a"), "password": "long enough"});
        body[field] = value;
        assert_problem(here.anonymous().post("/auth/register", body).await, 400, "invalid_request", field);
    }
    let twice = json!({"organization": "a", "username": "abc", "password": "long enough", "role": "admin"});
    assert_problem(here.anonymous().post("/auth/register", twice).await, 400, "invalid_request", "role");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let here = Here::open().await;
    let username = unique("admin-");
    let body = json!({"organization": "a", "username": username, "password": "a good password"});
    here.anonymous().post("/auth/register", body).await.expect(201);
    let mut answers = Vec::new();
    for name in [username, unique("nobody-")] {
        let login = json!({"username": name, "password": "a wrong password"});
        let reply = here.anonymous().post("/auth/login", login).await;
        assert_problem(reply.clone(), 401, "invalid_credentials", "");
        let mut body = reply.body;
        body["trace_id"] = Value::Null;
        answers.push(body);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn guessing_is_throttled_by_name_even_for_the_right_password() {
    let here = Here::open().await;
    let (username, password) = (unique("admin-"), "a good password");
    let body = json!({"organization": "a", "username": username, "password": password});
    here.anonymous().post("/auth/register", body).await.expect(201);
    for n in 0..5 {
        let guess = json!({"username": username, "password": format!("a wrong password {n}")});
        assert_problem(here.anonymous().post("/auth/login", guess).await, 401, "invalid_credentials", "");
    }
    for attempt in [username.to_uppercase(), username] {
        let login = json!({"username": attempt, "password": password});
        let reply = here.anonymous().post("/auth/login", login).await;
        let wait_s: u64 = reply.header("retry-after").and_then(|s| s.parse().ok()).expect("Retry-After");
        assert!((1..=300).contains(&wait_s), "{wait_s}");
        assert_problem(reply, 429, "login_throttled", "");
    }
    // Others are not affected.
    person(&here.register().await, "viewer").await;
}

/// Makes a token as the API does; `None` leaves it unsigned.
fn token(header: &Value, claims: &Value, key: Option<(ring::hmac::Algorithm, &str)>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.map(|(algorithm, key)| {
        let key = ring::hmac::Key::new(algorithm, key.as_bytes());
        URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()))
    });
    format!("{signed}.{}", signature.unwrap_or_default())
}

#[tokio::test]
async fn expired_forged_and_unsigned_tokens_are_refused() {
    use ring::hmac::{HMAC_SHA256, HMAC_SHA512};
    let here = Here::open().await;
    let admin = here.register().await;
    let now = Utc::now().timestamp();
    let claims = |exp: i64| json!({"sub": admin.user, "org": admin.organization, "role": "admin", "iat": now - 60, "exp": exp});
    let header = |algorithm: &str| json!({"typ": "JWT", "alg": algorithm});
    let good = token(&header("HS256"), &claims(now + 60), Some((HMAC_SHA256, JWT_SECRET)));
    admin.with_token(&good).get("/auth/me").await.expect(200);

    let other_user = json!({"sub": uuid::Uuid::now_v7(), "org": admin.organization, "role": "admin", "iat": now, "exp": now + 60});
    let forever = json!({"sub": admin.user, "org": admin.organization, "role": "admin", "iat": now});
    let mut changed = good.split('.').map(str::to_owned).collect::<Vec<_>>();
    changed[1] = URL_SAFE_NO_PAD.encode(claims(now + 6000).to_string());
    let hs256 = Some((HMAC_SHA256, JWT_SECRET));
    let cases = [
        ("expired", token(&header("HS256"), &claims(now - 1), hs256), "token_expired"),
        (
            "another key",
            token(&header("HS256"), &claims(now + 60), Some((HMAC_SHA256, "another-secret"))),
            "unauthenticated",
        ),
        (
            "an empty key",
            token(&header("HS256"), &claims(now + 60), Some((HMAC_SHA256, ""))),
            "unauthenticated",
        ),
        ("changed claims", changed.join("."), "unauthenticated"),
        ("alg none", token(&header("none"), &claims(now + 60), None), "unauthenticated"),
        ("alg None", token(&header("None"), &claims(now + 60), None), "unauthenticated"),
        ("no signature", token(&header("HS256"), &claims(now + 60), None), "unauthenticated"),
        (
            "another algorithm",
            token(&header("HS512"), &claims(now + 60), Some((HMAC_SHA512, JWT_SECRET))),
            "unauthenticated",
        ),
        ("nobody's", token(&header("HS256"), &other_user, hs256), "unauthenticated"),
        ("without an end", token(&header("HS256"), &forever, hs256), "unauthenticated"),
        ("not a token", "abc".into(), "unauthenticated"),
        ("nothing", String::new(), "unauthenticated"),
    ];
    for (name, token, code) in cases {
        println!("a token that is {name}");
        let client = admin.with_token(&token);
        assert_problem(client.get("/auth/me").await, 401, code, "");
        // Also before anything is read of the body.
        assert_problem(client.post("/jobs/send-message", json!({})).await, 401, code, "");
    }
    let bare = admin.anonymous_again();
    for header in ["", "Bearer", "Basic YWRtaW46YWRtaW4=", good.as_str()] {
        let request = bare.request(Method::GET, "/jobs").header("Authorization", header);
        assert_problem(bare.send(request).await, 401, "unauthenticated", "");
    }
    assert_problem(bare.get("/jobs").await, 401, "unauthenticated", "");
}

#[tokio::test]
async fn a_closed_install_takes_no_organisations_but_its_operator_can_add_people() {
    let platform = Platform::with().workers(0).env("REGISTRATION", "closed").start().await;
    // The platform's own work belongs to an organisation, too.
    let organizations = async || platform.number("SELECT count(*) AS n FROM organizations").await;
    let before = organizations().await;
    let body = json!({"organization": "a", "username": "admin", "password": "a good password"});
    let reply = platform.anonymous().post("/auth/register", body).await;
    assert_problem(reply, 403, "registration_closed", "");
    assert_eq!(organizations().await, before);
    assert_eq!(platform.number("SELECT count(*) AS n FROM users").await, 0);

    let mut admin = Command::new(ENTROPY)
        .args(["admin", "create-user", "--username", "operator", "--organization", "熵变"])
        .env_clear()
        .env("DATABASE_URL", platform.database.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    admin.stdin.take().expect("its input").write_all(b"a good password\n").expect("a password");
    let ended =
        tokio::task::spawn_blocking(move || admin.wait()).await.expect("it ends").expect("its status");
    assert!(ended.success());
    let operator = platform.anonymous().login("operator", "a good password").await;
    assert_eq!(operator.get("/auth/me").await.expect(200)["role"], "admin");
}

#[tokio::test]
async fn a_deactivated_person_is_out_within_seconds_at_every_process() {
    let here = Here::open().await;
    let admin = here.register().await;
    let agent = person(&admin, "agent").await;
    let elsewhere = agent.at(here.base(1));
    agent.get("/jobs").await.expect(200);
    elsewhere.get("/jobs").await.expect(200);
    admin.put(&format!("/users/{}", agent.user), json!({"is_active": false})).await.expect(200);
    assert_problem(agent.get("/jobs").await, 401, "unauthenticated", "");
    eventually("the other process refuses, too", secs(12), async || {
        elsewhere.get("/jobs").await.status == 401
    })
    .await;
    let again = json!({"is_active": true, "role": "viewer"});
    admin.put(&format!("/users/{}", agent.user), again).await.expect(200);
    assert_eq!(
        agent.get("/auth/me").await.expect(200)["role"],
        "viewer",
        "a change of role is in force at once"
    );
}

#[tokio::test]
async fn an_organisation_keeps_one_active_admin() {
    let here = Here::open().await;
    let admin = here.register().await;
    let path = format!("/users/{}", admin.user);
    for change in [json!({"is_active": false}), json!({"role": "manager"})] {
        assert_problem(admin.put(&path, change).await, 409, "last_admin", "");
    }
    let second = person(&admin, "admin").await;
    admin.put(&path, json!({"role": "manager"})).await.expect(200);
    assert_problem(admin.get("/users").await, 403, "forbidden", "");
    let people = second.get("/users").await.expect(200);
    let roles: Vec<_> =
        people["items"].as_array().expect("people").iter().map(|one| one["role"].clone()).collect();
    assert_eq!(roles, ["admin", "manager"], "newest first");
    assert!(!people.to_string().contains("argon2"), "{people}");
}

#[tokio::test]
async fn a_new_password_counts_and_the_old_one_does_not() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (username, old) = (unique("agent-"), "the first password");
    let created = json!({"username": username, "password": old, "role": "agent"});
    let created = admin.post("/users", created).await.expect(201);
    admin
        .put(
            &format!("/users/{}", created["id"].as_str().expect("an id")),
            json!({"password": "the second password"}),
        )
        .await
        .expect(200);
    let stale = json!({"username": username, "password": old});
    assert_problem(admin.post("/auth/login", stale).await, 401, "invalid_credentials", "");
    admin.login(&username, "the second password").await;
}
