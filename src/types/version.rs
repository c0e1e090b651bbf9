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

    /// Parses two numbers alone, or three, after which a pre-release (`-rc.1`) or a build (`+5`)
    /// may follow.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.split_once('+').map_or(text, |(before, _)| before);
        let numbers = numbers.split_once('-').map_or(numbers, |(before, _)| before);
        // `parse::<u32>` accepts a plus sign, but none is left here: text is cut at the first one.
        let mut numbers = numbers.splitn(3, '.').map(str::parse::<u32>);
        let version = Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? };
        match numbers.next() {
            Some(patch) => patch.ok().map(|_| version),
            None => {
                text.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()).then_some(version)
            }
        }
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
        for text in ["3.6", "3.6.0", "3.6.5", "3.6.0-rc.1", "3.6.1+build.5"] {
            assert_eq!(Version::parse(text), Some(Version::new(3, 6)), "{text}");
        }
        for text in ["", "3", "v3.6", "3.x", "3.6.x", "3.6.1.2", "-3.6", "3.6-rc.1", "3..6", "3.6 "]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
