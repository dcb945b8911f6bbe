//! A message of every kind, each of which can be told from every other.

use serde_json::{Value, json};

/// Every kind of message that can be sent.
pub(super) const KINDS: [&str; 10] =
    ["text", "image", "file", "voice", "video", "link", "mini_program", "name_card", "emoji", "app_message"];

/// Whether the worker gives GeWe a minute for it instead of twenty seconds.
pub(super) fn fetches_media(kind: &str) -> bool {
    matches!(kind, "image" | "file" | "voice" | "video" | "link" | "mini_program")
}

/// The n-th message of a kind.
pub(super) fn message(kind: &str, n: usize) -> Value {
    let url = format!("https://cdn.example.com/新品/{n}.bin");
    let thumb = "https://cdn.example.com/thumb.jpg";
    match kind {
        "text" => json!({"kind": kind, "text": format!("您好，王女士！这是第 {n} 条消息：新品已到店。")}),
        "image" => json!({"kind": kind, "url": url}),
        "file" => json!({"kind": kind, "url": url, "name": format!("报价单 {n}.pdf")}),
        "voice" => json!({"kind": kind, "url": url, "duration_ms": 3000}),
        "video" => json!({"kind": kind, "url": url, "thumb_url": thumb, "duration_s": 12}),
        "link" => {
            json!({"kind": kind, "title": format!("新品 {n}"), "desc": "到店即享", "url": url, "thumb_url": thumb})
        }
        "mini_program" => json!({
            "kind": kind, "app_id": "wx0123456789abcdef", "user_name": "gh_0a@app", "title": format!("下单 {n}"),
            "display_name": "熵变商城", "page_path": "pages/index.html", "cover_url": thumb,
        }),
        "name_card" => json!({"kind": kind, "wxid": "wxid_colleague", "nickname": format!("小李 {n}")}),
        "emoji" => json!({"kind": kind, "md5": format!("{n:032x}"), "size": 4096}),
        "app_message" => {
            json!({"kind": kind, "xml": format!("<appmsg appid=\"\"><title>通知 {n}</title></appmsg>")})
        }
        other => panic!("no message of the kind {other}"),
    }
}
