//! Exit codes, and the failures that carry them.

use std::fmt;

use crate::client;

/// etcdctl's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Success,
    Error,
    /// No login, no endpoint, or a failed lease command. 2 is also the exit code of a Go panic,
    /// which rusd keeps where etcdctl panics.
    BadConnection,
    /// A wrong command line, under the name rusd.
    Usage,
    InvalidInput,
    BadFeature,
    Interrupted,
    BadArguments,
    /// The exit code of the command that `lock` ran.
    Child(u8),
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::BadConnection | Self::Usage => 2,
            Self::InvalidInput => 3,
            Self::BadFeature => 4,
            Self::Interrupted => 5,
            Self::BadArguments => 128,
            Self::Child(code) => code,
        }
    }
}

/// The reason for an exit code other than success.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    /// Text behind `Error: `; None if the command has printed it itself.
    pub message: Option<Message>,
    /// The error of the client that is the reason. Under the name rusd it is told in its place.
    pub cause: Option<Box<client::Error>>,
}

/// An error text. Bytes, since it holds names that the user gave, which need not be UTF-8.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes that are not UTF-8 are escaped where the text becomes part of another one.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

pub(super) type Outcome = Result<(), Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, message: impl ToString) -> Self {
        Self::bytes(exit, message.to_string())
    }

    pub(super) fn bytes(exit: Exit, message: impl Into<Vec<u8>>) -> Self {
        Self { exit, message: Some(Message(message.into())), cause: None }
    }

    /// A call that failed, with etcdctl's words for it.
    pub(super) fn of(exit: Exit, message: impl ToString, cause: client::Error) -> Self {
        Self { cause: Some(Box::new(cause)), ..Self::new(exit, message) }
    }

    pub(super) fn error(message: impl ToString) -> Self {
        Self::new(Exit::Error, message)
    }

    pub(super) fn arguments(message: impl ToString) -> Self {
        Self::new(Exit::BadArguments, message)
    }

    pub(super) fn silent(exit: Exit) -> Self {
        Self { exit, message: None, cause: None }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::of(Exit::Error, &error, error.clone())
    }
}
