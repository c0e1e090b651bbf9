//! Callers: who they are, what they may do, and how they log in.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::waits::AppliedWaits;
use super::{Error, Node, Op, Reply};
use crate::apply::{self, Stage};
use crate::auth::{self, Caller, Credentials, Demand, LeaseKeys, ROOT};
use crate::clock;
use crate::limits;
use crate::pb::{AuthenticateRequest, AuthenticateResponse, InternalAuthenticateRequest, loggable};
use crate::raft::Via;
use crate::trace::Context;

/// The proof that a caller had the demanded rights, as of the auth revision of its token.
pub(super) struct Permit {
    caller: Caller,
}

impl Permit {
    /// Fails if users or roles have changed since the check: the data was read in between, and the
    /// caller may have lost the right to it.
    pub(super) fn still_holds(&self, node: &Node) -> Result<(), Error> {
        let (_, revision) = self.caller.header();
        if revision != 0 && revision != node.0.machine.auth.read().revision() {
            return Err(auth::Error::OldRevision.into());
        }
        Ok(())
    }

    /// Whether it was given while authentication was on, and holds still.
    pub(super) fn is_current(&self, node: &Node) -> bool {
        self.caller.header().1 != 0 && self.still_holds(node).is_ok()
    }

    /// Checks a further demand of the same caller.
    pub(super) fn check(&self, node: &Node, demand: &Demand) -> Result<(), Error> {
        Ok(node.0.machine.auth.read().check(&self.caller, demand, node)?)
    }
}

impl LeaseKeys for Node {
    fn has_all(&self, lease: Option<i64>, has: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.machine.lessor.lock().keys_of(lease).all(has)
    }
}

/// Removes the waiter for an index if its future is dropped early, as when the client hangs up.
struct AppliedWait<'a>(&'a AppliedWaits, u64);

impl Drop for AppliedWait<'_> {
    fn drop(&mut self) {
        self.0.prune(self.1);
    }
}

impl Node {
    /// Checks a demand for a room above that does the work itself.
    pub async fn permits(&self, who: &Credentials, demand: &Demand) -> Result<(), Error> {
        self.permit(who, demand).await.map(drop)
    }

    /// The user that a request is from, for the log; None if auth is off or nothing proves a user.
    /// Never waits: a token may name an index that is not applied here yet.
    pub fn user_of(&self, who: &Credentials) -> Option<String> {
        if !self.0.machine.auth.read().is_enabled() {
            return None;
        }
        let name = match who.presented_token() {
            Some(token) => self.0.machine.tokens.user_of(std::str::from_utf8(token).ok()?)?,
            None => who.presented_name()?.to_owned(),
        };
        (!name.is_empty()).then(|| loggable::name(&name).to_string())
    }

    /// As `permits`, refused while the member is fenced. The permit is checked again after the
    /// read.
    pub(super) async fn authorize(
        &self,
        who: &Credentials,
        demand: &Demand,
    ) -> Result<Permit, Error> {
        self.fence()?;
        self.permit(who, demand).await
    }

    async fn permit(&self, who: &Credentials, demand: &Demand) -> Result<Permit, Error> {
        let caller = self.caller(who).await?;
        let auth = self.0.machine.auth.read();
        // etcd serves a request without any key even to a caller without a name. Here such a caller
        // is refused.
        if matches!(demand, Demand::Keys(accesses) if accesses.is_empty()) {
            auth.check(&caller, &Demand::AnyUser, self)?;
        }
        auth.check(&caller, demand, self)?;
        drop(auth);
        Ok(Permit { caller })
    }

    /// The caller of a proposal, after its rights were checked a first time; apply checks them
    /// again.
    pub(super) async fn admit(&self, who: &Credentials, op: &Op) -> Result<Caller, Error> {
        self.fence()?;
        // A login is proved by its password, so the token that comes with it is not looked at: it
        // may have expired.
        if matches!(op, Op::Authenticate(_)) {
            return Ok(Caller::NOBODY);
        }
        let caller = self.caller(who).await?;
        let demand = apply::demand(op, Stage::Proposed);
        self.0.machine.auth.read().check(&caller, &demand, self)?;
        Ok(caller)
    }

    /// The caller that the credentials prove: a token comes before a certificate's name. While auth
    /// is off, every caller is `NOBODY`.
    async fn caller(&self, who: &Credentials) -> Result<Caller, Error> {
        if !self.0.machine.auth.read().is_enabled() {
            return Ok(Caller::NOBODY);
        }
        if let Some(token) = who.presented_token() {
            let token = std::str::from_utf8(token).map_err(|_| auth::Error::InvalidToken)?;
            if let Some(index) = self.0.machine.tokens.index_of(token) {
                Box::pin(self.applied_for_token(index)).await?;
            }
            let revision = self.0.machine.auth.read().revision();
            return Ok(self.0.machine.tokens.resolve(token, revision)?);
        }
        let revision = self.0.machine.auth.read().revision();
        Ok(match who.presented_name() {
            Some(name) => Caller::user(name, revision),
            None => Caller::NOBODY,
        })
    }

