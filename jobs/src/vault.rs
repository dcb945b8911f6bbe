//! Secrets at rest: sealed on the way into Postgres, opened just before their use.
//!
//! The vault owns the format and the keys derived from the one in the environment.
//! It does not know what it keeps, where it is stored or who may ask; the caller names the place in `context`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};

use crate::secret::Secret;

/// Begins every sealed text, so that a later format can be told from this one.
const VERSION: &str = "v1:";

/// Why a key or a sealed text was not usable. Never carries any of the text.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The key in the environment is not 32 bytes of base64.
    #[error("the encryption key must be 32 random bytes in base64; `openssl rand -base64 32` makes one")]
    Key,
    /// The text does not come from a vault, or from a later one.
    #[error("the sealed text is not of a known version")]
    Version,
    /// The text is cut or is not base64.
    #[error("the sealed text is damaged")]
    Damaged,
    /// Another key, another context, or somebody changed the text.
    #[error("the sealed text does not open with this key in this place")]
    Refused,
}

/// Seals and opens secrets with one key.
pub struct Vault {
    seal_key: LessSafeKey,
    fingerprint_key: hmac::Key,
    random: SystemRandom,
}

impl Vault {
    /// Builds the vault from 32 random bytes in base64, with or without padding.
    pub fn from_base64_key(key: &str) -> Result<Self, Error> {
        let key = key.trim();
        let bytes = STANDARD.decode(key).or_else(|_| STANDARD_NO_PAD.decode(key)).map_err(|_| Error::Key)?;
        if bytes.len() != 32 {
            return Err(Error::Key);
        }
        // One use, one key: a fingerprint is stored in the clear and must say nothing about the sealing key.
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"entropy/vault").extract(&bytes);
        let seal_key = root
            .expand(&[b"seal/v1"], &CHACHA20_POLY1305)
            .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
            .map_err(|_| Error::Key)?;
        let fingerprint_key = root
            .expand(&[b"fingerprint/v1"], hmac::HMAC_SHA256)
            .map(hmac::Key::from)
            .map_err(|_| Error::Key)?;
        Ok(Self { seal_key, fingerprint_key, random: SystemRandom::new() })
    }

    /// Seals the secret for one place, such as `org:<id>/gewe_token`.
    ///
    /// Sealing twice gives two different texts. A text copied to another row does not open there, because
    /// the context is authenticated with it.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness to give, in which case nothing may be encrypted at all.
    pub fn seal(&self, secret: &Secret, context: &str) -> String {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("the operating system gives random bytes");
        let mut sealed = secret.expose().as_bytes().to_vec();
        self.seal_key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut sealed,
            )
            .expect("a secret is far shorter than the cipher's limit of 256 GiB");
        format!("{VERSION}{}", STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens a text that [`Vault::seal`] made for the same context.
    pub fn open(&self, text: &str, context: &str) -> Result<Secret, Error> {
        let encoded = text.strip_prefix(VERSION).ok_or(Error::Version)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| Error::Damaged)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(Error::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Damaged)?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .seal_key
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut sealed)
            .map_err(|_| Error::Refused)?;
        std::str::from_utf8(plain).map(Secret::new).map_err(|_| Error::Damaged)
    }

    /// Returns a stable name for the secret, from which it cannot be guessed without the key.
    ///
    /// Equal secrets have equal fingerprints whatever their context: two organisations on one GeWe token
    /// share that token's rate window.
    pub fn fingerprint(&self, secret: &Secret) -> String {
        let tag = hmac::sign(&self.fingerprint_key, secret.expose().as_bytes());
        tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const PLACE: &str = "org:1/gewe_token";

    fn vault() -> Vault {
        Vault::from_base64_key(KEY).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_again_in_its_place() {
        let sealed = vault().seal(&Secret::new("令牌-1"), PLACE);
        assert!(sealed.starts_with("v1:") && !sealed.contains("令牌"));
        assert_eq!(vault().open(&sealed, PLACE).unwrap().expose(), "令牌-1");
    }

    #[test]
    fn sealing_twice_gives_two_texts() {
        let secret = Secret::new("token");
        assert_ne!(vault().seal(&secret, PLACE), vault().seal(&secret, PLACE));
    }

    #[test]
    fn a_text_moved_to_another_place_or_key_does_not_open() {
        let sealed = vault().seal(&Secret::new("token"), PLACE);
        assert_eq!(vault().open(&sealed, "org:2/gewe_token").unwrap_err(), Error::Refused);
        let other = Vault::from_base64_key("/////////////////////////////////////////v8=").unwrap();
        assert_eq!(other.open(&sealed, PLACE).unwrap_err(), Error::Refused);
    }

    #[test]
    fn a_changed_or_cut_text_does_not_open() {
        let sealed = vault().seal(&Secret::new("token"), PLACE);
        let mut bytes = STANDARD.decode(&sealed[3..]).unwrap();
        for index in [0, NONCE_LEN, bytes.len() - 1] {
            bytes[index] ^= 1;
            let changed = format!("v1:{}", STANDARD.encode(&bytes));
            assert_eq!(vault().open(&changed, PLACE).unwrap_err(), Error::Refused);
            bytes[index] ^= 1;
        }
        assert_eq!(vault().open("v1:AAAA", PLACE).unwrap_err(), Error::Damaged);
        assert_eq!(vault().open("v1:?", PLACE).unwrap_err(), Error::Damaged);
        assert_eq!(vault().open("v2:AAAA", PLACE).unwrap_err(), Error::Version);
        assert_eq!(vault().open("token", PLACE).unwrap_err(), Error::Version);
    }

    #[test]
    fn a_fingerprint_is_stable_and_depends_on_the_secret_and_the_key() {
        let one = vault().fingerprint(&Secret::new("token"));
        assert_eq!(one, vault().fingerprint(&Secret::new("token")));
        assert_eq!(one.len(), 32);
        assert_ne!(one, vault().fingerprint(&Secret::new("token2")));
        let other = Vault::from_base64_key("/////////////////////////////////////////v8=").unwrap();
        assert_ne!(one, other.fingerprint(&Secret::new("token")));
    }

    #[test]
    fn a_key_of_another_length_is_refused_with_advice() {
        for key in ["", "c2hvcnQ=", "not base64!", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gIQ=="] {
            assert_eq!(Vault::from_base64_key(key).unwrap_err(), Error::Key, "{key}");
        }
        assert!(Vault::from_base64_key(KEY.trim_end_matches('=')).is_ok());
        assert!(Vault::from_base64_key(&format!("{KEY}\n")).is_ok());
    }
}
