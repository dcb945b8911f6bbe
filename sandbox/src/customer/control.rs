//! The switches of the customers' side, under `/_sandbox/customer`.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use poem::http::StatusCode;
use poem::web::{Data, Json, Query};
use poem::{Body, IntoResponse, Response, Route, get, handler, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::events::{Event, Message, What};
use super::requests::{EventKind, Fields, How, Kind, NewEvent, NewMessages, split};
use super::{Author, Format, Line, Parcel, Settings, delivery, flood, xml};
use crate::Sandbox;
use crate::control::{BadRequest, read};
use crate::sandbox::State;

pub(crate) fn routes() -> Route {
    Route::new()
        .at("/messages", post(write))
        .at("/events", post(happen))
        .at("/callbacks", get(list_callbacks))
        .at("/settings", get(show_settings).put(set_settings))
        .at("/flood", get(flood::show).post(flood::start))
        .at("/flood/messages", get(flood::list))
}

/// Lets a customer write, or the owner type; answers with the ids of the messages.
#[handler]
async fn write(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Response> {
    let request: Map<String, Value> = read(body).await?;
    let (new, how) = split::<NewMessages>(request).map_err(BadRequest)?;
    let messages = new.messages().map_err(BadRequest)?;
    let at = Utc::now() - TimeDelta::seconds(new.age_seconds.clamp(-86_400, 86_400 * 365));
    let (items, parcels) = {
        let mut state = sandbox.state();
        if let Some(wxid) = &new.wxid {
            state.accounts.set_wxid(&new.app_id, wxid);
        }
        let address = address(&state, &new.app_id, &how).map_err(BadRequest)?;
        let mut items = Vec::new();
        let mut parcels = Vec::new();
        for (index, fields) in messages.into_iter().enumerate() {
            let (event, line) = message(&mut state, &new, fields, at, index);
            items.push(json!({ "new_msg_id": event.new_msg_id, "msg_id": event.msg_id, "text": line.text }));
            state.customer.note(line);
            parcels.extend(wrap(&address, &event, &how, index));
        }
        (items, parcels)
    };
    Ok(dispatch(sandbox, items, parcels, &how))
}

/// Makes one message out of a request, with ids of its own.
fn message(
    state: &mut State,
    new: &NewMessages,
    mut fields: Fields,
    at: chrono::DateTime<Utc>,
    index: usize,
) -> (Event, Line) {
    let (msg_id, fresh) = state.ledger.new_ids();
    // Only the first of several can be one that was told before.
    let new_msg_id = new.new_msg_id.clone().filter(|_| index == 0).unwrap_or_else(|| fresh.to_string());
    let own = state.accounts.wxid(&new.app_id);
    if !fields.nickname.is_empty() {
        state.customer.names.insert(fields.sender.clone(), fields.nickname.clone());
    } else {
        fields.nickname = state.name_of(&new.app_id, &fields.sender);
    }
    let (media_id, bytes) = state.media.add(fresh, fields.kind, fields.media, fields.bytes);
    (fields.media_id, fields.bytes) = (media_id, bytes);
    let mut mentioned = Vec::new();
    if fields.mention {
        let name = state.name_of(&new.app_id, &own);
        if fields.kind == Kind::Text && !fields.text.contains('@') {
            fields.text = format!("@{name}\u{2005}{}", fields.text);
        }
        mentioned.push(own.clone());
    }
    if new.mention_all {
        mentioned.push("notify@all".to_owned());
    }
    let shown = match fields.kind {
        Kind::Text | Kind::System => fields.text.clone(),
        kind => format!("{} {}", kind.label(), fields.title).trim().to_owned(),
    };
    let line = Line {
        app_id: new.app_id.clone(),
        peer: new.group.clone().unwrap_or_else(|| new.from.clone()),
        sender: if new.typed { own.clone() } else { new.from.clone() },
        author: if new.typed { Author::Owner } else { Author::Customer },
        text: shown,
        new_msg_id: new_msg_id.clone(),
        msg_id,
        recalled: false,
        at,
    };
    let message = Message {
        fields,
        group: new.group.clone(),
        typed: new.typed,
        mentioned,
        thumbnail_chars: new.thumbnail_chars.min(4 * 1024 * 1024),
    };
    let event = Event {
        app_id: new.app_id.clone(),
        wxid: own,
        at,
        msg_id,
        new_msg_id,
        sequence: state.customer.next_sequence(),
        what: What::Message(message),
    };
    (event, line)
}

/// Lets something happen that is no message.
#[handler]
async fn happen(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Response> {
    let request: Map<String, Value> = read(body).await?;
    let (new, how) = split::<NewEvent>(request).map_err(BadRequest)?;
    let (item, parcels) = {
        let mut state = sandbox.state();
        if let Some(wxid) = &new.wxid {
            state.accounts.set_wxid(&new.app_id, wxid);
        }
        let address = address(&state, &new.app_id, &how).map_err(BadRequest)?;
        if let Some(body) = packet(&new, &address) {
            let parcel = address.parcel(&new.app_id, "packet", None, body.into());
            let is_probe = !matches!(new.kind, EventKind::Raw);
            let parcel = if is_probe { Parcel { authorization: None, ..parcel } } else { parcel };
            (json!({}), repeat(parcel, &how, 0))
        } else {
            let event = event(&mut state, &new).map_err(BadRequest)?;
            let item = json!({ "new_msg_id": event.new_msg_id, "msg_id": event.msg_id });
            (item, wrap(&address, &event, &how, 0))
        }
    };
    Ok(dispatch(sandbox, vec![item], parcels, &how))
}

/// Returns the body of what is no event: a probe, or bytes that a test made up.
fn packet(new: &NewEvent, address: &Address) -> Option<String> {
    let body = match new.kind {
        EventKind::Probe => json!({ "testMsg": "回调地址链接成功！", "token": address.token }).to_string(),
        EventKind::ProbeText => json!({ "testMsg": "验证回调地址是否可用" }).to_string(),
        EventKind::ProbeConsole => {
            json!({ "msg": "设置订阅成功!!", "callBackUrl": address.url.as_ref() }).to_string()
        }
        EventKind::Empty => String::new(),
        EventKind::Raw => match &new.body {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
        _ => return None,
    };
    Some(body)
}

fn event(state: &mut State, new: &NewEvent) -> Result<Event, String> {
    let own = state.accounts.wxid(&new.app_id);
    let nickname = new.nickname.clone().unwrap_or_else(|| state.name_of(&new.app_id, &new.from));
    let (msg_id, fresh) = state.ledger.new_ids();
    let needs_customer = !matches!(
        new.kind,
        EventKind::Offline
            | EventKind::LoggedOut
            | EventKind::Online
            | EventKind::Reconnecting
            | EventKind::LoginFailed
    );
    if new.app_id.is_empty() || (needs_customer && new.from.is_empty() && new.group.is_none()) {
        return Err("app_id is needed, and from or group if it is about somebody".to_owned());
    }
    let text = |default: &str| new.text.clone().unwrap_or_else(|| default.to_owned());
    let group = || new.group.clone().ok_or_else(|| "group is needed".to_owned());
    let notice = |number, content, name| {
        let group = group()?;
        Ok::<_, String>(What::Notice { from: group.clone(), to: own.clone(), group, number, content, name })
    };
    let peer = new.group.clone().unwrap_or_else(|| new.from.clone());
    let mut new_msg_id = fresh.to_string();
    let what = match new.kind {
        EventKind::Recall => {
            let line = state.customer.last_line(&new.app_id, &peer, new.new_msg_id.as_deref());
            let line = line.ok_or("there is no message to take back")?;
            state.customer.mark_recalled(&line.new_msg_id);
            // A recall's own id can be small.
            new_msg_id = (u64::from(msg_id) + 1_000_000_000).to_string();
            let is_group = new.group.is_some();
            What::Recall { peer, is_group, sender: line.sender, nickname, of: (line.msg_id, line.new_msg_id) }
        }
        EventKind::FriendRequest => What::FriendRequest(Fields {
            sender: new.from.clone(),
            nickname,
            text: text("我是客户，想了解一下产品"),
            media_id: format!("{fresh:032x}"),
            ..Fields::default()
        }),
        EventKind::FriendAdded => What::Contact { wxid: new.from.clone(), nickname, is_new: true },
        EventKind::ContactChanged => What::Contact { wxid: peer, nickname, is_new: false },
        EventKind::FriendDeleted => What::Removed { wxid: peer },
        EventKind::GroupRenamed => {
            let content = text(&format!("\"{nickname}\"修改群名为“新群名”"));
            notice(10_000, content, "GROUP_NAME_CHANGE")?
        }
        EventKind::GroupLeft => {
            notice(10_000, text(&format!("你被\"{nickname}\"移出群聊")), "REMOVE_FROM_GROUP")?
        }
        EventKind::GroupDismissed => {
            let content = xml::template("群主\"$username$\"已解散该群聊", "username", &new.from, &nickname);
            notice(10_002, format!("{}:\n{content}", group()?), "GROUP_DISMISS")?
        }
        EventKind::GroupMembers => {
            let content = xml::template("你邀请\"$names$\"加入了群聊", "names", &new.from, &nickname);
            notice(10_002, format!("{}:\n{content}", group()?), "SYSTEM")?
        }
        EventKind::GroupAnnouncement => {
            let content = xml::announcement(&text("明天放假"));
            let group = group()?;
            let from = new.from.clone();
            What::Notice { from, to: group.clone(), group, number: 10_002, content, name: "ANNOUNCEMENT" }
        }
        EventKind::Pat => {
            let content = format!(
                "<sysmsg type=\"pat\"><pat><fromusername>{0}</fromusername><pattedusername>{1}</pattedusername>\
                 <template><![CDATA[\"${{{0}}}\" 拍了拍我]]></template></pat></sysmsg>",
                xml::escape(&new.from),
                xml::escape(&own)
            );
            let from = new.from.clone();
            What::Notice { from, to: own.clone(), group: peer, number: 10_002, content, name: "PAT_MSG" }
        }
        account => {
            use crate::accounts::AccountState;
            match account {
                EventKind::Offline | EventKind::LoggedOut => {
                    state.accounts.set_state(&new.app_id, AccountState::Offline);
                }
                EventKind::Online => state.accounts.set_state(&new.app_id, AccountState::Online),
                _ => {}
            }
            What::Account(account)
        }
    };
    let sequence = state.customer.next_sequence();
    Ok(Event { app_id: new.app_id.clone(), wxid: own, at: Utc::now(), msg_id, new_msg_id, sequence, what })
}

/// Where callbacks go, and as what.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) url: Arc<str>,
    pub(super) token: String,
    pub(super) authorization: Option<Arc<str>>,
    pub(super) format: Format,
}

/// Finds the address for an account: that of its token, that of every token, or the only one there is.
pub(super) fn address(state: &State, app_id: &str, how: &How) -> Result<Address, String> {
    let token = how.token.as_deref().or_else(|| state.accounts.token(app_id)).unwrap_or("*");
    let url = how.url.as_ref().or_else(|| state.callbacks.get(token)).or_else(|| state.callbacks.get("*"));
    let only = || state.callbacks.values().next().filter(|_| state.callbacks.len() == 1);
    let url = url.or_else(only).ok_or_else(|| {
        format!(
            "there is no callback address for `{app_id}`: set one by setCallback or POST /_sandbox/callbacks"
        )
    })?;
    let settings = &state.customer.settings;
    Ok(Address {
        url: url.as_str().into(),
        token: token.to_owned(),
        authorization: settings.authorization.as_deref().map(Arc::from),
        format: how.format.unwrap_or(settings.format),
    })
}

impl Address {
    pub(super) fn parcel(&self, app_id: &str, event: &str, id: Option<&str>, body: Arc<str>) -> Parcel {
        Parcel {
            app_id: app_id.to_owned(),
            event: event.to_owned(),
            new_msg_id: id.map(str::to_owned),
            copy: 1,
            url: self.url.clone(),
            authorization: self.authorization.clone(),
            body,
            retries: 0,
            retry: Duration::from_secs(1),
        }
    }
}

/// Makes the deliveries of one event.
pub(super) fn wrap(address: &Address, event: &Event, how: &How, index: usize) -> Vec<(Duration, Parcel)> {
    let body = event.body(address.format).to_string();
    let name = event.name(address.format);
    repeat(address.parcel(&event.app_id, &name, Some(&event.new_msg_id), body.into()), how, index)
}

fn repeat(parcel: Parcel, how: &How, index: usize) -> Vec<(Duration, Parcel)> {
    let first = how.delay_ms + how.gap_ms * index as u64;
    let retry = Duration::from_millis(how.retry_ms.unwrap_or(1000));
    let copy = |copy: u32| {
        let after = Duration::from_millis(first + how.copy_delay_ms * u64::from(copy - 1));
        (after, Parcel { copy, retries: how.retries, retry, ..parcel.clone() })
    };
    (1..=how.copies.unwrap_or(1)).map(copy).collect()
}

/// Sends deliveries on their way and answers with what was made.
fn dispatch(
    sandbox: &Sandbox,
    items: Vec<Value>,
    mut parcels: Vec<(Duration, Parcel)>,
    how: &How,
) -> Response {
    let deliveries = parcels.len();
    if how.shuffle {
        let mut times: Vec<_> = parcels.iter().map(|(after, _)| *after).collect();
        times.sort_unstable();
        fastrand::shuffle(&mut parcels);
        for ((after, _), time) in parcels.iter_mut().zip(times) {
            *after = time;
        }
    } else {
        parcels.sort_by_key(|(after, _)| *after);
    }
    if how.concurrent {
        delivery::at_once(sandbox, parcels);
    } else {
        delivery::in_order(sandbox, parcels);
    }
    let body = json!({ "items": items, "deliveries": deliveries });
    Json(body).with_status(StatusCode::ACCEPTED).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbacksQuery {
    app_id: Option<String>,
    /// Lists what came after that `seq`.
    since: Option<u64>,
    limit: Option<usize>,
}

/// Lists the attempts to deliver callbacks, with how many ended in which way and how many are to come.
#[handler]
fn list_callbacks(Data(sandbox): Data<&Sandbox>, Query(query): Query<CallbacksQuery>) -> Json<Value> {
    let limit = query.limit.unwrap_or(10_000).min(100_000);
    let state = sandbox.state();
    let attempts = &state.customer.attempts;
    let (items, total) = attempts.list(query.app_id.as_deref(), query.since.unwrap_or(0), limit);
    Json(json!({
        "items": items, "total": total, "pending": attempts.pending, "outcomes": attempts.outcomes
    }))
}

#[handler]
fn show_settings(Data(sandbox): Data<&Sandbox>) -> Json<Settings> {
    Json(sandbox.state().customer.settings.clone())
}

/// Replaces all settings; an absent one is as at the start.
#[handler]
async fn set_settings(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Json<Settings>> {
    let settings: Settings = read(body).await?;
    sandbox.state().customer.settings = settings.clone();
    Ok(Json(settings))
}

/// Tells of a send over the API, for deployments that do.
pub(crate) fn echo(
    state: &mut State,
    sent: &crate::gewe::Message,
    receipt: &crate::ledger::Receipt,
) -> Option<Parcel> {
    if !state.customer.settings.echo_api_sends || !receipt.delivered {
        return None;
    }
    let address = address(state, &sent.app_id, &How::default()).ok()?;
    let fields = Fields {
        kind: if sent.kind == "text" { Kind::Text } else { Kind::Image },
        sender: sent.to_wxid.clone(),
        text: sent.body["content"].as_str().unwrap_or_default().to_owned(),
        media_id: format!("{:032x}", receipt.new_msg_id),
        ..Fields::default()
    };
    let group = sent.to_wxid.ends_with("@chatroom").then(|| sent.to_wxid.clone());
    let event = Event {
        app_id: sent.app_id.clone(),
        wxid: state.accounts.wxid(&sent.app_id),
        at: receipt.at,
        msg_id: receipt.msg_id,
        new_msg_id: receipt.new_msg_id.to_string(),
        sequence: state.customer.next_sequence(),
        what: What::Message(Message { fields, group, typed: true, ..Message::default() }),
    };
    wrap(&address, &event, &How::default(), 0).pop().map(|(_, parcel)| parcel)
}
