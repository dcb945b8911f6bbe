//! Links to media: signed for one message, until a time.

use ring::hmac;
use uuid::Uuid;

use crate::secret::Secret;

/// Makes links and checks them.
#[derive(Clone)]
pub struct Links {
    key: hmac::Key,
    public_url: Option<String>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}

/// Why a link opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Its time has passed.
    Expired,
    /// Nobody of ours has signed it.
    Forged,
}

impl Links {
    /// Signs with a key that is derived from `JWT_SECRET_KEY`. `public_url` is how others reach the API.
    pub fn new(secret: &Secret, public_url: Option<String>) -> Links {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let derived = hmac::sign(&root, b"entropy: key of links to media");
        Links {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
        }
    }

    /// Returns a link below the API's own address, good until `expires` in seconds since 1970.
    pub fn path(&self, message: Uuid, expires: i64) -> String {
        let signature = hmac::sign(&self.key, said(message, expires).as_bytes());
        format!("/media/{message}?expires={expires}&signature={}", hex(signature.as_ref()))
    }

    /// Returns a link for whoever is asked from outside. None: this install does not know how it is reached.
    pub fn url(&self, message: Uuid, expires: i64) -> Option<String> {
        Some(format!("{}{}", self.public_url.as_ref()?, self.path(message, expires)))
    }

    /// Tells whether others can reach a link: this install knows its own address.
    pub fn is_public(&self) -> bool {
        self.public_url.is_some()
    }

    /// Returns a link to an uploaded material below the API's own address, good until `expires` in seconds since 1970.
    pub fn material_path(&self, material: Uuid, revision: i32, expires: i64) -> String {
        let signature = hmac::sign(&self.key, said_of_material(material, revision, expires).as_bytes());
        let signature = hex(signature.as_ref());
        format!("/media/materials/{material}/{revision}?expires={expires}&signature={signature}")
    }

    /// Returns a link to an uploaded material for whoever is asked from outside. None: this install does not know how it is
    /// reached.
    pub fn material_url(&self, material: Uuid, revision: i32, expires: i64) -> Option<String> {
        Some(format!("{}{}", self.public_url.as_ref()?, self.material_path(material, revision, expires)))
    }

    /// Checks a link to an uploaded material at the time `now`.
    pub fn check_material(
        &self,
        (material, revision): (Uuid, i32),
        expires: i64,
        signature: &str,
        now: i64,
    ) -> Result<(), Closed> {
        self.verify(&said_of_material(material, revision, expires), expires, signature, now)
    }

    /// Checks a link at the time `now`.
    pub fn check(&self, message: Uuid, expires: i64, signature: &str, now: i64) -> Result<(), Closed> {
        self.verify(&said(message, expires), expires, signature, now)
    }

    fn verify(&self, said: &str, expires: i64, signature: &str, now: i64) -> Result<(), Closed> {
        let signature = unhex(signature).ok_or(Closed::Forged)?;
        // Compares in constant time.
        hmac::verify(&self.key, said.as_bytes(), &signature).map_err(|_| Closed::Forged)?;
        if expires > now { Ok(()) } else { Err(Closed::Expired) }
    }
}

/// Returns a link for an outside service that is good until `expires`, in seconds since 1970. None: this install does not
/// know how it is reached (`PUBLIC_URL`), or has no key to sign with.
pub fn signed_url(links: Option<&Links>, message: Uuid, expires: i64) -> Option<String> {
    links?.url(message, expires)
}

fn said(message: Uuid, expires: i64) -> String {
    format!("media:{message}:{expires}")
}

fn said_of_material(material: Uuid, revision: i32, expires: i64) -> String {
    format!("material:{material}:{revision}:{expires}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_its_own_message_until_its_time() {
        let links = Links::new(&Secret::new("a-secret-of-the-tests"), Some("https://a.example/".into()));
        let (message, other) = (Uuid::now_v7(), Uuid::now_v7());
        let path = links.path(message, 1000);
        assert_eq!(links.url(message, 1000), Some(format!("https://a.example{path}")));
        let signature = path.split("signature=").nth(1).expect("a signature");
        assert_eq!(links.check(message, 1000, signature, 999), Ok(()));
        assert_eq!(links.check(message, 1000, signature, 1000), Err(Closed::Expired));
        assert_eq!(links.check(message, 2000, signature, 999), Err(Closed::Forged));
        assert_eq!(links.check(other, 1000, signature, 999), Err(Closed::Forged));
        let material = links.material_path(message, 2, 1000);
        let of_material = material.split("signature=").nth(1).expect("a signature");
        assert_eq!(links.check_material((message, 2), 1000, of_material, 999), Ok(()));
        assert_eq!(links.check_material((message, 2), 1000, of_material, 1000), Err(Closed::Expired));
        assert_eq!(links.check_material((message, 1), 1000, of_material, 999), Err(Closed::Forged));
        assert_eq!(links.check_material((message, 2), 1000, signature, 999), Err(Closed::Forged));
        let another = Links::new(&Secret::new("another-secret"), None);
        assert_eq!(another.check(message, 1000, signature, 999), Err(Closed::Forged));
        assert_eq!(another.url(message, 1000), None);
        assert!(links.is_public() && !another.is_public());
        for wrong in ["", "zz", "é", &signature[1..], &"é".repeat(32)] {
            assert_eq!(links.check(message, 1000, wrong, 999), Err(Closed::Forged), "{wrong}");
        }
    }
}