    /// Waits until the login entry that made a token is applied here, so that a client can use the
    /// token on every member at once. The wait is bounded: a forged token may name an index that
    /// never comes.
    async fn applied_for_token(&self, index: u64) -> Result<(), Error> {
        let applied = &self.0.applied;
        if applied.index() >= index {
            return Ok(());
        }
        // Declared before the receiver, so that it is dropped after it: `prune` looks for closed
        // receivers.
        let _waiting = AppliedWait(applied, index);
        let (done, waiting) = oneshot::channel();
        applied.wait(index, done);
        match clock::timeout(&*self.0.clock, self.request_timeout(), waiting).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Stopped),
            None => Err(auth::Error::InvalidToken.into()),
        }
    }

    /// The caller of the member's own proposals: root.
    pub(super) fn own_identity(&self) -> Caller {
        let auth = self.0.machine.auth.read();
        if auth.is_enabled() { Caller::user(ROOT, auth.revision()) } else { Caller::NOBODY }
    }

    /// Replaces a new password by its hash, so that the log never holds a password.
    pub(super) async fn hash_password(&self, op: Op) -> Result<Op, Error> {
        let passwords = &self.0.passwords;
        Ok(match op {
            Op::UserAdd(mut add) if !add.options.is_some_and(|options| options.no_password) => {
                let password = std::mem::take(&mut add.password);
                add.hashed_password = passwords.hash(password).await?;
                Op::UserAdd(add)
            }
            Op::UserAdd(mut add) => {
                add.password.clear();
                Op::UserAdd(add)
            }
            Op::UserChangePassword(mut change) if !change.password.is_empty() => {
                let password = std::mem::take(&mut change.password);
                change.hashed_password = passwords.hash(password).await?;
                Op::UserChangePassword(change)
            }
            op => op,
        })
    }

    /// Whether this member has applied that authentication is on.
    pub fn is_auth_enabled(&self) -> bool {
        self.0.machine.auth.read().is_enabled()
    }

    /// Gives a token for a name and password. If users or roles change after the password was
    /// compared and before the login's entry is applied, the password is compared again. `span` is
    /// that of the call.
    pub async fn authenticate(
        &self,
        span: &Context,
        request: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, Error> {
        let AuthenticateRequest { name, password } = request;
        self.0.passwords.check_room(&name)?;
        self.barrier().await?;
        for _ in 0..limits::LOGIN_ATTEMPTS_MAX {
            let revision = self.check_password(&name, &password).await?;
            let simple_token =
                self.0.machine.tokens.prefix().map_err(|error| {
                    Error::Internal(format!("no randomness for a token: {error}"))
                })?;
            let login = InternalAuthenticateRequest {
                name: name.clone(),
                password: String::new(),
                simple_token,
            };
            let reply = self.submit(&Caller::NOBODY, Op::Authenticate(login), Via::AnyLeader, span);
            let reply = reply.await?;
            let Reply::Authenticate(mut response) = reply else {
                return Err(Error::Internal("a login was answered with something else".into()));
            };
            if self.0.machine.auth.read().revision() == revision {
                let token = std::mem::take(&mut response.token);
                response.token = self.0.machine.tokens.finish(token, &name, revision)?;
                return Ok(response);
            }
            tracing::info!("revision when password checked became stale; retrying");
        }
        Err(auth::Error::OldRevision.into())
    }

    /// The auth revision at which the password was right.
    async fn check_password(&self, name: &str, password: &str) -> Result<u64, Error> {
        let found = self.0.machine.auth.read().password_hash(name);
        let is_right = match &found {
            Ok((hash, _)) => self.0.passwords.matches(name, password, hash.clone()).await?,
            // Costs as much as a comparison, or the time would tell that there is no such user.
            Err(auth::Error::AuthFailed) => {
                self.0.passwords.match_nothing(name, password).await?;
                false
            }
            Err(_) => false,
        };
        let error = match found {
            Ok((_, revision)) if is_right => return Ok(revision),
            Ok(_) => auth::Error::AuthFailed,
            Err(error) => error,
        };
        if error != auth::Error::AuthNotEnabled {
            tracing::warn!(user = loggable::name(name), %error, "invalid authentication was requested");
        }
        Err(error.into())
    }
}
