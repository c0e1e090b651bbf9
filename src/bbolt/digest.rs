//! The SHA-256 at the end of a snapshot file.

use sha2::{Digest, Sha256};

use super::{Error, ReadAt};

pub const DIGEST_BYTES: usize = 32;
/// The length of a bbolt file is a multiple of this, so a digest after it shows in the length.
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 1 << 20;

/// The digest at the end of a file (`stored`), and the one computed from the bytes before it
/// (`computed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub stored: [u8; DIGEST_BYTES],
    pub computed: [u8; DIGEST_BYTES],
}

impl Trailer {
    /// Whether the file is as it was written.
    pub fn is_right(&self) -> bool {
        self.stored == self.computed
    }
}

/// Whether a file of this length ends in a digest, as etcd decides it.
pub fn has_trailer(file_bytes: u64) -> bool {
    file_bytes % SECTOR_BYTES == DIGEST_BYTES as u64
}

/// Reads the whole file and computes its digest. None if the file does not end in one.
pub fn trailer(file: &impl ReadAt) -> Result<Option<Trailer>, Error> {
    let file_bytes = file.bytes()?;
    if !has_trailer(file_bytes) {
        return Ok(None);
    }
    let end = file_bytes - DIGEST_BYTES as u64;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        file.read_at(&mut buffer[..wanted], at)?;
        hasher.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    let mut stored = [0; DIGEST_BYTES];
    file.read_at(&mut stored, end)?;
    Ok(Some(Trailer { stored, computed: hasher.finalize().into() }))
}
