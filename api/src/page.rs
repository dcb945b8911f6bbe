//! Cursor pages: at most 200 items, newest first, in an order that does not shift.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem_openapi::Object;
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use uuid::Uuid;

use crate::problem::{ApiError, FieldProblem};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

/// A page of a list.
#[derive(Debug, Object)]
pub(crate) struct Page<T: ParseFromJSON + ToJSON + Type + Send + Sync> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; null: this was the last one.
    pub next_cursor: Option<String>,
}

/// What a caller asked of a list: how many, and after what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// Items on the page.
    pub limit: i64,
    /// Only items older than this one.
    pub before: Option<Uuid>,
}

impl Ask {
    /// Reads the parameters of a list by id.
    pub(crate) fn new(limit: Option<i64>, cursor: Option<&str>) -> Result<Ask, ApiError> {
        let before = cursor.map(|cursor| decode(cursor)?.parse().map_err(|_| bad_cursor())).transpose()?;
        Ok(Ask { limit: limit_of(limit)?, before })
    }

    /// How many items to read: one more than asked for tells whether there is a next page.
    pub(crate) fn fetch(self) -> i64 {
        self.limit + 1
    }

    /// Cuts what was read to a page and makes the cursor.
    pub(crate) fn page<R, T>(
        self,
        mut rows: Vec<R>,
        id: impl Fn(&R) -> Uuid,
        view: impl FnMut(R) -> T,
    ) -> Page<T>
    where
        T: ParseFromJSON + ToJSON + Type + Send + Sync,
    {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&id(last).to_string()));
        Page { items: rows.into_iter().map(view).collect(), next_cursor }
    }
}

/// Checks a limit, or returns the default.
pub(crate) fn limit_of(limit: Option<i64>) -> Result<i64, ApiError> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => {
            let message = format!("must lie between 1 and {MAX_LIMIT}");
            Err(ApiError::malformed(vec![FieldProblem::new("limit", "out_of_range", message)]))
        }
    }
}

/// Makes a cursor. Callers should not read it.
pub(crate) fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Reads a cursor.
pub(crate) fn decode(cursor: &str) -> Result<String, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad_cursor())?;
    String::from_utf8(bytes).map_err(|_| bad_cursor())
}

/// The answer to a cursor that is none of ours.
pub(crate) fn bad_cursor() -> ApiError {
    let message = "is not a cursor of this list; take it from `next_cursor`, or leave it out";
    ApiError::malformed(vec![FieldProblem::new("cursor", "invalid_cursor", message)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_cursor_only_if_there_is_more() {
        let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        let ask = Ask::new(Some(2), None).expect("a page");
        assert_eq!(ask.fetch(), 3);
        let page = ask.page(ids.clone(), |id| *id, |id| id.to_string());
        assert_eq!(page.items.len(), 2);
        let next = Ask::new(Some(2), page.next_cursor.as_deref()).expect("a page");
        assert_eq!(next.before, Some(ids[1]));
        assert!(next.page(vec![ids[2]], |id| *id, |id| id.to_string()).next_cursor.is_none());
    }

    #[test]
    fn limits_and_cursors_that_cannot_be_are_refused() {
        for limit in [0, -1, 201] {
            assert!(limit_of(Some(limit)).is_err());
        }
        for cursor in ["", "x", "!!", "AAAA"] {
            assert!(Ask::new(None, Some(cursor)).is_err(), "{cursor}");
        }
    }
}
