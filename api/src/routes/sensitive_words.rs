//! Words that an answer of the AI must not say, or not without a person.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::ai::words::{ADVERTISING_LAW, normalize};
use entropy_schema::Conn;
use entropy_schema::words::{self, Word};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// The most words of an import.
const MAX_IMPORTED: usize = 2000;
/// The most words of an organisation: all of them are looked for in every answer.
const MAX_WORDS: i64 = 20_000;

/// What is done with an answer in which the word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum WordAction {
    /// It is not sent; a person takes over.
    Block,
    /// A person looks at it first.
    Review,
    /// The word is replaced by stars.
    Mask,
}

impl WordAction {
    fn as_str(self) -> &'static str {
        match self {
            WordAction::Block => "block",
            WordAction::Review => "review",
            WordAction::Mask => "mask",
        }
    }

    fn of(stored: &str) -> WordAction {
        match stored {
            "block" => WordAction::Block,
            "mask" => WordAction::Mask,
            _ => WordAction::Review,
        }
    }
}

/// A word to add.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreateWord {
    /// 1 to 64 characters. Width, case, blanks and invisible characters make no difference.
    word: Text,
    action: WordAction,
}

/// Words to add.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ImportWords {
    /// 1 to 2000 words.
    words: Vec<CreateWord>,
}

/// A word.
#[derive(Debug, Object)]
struct WordView {
    id: Uuid,
    word: String,
    action: WordAction,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
}

/// Why a word was not added.
#[derive(Debug, Object)]
struct ImportError {
    /// Stable name of the problem.
    code: String,
    /// What to change.
    message: String,
}

/// What became of one word: `id`, `created` and `action`, or `error`.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct ImportedWord {
    /// The word's place in the request, from 0.
    index: u32,
    id: Option<Uuid>,
    /// False: it was there already, and stays as it is.
    created: Option<bool>,
    /// What is done with it.
    action: Option<WordAction>,
    error: Option<ImportError>,
}

/// What became of each word.
#[derive(Debug, Object)]
struct ImportView {
    /// One answer for each word, in their order.
    items: Vec<ImportedWord>,
    /// How many were added.
    created: u32,
}

/// What became of the shipped list.
#[derive(Debug, Object)]
struct DefaultsView {
    /// Words that were added.
    created: u32,
    /// Words that were there already, and stay as they are.
    present: u32,
}

#[derive(ApiResponse)]
enum Created {
    /// It is looked for within seconds.
    #[oai(status = 201)]
    Created(Json<WordView>),
}

#[derive(ApiResponse)]
enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Gone,
}

/// Sensitive words.
pub(super) struct SensitiveWords;

#[OpenApi(tag = "Tag::Answers")]
impl SensitiveWords {
    /// Lists the sensitive words
    ///
    /// Newest first.
    #[oai(path = "/sensitive-words", method = "get", operation_id = "list_sensitive_words")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only words with this action.
        action: Query<Option<WordAction>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<WordView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let action = action.0.map(WordAction::as_str);
        let mut conn = state.db.conn().await?;
        let rows = words::list(&mut conn, caller.organization_id, action, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |row| row.id, view)))
    }

    /// Adds a sensitive word
    ///
    /// Needs the role manager. 409 if there is one that compares equal.
    #[oai(path = "/sensitive-words", method = "post", operation_id = "create_sensitive_word")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreateWord>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let word = read(&caller, &body.0.word, body.0.action, now)
            .map_err(|(code, message)| ApiError::field("word", code, message))?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            check_room(conn, &caller, 1).await?;
            if words::add(conn, std::slice::from_ref(&word)).await?.is_empty() {
                let detail =
                    "Your organisation has a word that compares equal to this one. Remove that one first.";
                return Err(ApiError::conflict("word_exists", detail));
            }
            Note::new("sensitive_word.create", "sensitive_word", word.id)
                .after(json!({"word": word.word, "action": word.action}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Created::Created(Json(view(word))))
    }

    /// Removes a sensitive word
    ///
    /// Needs the role manager. Answers that wait for a review because of it go on waiting.
    #[oai(path = "/sensitive-words/:id", method = "delete", operation_id = "delete_sensitive_word")]
    async fn delete(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Deleted, ApiError> {
        caller.require(Role::Manager)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let word = words::remove(conn, caller.organization_id, id.0).await?;
            let word = word.ok_or_else(|| {
                ApiError::not_found("word_not_found", "Your organisation has no such sensitive word.")
            })?;
            Note::new("sensitive_word.delete", "sensitive_word", word.id)
                .before(json!({"word": word.word, "action": word.action}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Deleted::Gone)
    }

    /// Adds many sensitive words
    ///
    /// Needs the role manager. Each is answered on its own, in order; all that can be are added in one commit. A word that
    /// is there already stays as it is.
    #[oai(path = "/sensitive-words/import", method = "post", operation_id = "import_sensitive_words")]
    async fn import(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<ImportWords>,
    ) -> Result<Json<ImportView>, ApiError> {
        caller.require(Role::Manager)?;
        let asked = body.0.words;
        if asked.is_empty() || asked.len() > MAX_IMPORTED {
            return Err(ApiError::field("words", "out_of_range", "must have 1 to 2000 words"));
        }
        let now = state.now().await;
        let read: Vec<_> = asked.iter().map(|asked| read(&caller, &asked.word, asked.action, now)).collect();
        let mut conn = state.db.conn().await?;
        let (there, created) = conn
            .transaction(async |conn| {
                let new: Vec<&Word> = read.iter().filter_map(|word| word.as_ref().ok()).collect();
                let added = add(conn, &caller, &new).await?;
                Note::new("sensitive_word.import", "sensitive_word", caller.organization_id)
                    .after(json!({"created": added.1, "asked": asked.len()}))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(added)
            })
            .await?;
        let items = (0..).zip(read).map(|(index, word)| answer(index, word, &there)).collect();
        Ok(Json(ImportView { items, created }))
    }

    /// Adds the shipped list
    ///
    /// Needs the role manager. Superlatives and promises about which the advertising law is strict, to be reviewed. What is
    /// there already stays as it is; once more adds nothing.
    #[oai(path = "/sensitive-words/defaults", method = "post", operation_id = "add_default_sensitive_words")]
    async fn defaults(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
    ) -> Result<Json<DefaultsView>, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let shipped: Vec<Word> = ADVERTISING_LAW
            .iter()
            .filter_map(|word| read(&caller, word, WordAction::Review, now).ok())
            .collect();
        let mut conn = state.db.conn().await?;
        let created = conn
            .transaction(async |conn| {
                let (_, created) = add(conn, &caller, &shipped.iter().collect::<Vec<_>>()).await?;
                Note::new("sensitive_word.defaults", "sensitive_word", caller.organization_id)
                    .after(json!({"created": created}))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(created)
            })
            .await?;
        let present = u32::try_from(shipped.len()).unwrap_or(u32::MAX).saturating_sub(created);
        Ok(Json(DefaultsView { created, present }))
    }
}

