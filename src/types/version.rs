use std::fmt;

/// The two numbers of a release that decide which features it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Parses one to three numbers, before which a `v` may stand, and after which a pre-release
    /// (`-rc.1`) and a build (`+5`) may follow. This is the grammar of etcd 3.8, which takes more
    /// than that of 3.7: `v3.6`, `3` and `3.6-rc.1`. A number that is left out is 0.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = split_suffix(text, '+');
        let (numbers, pre_release) = split_suffix(text, '-');
        if !build.is_none_or(is_suffix) || !pre_release.is_none_or(is_suffix) {
            return None;
        }
        let mut numbers = numbers.splitn(3, '.').map(number);
        let major = numbers.next()??;
        let minor = numbers.next().unwrap_or(Some(0))?;
        let _patch = numbers.next().unwrap_or(Some(0))?;
        Some(Self { major, minor })
    }

    /// The form that clients get: two numbers.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// The release before, which is the only one that a cluster may be downgraded to; `None` below
    /// the first of a major release.
    pub fn before(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }
}

fn split_suffix(text: &str, sign: char) -> (&str, Option<&str>) {
    text.split_once(sign).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// Whether a text is a pre-release or a build: identifiers, separated by dots.
fn is_suffix(text: &str) -> bool {
    let is_part = |byte: u8| byte == b'-' || byte.is_ascii_alphanumeric();
    text.split('.').all(|part| !part.is_empty() && part.bytes().all(is_part))
}

fn number(text: &str) -> Option<u32> {
    // `parse::<u32>` alone would accept a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The form that is stored and proposed: with a third number, 0.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        for text in [
            "3.6",
            "v3.6",
            "3.6.0",
            "v3.6.5",
            "3.6.0-rc.1",
            "3.6-rc.1",
            "3.6.1+build.5",
            "3.6.0-alpha.0-1+b",
        ] {
            assert_eq!(Version::parse(text), Some(Version::new(3, 6)), "{text}");
        }
        assert_eq!(Version::parse("3"), Some(Version::new(3, 0)));
        for text in [
            "",
            "v",
            "vv3.6",
            "V3.6",
            "3.x",
            "3.6.x",
            "3.6.1.2",
            "-3.6",
            "3..6",
            "3.6.",
            "3.6 ",
            " 3.6",
            "3.6-",
            "3.6.1+",
            "3.6.0-a..b",
            "3.6.0-a_b",
            "3.+6",
            "3.99999999999",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
