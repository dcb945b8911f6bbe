//! What people write of an account: who it is, on which device it is logged in, with which token. Checked together, and put into its
//! row.

use entropy_jobs::message::validate_wxid;
use entropy_jobs::outbound_url;
use entropy_jobs::secret::Secret;
use entropy_schema::accounts::Account;
use poem_openapi::types::MaybeUndefined;

use crate::AppState;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// Fields to set; undefined stays, null clears.
pub(super) struct Fields {
    pub(super) wxid: MaybeUndefined<Text>,
    pub(super) nickname: MaybeUndefined<Text>,
    pub(super) avatar: MaybeUndefined<Text>,
    pub(super) gewe_app_id: MaybeUndefined<Text>,
    pub(super) gewe_token_id: MaybeUndefined<Text>,
}

/// Reads a field of a form that clears nothing.
pub(super) fn given(field: Option<Text>) -> MaybeUndefined<Text> {
    field.map_or(MaybeUndefined::Undefined, MaybeUndefined::Value)
}

impl Fields {
    /// Puts them into an account, or says what is wrong with any of them.
    pub(super) fn put_into(self, account: &mut Account, state: &AppState) -> Result<(), ApiError> {
        let problems = self.problems(state);
        if !problems.is_empty() {
            return Err(ApiError::unprocessable(problems));
        }
        put(&mut account.wxid, self.wxid);
        put(&mut account.avatar, self.avatar);
        put(&mut account.gewe_app_id, self.gewe_app_id);
        match self.nickname {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => account.nickname.clear(),
            MaybeUndefined::Value(Text(nickname)) => account.nickname = nickname,
        }
        match self.gewe_token_id {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => (account.gewe_token_id, account.token_key) = (None, None),
            MaybeUndefined::Value(Text(token)) => {
                let Some(vault) = &state.vault else {
                    let message = "cannot be kept: this install has no ENCRYPTION_KEY";
                    return Err(ApiError::field("gewe_token_id", "no_vault", message));
                };
                let token = Secret::new(token);
                let place = format!("org:{}/gewe_token", account.organization_id);
                account.gewe_token_id = Some(vault.seal(&token, &place));
                account.token_key = Some(vault.fingerprint(&token));
            }
        }
        if account.gewe_app_id.is_some() && account.gewe_token_id.is_none() && !state.has_default_token {
            let message = "is needed: this install has no GeWe token of its own (GEWE_TOKEN_ID)";
            return Err(ApiError::field("gewe_token_id", "missing", message));
        }
        let complete = account.wxid.is_some() && account.gewe_app_id.is_some();
        match (account.status.as_str(), complete) {
            ("NEW", true) => account.status = "ONLINE".into(),
            ("ONLINE", false) => account.status = "NEW".into(),
            _ => {}
        }
        Ok(())
    }

    fn problems(&self, state: &AppState) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut add = |path: &str, code: &str, message: String| {
            problems.push(FieldProblem::new(path, code, message));
        };
        if let MaybeUndefined::Value(wxid) = &self.wxid
            && let Err(message) = validate_wxid(wxid)
        {
            add("wxid", "bad_wxid", message);
        }
        if let MaybeUndefined::Value(nickname) = &self.nickname
            && (nickname.chars().count() > 100 || nickname.chars().any(char::is_control))
        {
            add("nickname", "bad_name", "must have at most 100 characters and no control characters".into());
        }
        if let MaybeUndefined::Value(avatar) = &self.avatar
            && let Err(problem) = outbound_url::check(avatar, &state.url_policy)
        {
            add("avatar", problem.code(), problem.to_string());
        }
        let plain = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let MaybeUndefined::Value(app_id) = &self.gewe_app_id
            && !plain(app_id, 128)
        {
            add("gewe_app_id", "bad_id", "must be 1 to 128 letters, digits and signs without spaces".into());
        }
        if let MaybeUndefined::Value(token) = &self.gewe_token_id
            && !plain(token, 512)
        {
            add(
                "gewe_token_id",
                "bad_token",
                "must be 1 to 512 letters, digits and signs without spaces".into(),
            );
        }
        problems
    }
}

fn put(field: &mut Option<String>, value: MaybeUndefined<Text>) {
    match value {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => *field = None,
        MaybeUndefined::Value(Text(value)) => *field = Some(value),
    }
}
