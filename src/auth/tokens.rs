//! Tokens: how they are made at a login, and how a later call proves its caller by one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::jwt::Jwt;
use super::{Caller, Error, TokenError};
use crate::clock::{Clock, LogLimit};
use crate::{go, limits};

const PREFIX_LETTERS: usize = 16;
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const JWT_TTL: Duration = Duration::from_secs(300);

enum TokenKind {
    Simple,
    Jwt(Box<Jwt>),
    /// `--auth-token ''`: every login fails, as in etcd.
    None,
}

/// The tokens that one member knows or can verify.
pub struct Tokens {
    kind: TokenKind,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    simple: Mutex<Simple>,
    refused: AtomicU64,
    /// Anybody can send a refused token with every call.
    refusal_said: LogLimit,
}

/// Simple tokens, and the order in which they expire.
#[derive(Default)]
struct Simple {
    tokens: HashMap<Arc<str>, Login>,
    ends: BTreeSet<(Duration, Arc<str>)>,
}

struct Login {
    user: String,
    end: Duration,
}

impl Simple {
    fn insert(&mut self, token: Arc<str>, user: String, end: Duration) {
        self.remove(&token);
        self.ends.insert((end, Arc::clone(&token)));
        self.tokens.insert(token, Login { user, end });
    }

    fn remove(&mut self, token: &Arc<str>) {
        if let Some(login) = self.tokens.remove(token) {
            self.ends.remove(&(login.end, Arc::clone(token)));
        }
    }

    /// Drops expired tokens, and then those that expire soonest, until there is room for one more.
    fn make_room(&mut self, now: Duration) {
        while let Some((end, token)) = self.ends.first().cloned() {
            if end >= now && self.tokens.len() < limits::SIMPLE_TOKENS_MAX {
                break;
            }
            self.remove(&token);
        }
    }

    fn renew(&mut self, token: &str, now: Duration, ttl: Duration) -> Option<String> {
        let (token, login) = self.tokens.get_key_value(token)?;
        if login.end < now {
            return None;
        }
        let (token, user) = (Arc::clone(token), login.user.clone());
        self.insert(token, user.clone(), now.saturating_add(ttl));
        Some(user)
    }
}

