//! The page that shows the phone to a person: the last messages, by account and conversation.
//!
//! Plain HTML that reloads itself. It shows no token, and everything in it is escaped.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use chrono::FixedOffset;
use poem::http::header;
use poem::web::Data;
use poem::{Response, handler};
use serde_json::Value;

use crate::Sandbox;
use crate::ledger::Entry;

/// How many messages are shown.
const SHOWN: usize = 100;

/// How much of one message is shown, in characters.
const SHOWN_TEXT: usize = 500;

const BEIJING_SECONDS: i32 = 8 * 3600;

const HEAD: &str = r#"<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>沙箱手机 · Sandbox phone</title>
<style>
body{margin:0;background:#ededed;color:#191919;font:15px/1.5 system-ui,"PingFang SC","Microsoft YaHei",sans-serif}
main{max-width:46rem;margin:0 auto;padding:1.5rem 1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}h3{font-size:.9rem;margin:0;color:#576b95}
p{margin:.3rem 0;color:#666}section{background:#f7f7f7;border-radius:8px;padding:.8rem 1rem;margin:.6rem 0}
ol{list-style:none;margin:.4rem 0 0;padding:0}li{display:flex;flex-direction:column;align-items:flex-end;margin:.45rem 0}
.b{background:#95ec69;border-radius:6px;padding:.35rem .7rem;max-width:85%;white-space:pre-wrap;overflow-wrap:anywhere}
.t{font-size:.75rem;color:#999}code{background:#fff;border-radius:4px;padding:.1rem .3rem;overflow-wrap:anywhere}
</style></head><body><main>
<h1>沙箱手机 · Sandbox phone</h1>
"#;

const EMPTY: &str = "<section><p>还没有消息。 Nothing has arrived yet.</p>\
    <p>向 GeWe 接口发送一条消息，它会出现在这里。 A message sent through the GeWe routes appears here:</p>\
    <p><code>POST /gewe/v2/api/message/postText</code></p></section>";

/// Shows the last messages, each account's and each conversation's in the order of arrival.
#[handler]
pub(crate) fn page(Data(sandbox): Data<&Sandbox>) -> Response {
    let (entries, delivered) = {
        let state = sandbox.state();
        (state.ledger.latest(SHOWN), state.ledger.delivered())
    };
    Response::builder()
        .content_type("text/html; charset=utf-8")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")
        .header(header::CACHE_CONTROL, "no-store")
        .body(render(&entries, delivered))
}

fn render(entries: &[Arc<Entry>], delivered: u64) -> String {
    let mut html = String::from(HEAD);
    push(
        &mut html,
        format_args!(
            "<p>收到 {delivered} 条消息，显示最近 {shown} 条。 {delivered} received, the last {shown} shown. \
             时间为北京时间 · times are UTC+8. \
             <a href=\"/_sandbox/ledger\">ledger</a> · <a href=\"/_sandbox/calls\">calls</a></p>\n",
            shown = entries.len()
        ),
    );
    if entries.is_empty() {
        html.push_str(EMPTY);
    }
    let mut accounts: BTreeMap<&str, BTreeMap<&str, Vec<&Entry>>> = BTreeMap::new();
    for entry in entries {
        accounts.entry(&entry.app_id).or_default().entry(&entry.to_wxid).or_default().push(entry);
    }
    for (app_id, conversations) in accounts {
        push(&mut html, format_args!("<h2>账号 Account {}</h2>\n", escape(app_id)));
        for (to_wxid, messages) in conversations {
            push(&mut html, format_args!("<section><h3>{}</h3><ol>\n", conversation_title(to_wxid)));
            for entry in messages {
                push_message(&mut html, entry);
            }
            html.push_str("</ol></section>\n");
        }
    }
    html.push_str("</main></body></html>\n");
    html
}

fn push_message(html: &mut String, entry: &Entry) {
    let time = FixedOffset::east_opt(BEIJING_SECONDS)
        .map(|beijing| entry.at.0.with_timezone(&beijing).format("%m-%d %H:%M:%S%.3f").to_string())
        .unwrap_or_default();
    let text: String = summary(entry).chars().take(SHOWN_TEXT).collect();
    push(
        html,
        format_args!(
            "<li><span class=\"t\">#{} · {time}</span><span class=\"b\">{}</span></li>\n",
            entry.seq,
            escape(&text)
        ),
    );
}

fn conversation_title(to_wxid: &str) -> String {
    let what = if to_wxid.ends_with("@chatroom") { "群聊 Group" } else { "联系人 Contact" };
    format!("{what} {}", escape(to_wxid))
}

/// Puts a message into one line, as a chat list would.
fn summary(entry: &Entry) -> String {
    let field = |name: &str| entry.body.get(name).and_then(Value::as_str).unwrap_or_default();
    match entry.kind {
        "text" => field("content").to_owned(),
        "image" => format!("[图片 Image] {}", field("imgUrl")),
        "file" => format!("[文件 File] {}", field("fileName")),
        "voice" => format!("[语音 Voice] {}", field("voiceUrl")),
        "video" => format!("[视频 Video] {}", field("videoUrl")),
        "link" => format!("[链接 Link] {} {}", field("title"), field("linkUrl")),
        "name_card" => format!("[名片 Name card] {}", field("nickName")),
        "emoji" => format!("[表情 Emoji] {}", field("emojiMd5")),
        "app_message" => format!("[应用消息 App message] {}", field("appmsg")),
        "mini_program" => format!("[小程序 Mini program] {}", field("title")),
        other => format!("[{other}]"),
    }
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = html.write_fmt(text);
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
