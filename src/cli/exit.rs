//! Exit codes, and the failures that carry them.

/// etcdctl's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Success,
    Error,
    /// No login, no endpoint, or a lease command that failed; also what Go calls a panic.
    BadConnection,
    InvalidInput,
    BadFeature,
    Interrupted,
    BadArguments,
    /// A child's own.
    Child(u8),
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::BadConnection => 2,
            Self::InvalidInput => 3,
            Self::BadFeature => 4,
            Self::Interrupted => 5,
            Self::BadArguments => 128,
            Self::Child(code) => code,
        }
    }
}

/// Why a command ends with another code than success.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    /// What follows `Error: `; nothing if the command has said it already.
    pub message: Option<String>,
}

pub(super) type Outcome = Result<(), Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: Some(message.to_string()) }
    }

    pub(super) fn error(message: impl ToString) -> Self {
        Self::new(Exit::Error, message)
    }

    pub(super) fn arguments(message: impl ToString) -> Self {
        Self::new(Exit::BadArguments, message)
    }

    pub(super) fn silent(exit: Exit) -> Self {
        Self { exit, message: None }
    }
}

impl From<crate::client::Error> for Failure {
    fn from(error: crate::client::Error) -> Self {
        Self::error(error)
    }
}
