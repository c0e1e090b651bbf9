//! A finding: how bad it is, whom it is about, why, what to run, and where to read on.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Worth knowing; nothing has to be done.
    Note,
    /// It will hurt.
    Warning,
    /// It hurts now.
    Error,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Between commands that follow each other, also if one fails: it may have had nothing to do.
pub(super) const STEP: &str = " ; ";

macro_rules! sections {
    ($($name:ident $title:literal;)*) => {
        /// A section of docs/handbook.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Section { $($name,)* }

        impl Section {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(super) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

sections! {
    LostDirectory "Lost directory";
    LostQuorum "Lost quorum";
    FullDisk "Full disk";
    NoSpace "NOSPACE alarm";
    Corrupt "CORRUPT alarm";
    MemberUnreachable "Member unreachable";
    NoLeader "No leader";
    LearnerNotPromoted "Learner not promoted";
    MemberNeverStarted "Member never started";
    UnequalVersions "Unequal versions";
    UnequalFlags "Unequal flags";
    MemberLags "Member lags";
    SlowDisk "Slow disk";
    SlowNetwork "Slow network";
    ClockSkew "Clock skew";
    FragmentedStore "Fragmented store";
    CertificateExpires "Certificate expires";
    ClusterIdMismatch "Cluster id mismatch";
    AuthWithoutRoot "Auth without root";
    OpenFiles "Open files";
    MemoryLimit "Memory limit";
    OldBackup "Old backup";
    DamagedDirectory "Damaged directory";
    DirectoryLocked "Directory locked";
    PermissionDenied "Permission denied";
    DirectoryOfEtcd "Directory of etcd";
    ConnectionRefused "Connection refused";
    UnknownHost "Unknown host";
    PlainText "Plain text against TLS";
    UnknownAuthority "Unknown authority";
    CertificateRequired "Certificate required";
    LoginNeeded "Login needed";
    RequestTimedOut "Request timed out";
}

impl Section {
    /// GitHub's anchor of the section.
    pub(super) fn slug(self) -> String {
        self.title().to_lowercase().replace(' ', "-")
    }

    pub(super) fn place(self) -> String {
        format!("docs/handbook.md#{}", self.slug())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub severity: Severity,
    /// Whom it is about: a member, a directory, or the cluster.
    pub subject: String,
    pub cause: String,
    /// What to run, or else to do.
    pub command: String,
    pub section: Section,
    /// Whether the cause may hold a key or a name that must not leave with a bundle.
    pub is_private: bool,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        subject: impl Into<String>,
        cause: impl Into<String>,
        command: impl Into<String>,
        section: Section,
    ) -> Self {
        let (subject, cause, command) = (subject.into(), cause.into(), command.into());
        Self { severity, subject, cause, command, section, is_private: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_stands_in_the_handbook() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/handbook.md");
        let handbook = std::fs::read_to_string(path).unwrap();
        for section in Section::ALL {
            let title = format!("## {}", section.title());
            assert!(handbook.lines().any(|line| line.trim() == title), "no section {title:?}");
        }
    }

    #[test]
    fn a_slug_is_that_of_github() {
        assert_eq!(Section::NoSpace.slug(), "nospace-alarm");
        assert_eq!(Section::PlainText.place(), "docs/handbook.md#plain-text-against-tls");
    }
}
