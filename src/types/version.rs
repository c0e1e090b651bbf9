use std::fmt;

/// The two numbers of a release that decide what it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads three numbers, after which a pre-release or other words may stand, or the two.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.split_once('+').map_or(text, |(before, _)| before);
        let numbers = numbers.split_once('-').map_or(numbers, |(before, _)| before);
        // A sign in front would be the beginning of what may follow the numbers.
        let mut numbers = numbers.splitn(3, '.').map(str::parse::<u32>);
        let version = Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? };
        match numbers.next() {
            Some(patch) => patch.ok().map(|_| version),
            None => {
                text.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()).then_some(version)
            }
        }
    }

    /// As clients are told it: two numbers.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// The only release that a cluster may go back to.
    pub fn before(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }
}

/// As it is stored and agreed on: with a third number, 0.
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
