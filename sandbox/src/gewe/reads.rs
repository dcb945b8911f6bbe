//! The calls that read: contacts, groups, labels, the profile, downloads. And the labels of friends, which may be written twice.

use std::time::Duration;

use poem::{Request, http::header};
use serde_json::{Map, Value};

use super::answers::{Refusal, Reply};
use super::routes::{ReadRoute, What};
use crate::Sandbox;

/// The most people that one call describes.
const MAX_WXIDS: usize = 20;

/// A call that reads.
pub(super) struct Read {
    pub(super) route: &'static ReadRoute,
    pub(super) app_id: String,
    pub(super) body: Map<String, Value>,
    /// How the caller reached the sandbox.
    pub(super) base: String,
}

/// Returns the address under which this caller reaches the sandbox.
pub(super) fn base(request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or("127.0.0.1"))
}

impl Read {
    /// Tells how long the answer takes without any failure.
    pub(super) fn delay(&self, sandbox: &Sandbox) -> Duration {
        match self.route.what {
            What::List => Duration::from_millis(sandbox.state().books.list_delay_ms(&self.app_id)),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn answer(&self, sandbox: &Sandbox) -> Result<Reply, Refusal> {
        if !sandbox.is_online(&self.app_id)? {
            return Err(Refusal::Offline);
        }
        let text = |name: &str| self.body.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut state = sandbox.state();
        let data = match self.route.what {
            What::List => Some(state.books.list(&self.app_id)),
            What::CachedList => state.books.poll(&self.app_id).then(|| state.books.list(&self.app_id)),
            What::Brief => {
                let wxids = self.wxids()?;
                Some(state.books.brief(&self.app_id, &wxids, &state.customer.names))
            }
            What::Labels => Some(state.books.labels(&self.app_id)),
            What::AddLabel => Some(state.books.add_label(&self.app_id, text("labelName"))),
            What::SetLabels => {
                let wxids: Vec<String> = self.list("wxIds");
                if wxids.is_empty() {
                    return Err(Refusal::BadRequest("wxIds不可为空".to_owned()));
                }
                if !state.books.set_labels(&self.app_id, text("labelIds"), &wxids) {
                    return Err(Refusal::UnknownError);
                }
                None
            }
            What::Group => {
                Some(state.books.group(&self.app_id, text("chatroomId")).ok_or(Refusal::UnknownError)?)
            }
            What::Members => {
                Some(state.books.members(&self.app_id, text("chatroomId")).ok_or(Refusal::UnknownError)?)
            }
            What::Profile => {
                let wxid = state.accounts.wxid(&self.app_id);
                Some(state.books.profile(&self.app_id, &wxid))
            }
            What::Download => {
                let route = self.route.path.rsplit('/').next().unwrap_or_default();
                let url = state.media.address(route, text("xml"), &self.base);
                Some(serde_json::json!({ "fileUrl": url.ok_or(Refusal::UnknownError)? }))
            }
        };
        Ok(Reply::answered(data))
    }

    fn list(&self, name: &str) -> Vec<String> {
        let list = self.body.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    fn wxids(&self) -> Result<Vec<String>, Refusal> {
        let wxids = self.list("wxids");
        if wxids.is_empty() {
            return Err(Refusal::BadRequest("wxids不可为空".to_owned()));
        }
        if wxids.len() > MAX_WXIDS {
            return Err(Refusal::BadRequest(format!("wxids参数错误：最多{MAX_WXIDS}个")));
        }
        Ok(wxids)
    }
}
