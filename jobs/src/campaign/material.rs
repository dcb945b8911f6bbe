//! A revision of a material as a message that can be sent.

use entropy_schema::campaigns::materials::Revision;
use serde_json::Value;

use crate::media::Links;
use crate::message::Message;

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

/// Returns the message. Of an uploaded file the link is good until `expires`, in seconds since 1970.
pub fn message(revision: &Revision, links: Option<&Links>, expires: i64) -> Result<Message, Unsendable> {
    let mut content = revision.content.clone();
    if revision.path.is_some() {
        let url = links
            .and_then(|links| links.material_url(revision.material_id, revision.revision, expires))
            .ok_or(Unsendable::NoPublicUrl)?;
        let fields = content.as_object_mut().ok_or(Unsendable::Unreadable)?;
        fields.insert("url".to_owned(), Value::String(url));
    }
    serde_json::from_value(content).map_err(|_| Unsendable::Unreadable)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::secret::Secret;

    fn revision(content: Value, path: Option<&str>) -> Revision {
        Revision {
            material_id: Uuid::from_u128(1),
            revision: 2,
            organization_id: Uuid::nil(),
            content,
            path: path.map(str::to_owned),
            media_type: None,
            bytes: None,
            created_by: None,
            created_at: DateTime::UNIX_EPOCH,
            approved_by: None,
            approved_at: None,
            checked_at: None,
            check_error: None,
        }
    }

    #[test]
    fn an_uploaded_file_is_sent_by_a_link_and_anything_else_as_it_is() {
        let links = Links::new(&Secret::new("a-secret-of-the-tests"), Some("https://a.example".into()));
        let uploaded = revision(json!({"kind": "file", "name": "报价单.pdf"}), Some("a/b.pdf"));
        let Ok(Message::File(file)) = message(&uploaded, Some(&links), 1000) else { panic!("a file") };
        assert_eq!(file.name, "报价单.pdf");
        assert!(file.url.starts_with("https://a.example/media/materials/"), "{}", file.url);
        assert_eq!(message(&uploaded, None, 1000), Err(Unsendable::NoPublicUrl));
        let elsewhere = revision(json!({"kind": "image", "url": "https://cdn.example.com/a.png"}), None);
        assert_eq!(message(&elsewhere, None, 1000).map(|message| message.kind()), Ok("image"));
        assert_eq!(message(&revision(json!({"kind": "image"}), None), None, 1), Err(Unsendable::Unreadable));
    }
}