/// Reads one word, or says what to change.
fn read(
    caller: &Caller,
    text: &str,
    action: WordAction,
    now: DateTime<Utc>,
) -> Result<Word, (&'static str, &'static str)> {
    let word = text.trim();
    let normalized = normalize(word);
    let lengths = [word, &normalized].map(|text| text.chars().count());
    if lengths.iter().any(|length| !(1..=64).contains(length)) || word.chars().any(char::is_control) {
        return Err(("bad_text", "must have 1 to 64 characters that can be seen, and no control characters"));
    }
    Ok(Word {
        id: Uuid::now_v7(),
        organization_id: caller.organization_id,
        word: word.to_owned(),
        normalized,
        action: action.as_str().to_owned(),
        created_by: Some(caller.id),
        created_at: now,
    })
}

async fn check_room(conn: &mut Conn, caller: &Caller, new: usize) -> Result<(), ApiError> {
    let have = words::count(conn, caller.organization_id).await?;
    if have + i64::try_from(new).unwrap_or(i64::MAX) > MAX_WORDS {
        let detail = format!(
            "An organisation may have {MAX_WORDS} sensitive words; yours has {have}. Remove some, or add fewer."
        );
        return Err(ApiError::conflict("too_many_words", detail));
    }
    Ok(())
}

/// Adds what is new. Returns what is there now, by what it compares as, and how many of them were added.
async fn add(
    conn: &mut Conn,
    caller: &Caller,
    asked: &[&Word],
) -> Result<(HashMap<String, Word>, u32), ApiError> {
    let compared: Vec<&str> = asked.iter().map(|word| word.normalized.as_str()).collect();
    let known = words::known(conn, caller.organization_id, &compared).await?;
    let mut there: HashMap<String, Word> =
        known.into_iter().map(|word| (word.normalized.clone(), word)).collect();
    let mut new: Vec<Word> = Vec::new();
    for word in asked {
        if !there.contains_key(&word.normalized) {
            there.insert(word.normalized.clone(), (*word).clone());
            new.push((*word).clone());
        }
    }
    check_room(conn, caller, new.len()).await?;
    // Everybody adds in the same order: two imports at once would otherwise wait for each other in a circle.
    new.sort_by(|one, other| one.normalized.cmp(&other.normalized));
    let added = words::add(conn, &new).await?;
    if added.len() < new.len() {
        // Somebody else added some of them meanwhile.
        for word in words::known(conn, caller.organization_id, &compared).await? {
            there.insert(word.normalized.clone(), word);
        }
    }
    Ok((there, u32::try_from(added.len()).unwrap_or(u32::MAX)))
}

fn answer(
    index: u32,
    read: Result<Word, (&'static str, &'static str)>,
    there: &HashMap<String, Word>,
) -> ImportedWord {
    let nothing = ImportedWord { index, id: None, created: None, action: None, error: None };
    match read {
        Err((code, message)) => {
            let error = ImportError { code: code.to_owned(), message: format!("The word {message}.") };
            ImportedWord { error: Some(error), ..nothing }
        }
        Ok(word) => match there.get(&word.normalized) {
            Some(stored) => ImportedWord {
                id: Some(stored.id),
                created: Some(stored.id == word.id),
                action: Some(WordAction::of(&stored.action)),
                ..nothing
            },
            // Added by somebody else and removed again, all within this transaction.
            None => nothing,
        },
    }
}

fn view(word: Word) -> WordView {
    WordView {
        id: word.id,
        word: word.word,
        action: WordAction::of(&word.action),
        created_by: word.created_by,
        created_at: word.created_at,
    }
}