impl Tokens {
    /// Parses `--auth-token` and `--auth-token-ttl`. Reads the key files that the former names.
    pub fn new(spec: &str, ttl: Duration, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let mut words = spec.split(',');
        let kind = words.next().unwrap_or_default();
        let mut options: Vec<(&str, &str)> = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or(TokenError::InvalidOptions)?;
            if value.contains('=') || options.iter().any(|(other, _)| *other == name) {
                return Err(TokenError::InvalidOptions);
            }
            options.push((name, value));
        }
        let kind = match kind {
            "" => TokenKind::None,
            "simple" => {
                tracing::warn!("simple token is not cryptographically signed");
                TokenKind::Simple
            }
            "jwt" => TokenKind::Jwt(Box::new(jwt(&options)?)),
            _ => return Err(TokenError::InvalidOptions),
        };
        // As in etcd, a TTL of zero stands for the default.
        let ttl = if ttl.is_zero() { limits::SIMPLE_TOKEN_TTL } else { ttl };
        Ok(Self {
            kind,
            ttl,
            clock,
            simple: Mutex::default(),
            refused: AtomicU64::new(0),
            refusal_said: LogLimit::new(limits::REFUSED_TOKEN_LINE_INTERVAL),
        })
    }

    /// The random part of a simple token. Chosen before the login is proposed, so that each member
    /// makes the same token. Empty if tokens are of another kind.
    pub fn prefix(&self) -> std::io::Result<String> {
        let mut prefix = String::new();
        if !matches!(self.kind, TokenKind::Simple) {
            return Ok(prefix);
        }
        while prefix.len() < PREFIX_LETTERS {
            let mut bytes = [0; 2 * PREFIX_LETTERS];
            self.clock.secret(&mut bytes)?;
            // 208 is the largest multiple of 52 in a byte: without this filter some letters would
            // be more likely.
            let fair = bytes.iter().filter(|byte| **byte < 208);
            prefix.extend(fair.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])));
        }
        prefix.truncate(PREFIX_LETTERS);
        Ok(prefix)
    }

    /// Makes the simple token of a login's log entry, and notes its user. Called on the apply
    /// thread. Empty if tokens are of another kind.
    pub fn assign(&self, user: &str, prefix: &str, index: u64) -> String {
        if !matches!(self.kind, TokenKind::Simple) {
            return String::new();
        }
        let token = format!("{prefix}.{index}");
        let now = self.clock.now();
        let mut simple = self.simple.lock();
        simple.make_room(now);
        simple.insert(token.as_str().into(), user.to_owned(), now.saturating_add(self.ttl));
        token
    }

    /// The token in the answer to a login: the simple token, or a JWT that is signed now.
    pub fn finish(&self, simple: String, user: &str, revision: u64) -> Result<String, Error> {
        match &self.kind {
            TokenKind::Simple => Ok(simple),
            TokenKind::Jwt(jwt) => jwt.sign(user, revision, self.clock.unix_nanos()),
            TokenKind::None => Err(Error::AuthFailed),
        }
    }

    /// The index of the log entry that made a simple token. Before it is applied here, this member
    /// does not know the token. None for other tokens.
    pub fn index_of(&self, token: &str) -> Option<u64> {
        if !matches!(self.kind, TokenKind::Simple) {
            return None;
        }
        let (_, index) = token.split_once('.')?;
        let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| index.parse().ok()).flatten()
    }

    /// The caller whose token this is. A use of a simple token restarts its TTL, and proves the
    /// caller as of `revision`.
    pub fn resolve(&self, token: &str, revision: u64) -> Result<Caller, Error> {
        let caller = match &self.kind {
            TokenKind::Simple => {
                let user = self.simple.lock().renew(token, self.clock.now(), self.ttl);
                user.map(|user| Caller::user(user, revision))
            }
            TokenKind::Jwt(jwt) => jwt.verify(token, self.clock.unix_nanos()),
            TokenKind::None => None,
        };
        caller.ok_or_else(|| {
            self.note_refusal(token);
            Error::InvalidToken
        })
    }

    /// The user whose token this is, for the log: neither is the token's life prolonged by this, nor
    /// does an invalid one count as refused.
    pub fn user_of(&self, token: &str) -> Option<String> {
        match &self.kind {
            TokenKind::Simple => {
                let simple = self.simple.lock();
                let login = simple.tokens.get(token)?;
                (login.end >= self.clock.now()).then(|| login.user.clone())
            }
            TokenKind::Jwt(jwt) => {
                let caller = jwt.verify(token, self.clock.unix_nanos())?;
                Some(caller.header().0.to_owned())
            }
            TokenKind::None => None,
        }
    }

    fn note_refusal(&self, token: &str) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.refusal_said.may_log(self.clock.now()) {
            return;
        }
        // What etcd shows of a token: enough to compare, and too little to use.
        let digest = format!("{:x}", Sha256::digest(token));
        let fingerprint = &digest[..limits::TOKEN_FINGERPRINT_LETTERS];
        tracing::warn!("token-fingerprint" = fingerprint, refused, "invalid auth token");
    }

    /// Ends a user's simple tokens. A JWT is valid until it expires or the auth revision in it is
    /// old.
    pub fn forget_user(&self, user: &str) {
        let mut simple = self.simple.lock();
        let of_user = simple.tokens.iter().filter(|(_, login)| login.user == user);
        let tokens: Vec<Arc<str>> = of_user.map(|(token, _)| Arc::clone(token)).collect();
        tokens.iter().for_each(|token| simple.remove(token));
    }

    /// Ends all simple tokens.
    pub fn forget_all(&self) {
        *self.simple.lock() = Simple::default();
    }
}

fn jwt(options: &[(&str, &str)]) -> Result<Jwt, TokenError> {
    let option =
        |name| options.iter().find(|(other, _)| *other == name).map_or("", |found| found.1);
    let file = |name| match option(name) {
        "" => Ok(Vec::new()),
        path => std::fs::read(path).map_err(|error| {
            tracing::error!(path, %error, "problem loading JWT options");
            TokenError::InvalidOptions
        }),
    };
    let ttl = match option("ttl") {
        "" => JWT_TTL,
        text => duration(text).ok_or(TokenError::InvalidOptions)?,
    };
    let (public, private) = (file("pub-key")?, file("priv-key")?);
    let known = ["sign-method", "pub-key", "priv-key", "ttl"];
    let unknown: Vec<_> = options.iter().filter(|(name, _)| !known.contains(name)).collect();
    let jwt = Jwt::new(option("sign-method"), &private, &public, ttl)?;
    if !unknown.is_empty() {
        tracing::warn!(keys = ?unknown, "unknown JWT options");
    }
    Ok(jwt)
}

/// Parses a duration in Go's notation, such as `1h30m`. None for a negative one: tokens would be
/// expired when they are made.
fn duration(text: &str) -> Option<Duration> {
    let nanos = go::parse_duration(text).ok().filter(|_| !text.starts_with('-'))?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}
