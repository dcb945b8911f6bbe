//! What is sent beside texts: a revision of a material as a message.
//!
//! An uploaded file is fetched by the provider under a signed link, which is made when the message leaves: until then it may wait
//! in its account's lane for longer than any link is good.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::Conn;
use entropy_schema::campaigns::facts;
use entropy_schema::campaigns::materials::{self, PinnedRevision};
use entropy_schema::record::enqueue::{NewJob, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::kinds::check_material::CheckMaterial;
use crate::media::Links;
use crate::message::Message;

/// How long the provider has for fetching a file.
const GOOD_FOR: TimeDelta = TimeDelta::days(1);

/// How the finding about a material begins that surely cannot be opened. What merely did not answer begins with `silent:`.
pub const DEAD: &str = "dead:";

/// Why a material cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Its file lies here, and this install does not know how it is reached from outside (`PUBLIC_URL`).
    #[error(
        "the material is an uploaded file, and this install has no PUBLIC_URL under which the provider could fetch it"
    )]
    NoPublicUrl,
    /// It is no message.
    #[error("the material cannot be read")]
    Unreadable,
}

impl Unsendable {
    /// Returns the code of the step that is left out for it.
    pub fn code(self) -> &'static str {
        match self {
            Unsendable::NoPublicUrl => "no_public_url",
            Unsendable::Unreadable => "material_missing",
        }
    }
}

/// A file that was uploaded as a revision of a material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The material.
    pub material_id: Uuid,
    /// Its revision.
    pub revision: i32,
}

impl Upload {
    /// Returns a link for the provider that is good for a day from `now`.
    fn url(self, links: Option<&Links>, now: DateTime<Utc>) -> Option<String> {
        links?.material_url(self.material_id, self.revision, (now + GOOD_FOR).timestamp())
    }
}

/// A revision that a version of a plan has pinned.
#[derive(Clone)]
pub struct Pinned {
    content: Value,
    upload: Option<Upload>,
}

/// Not what it says.
impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("upload", &self.upload).finish_non_exhaustive()
    }
}

impl Pinned {
    /// Reads what is stored.
    pub fn of(stored: facts::Material) -> Pinned {
        let upload = Upload { material_id: stored.id, revision: stored.revision };
        Pinned { content: stored.content, upload: stored.uploaded.then_some(upload) }
    }

    /// Returns the message, and the file of which it needs another link when it leaves.
    pub fn message(
        &self,
        links: Option<&Links>,
        now: DateTime<Utc>,
    ) -> Result<(Message, Option<Upload>), Unsendable> {
        let mut content = self.content.clone();
        if let Some(upload) = self.upload {
            let url = upload.url(links, now).ok_or(Unsendable::NoPublicUrl)?;
            let fields = content.as_object_mut().ok_or(Unsendable::Unreadable)?;
            fields.insert("url".to_owned(), Value::String(url));
        }
        let message = serde_json::from_value(content).map_err(|_| Unsendable::Unreadable)?;
        Ok((message, self.upload))
    }
}

/// Returns a message with a link to its file that was made just now. None: this process can make none.
pub fn with_new_link(
    message: &Message,
    upload: Upload,
    links: Option<&Links>,
    now: DateTime<Utc>,
) -> Option<Message> {
    let url = upload.url(links, now)?;
    let mut message = message.clone();
    match &mut message {
        Message::Image(image) => image.url = url,
        Message::File(file) => file.url = url,
        _ => return None,
    }
    Some(message)
}

/// Looks at what a version of a plan is to send, before it begins. Returns the keys of what was found dead when it was looked at
/// last; if there are none, every material is looked at once more, by jobs, and people are told of what is dead by then.
///
/// Call it in the transaction that starts the plan.
pub async fn before_start(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    version: i32,
    trace_id: &str,
) -> entropy_schema::Result<Vec<String>> {
    let pinned = materials::of_version(conn, organization, sop, version).await?;
    let is_dead = |one: &&PinnedRevision| one.check_error.as_ref().is_some_and(|said| said.starts_with(DEAD));
    let dead: Vec<String> = pinned.iter().filter(is_dead).map(|one| one.key.clone()).collect();
    if dead.is_empty() {
        let jobs: Vec<NewJob> =
            pinned.iter().map(|one| check(organization, one.id, one.revision, trace_id)).collect();
        enqueue(conn, &jobs).await?;
    }
    Ok(dead)
}

/// Makes the job that looks whether a revision's links answer.
pub fn check(organization: Uuid, material_id: Uuid, revision: i32, trace_id: &str) -> NewJob {
    let options = Options {
        organization_id: organization,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: trace_id.to_owned(),
        created_by: None,
    };
    new_job(&CheckMaterial { material_id, revision }, options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::Secret;

    fn pinned(content: Value, uploaded: bool) -> Pinned {
        let (id, key) = (Uuid::from_u128(1), "mat".to_owned());
        Pinned::of(facts::Material { id, revision: 2, uploaded, key, content })
    }

    #[test]
    fn an_uploaded_file_is_sent_by_a_link_and_anything_else_as_it_is() {
        let links = Links::new(&Secret::new("a-secret-of-the-tests"), Some("https://a.example".into()));
        let now = DateTime::UNIX_EPOCH;
        let uploaded = pinned(json!({"kind": "file", "name": "报价单.pdf"}), true);
        let (message, upload) = uploaded.message(Some(&links), now).expect("a message");
        let Message::File(file) = &message else { panic!("a file") };
        assert_eq!(file.name, "报价单.pdf");
        assert!(file.url.starts_with("https://a.example/media/materials/"), "{}", file.url);
        assert!(file.url.contains("/2?expires=86400&"), "{}", file.url);
        let later =
            with_new_link(&message, upload.expect("its file"), Some(&links), now + TimeDelta::days(3));
        let Some(Message::File(later)) = later else { panic!("a file") };
        assert!(later.name == file.name && later.url.contains("expires=345600"), "{}", later.url);
        assert_eq!(uploaded.message(None, now).expect_err("no link"), Unsendable::NoPublicUrl);
        let elsewhere = pinned(json!({"kind": "image", "url": "https://cdn.example.com/a.png"}), false);
        let (message, upload) = elsewhere.message(None, now).expect("a message");
        assert_eq!((message.kind(), upload), ("image", None));
        let broken = pinned(json!({"kind": "image"}), false);
        assert_eq!(broken.message(None, now).expect_err("no url"), Unsendable::Unreadable);
    }
}
