//! How adverts are authenticated, as configured; part of the [model](super::model). Pure data, whose
//! secrets are never printed.

use std::fmt;

/// How adverts are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all: the sender's address and TTL 255 are what protects.
    None,
    /// RFC 2338's simple password, version 2 only: sent in clear, for migration.
    Pass(Password),
    /// The trailer of draft-cassen-vrrp-auth-hmac, both versions.
    Hmac(Hmac),
}

/// `auth = { type = "hmac", … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hmac {
    /// `keys`, 1 to 4, unique ids: the first signs, all are accepted.
    pub keys: Vec<HmacKey>,
    /// `mode`, default enforce.
    pub mode: HmacMode,
}

/// One key of HMAC authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacKey {
    /// `id`, 1…255: adverts name it.
    pub id: u8,
    /// `key`.
    pub secret: Secret,
}

/// A shared secret of 32 to 64 bytes. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How far a node insists on HMAC: the steps of its introduction in a running group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacMode {
    /// Signs, and refuses what is not signed.
    Enforce,
    /// Signs, and also accepts what is not signed.
    Permissive,
    /// Does not sign yet; what is signed must be right.
    ReceiveOnly,
}

/// A version 2 password: eight bytes, padded with zeros. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub [u8; 8]);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
