//! Files that an operator names: read whole, within a bound, and never from a pipe or a device.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// Why a file cannot be used. `Display` is the end of a sentence that begins with the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It cannot be read.
    Unreadable(io::ErrorKind),
    /// A folder, a pipe, a device.
    NotAFile,
    /// It holds nothing but white space.
    Empty,
    /// It has more than this many bytes.
    TooLarge(u64),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable(kind) => return write!(f, "cannot be read: {kind}"),
            Self::NotAFile => "is not a regular file",
            Self::Empty => "is empty",
            Self::TooLarge(most) => return write!(f, "is larger than {most} bytes"),
        })
    }
}

impl std::error::Error for FileError {}

/// Reads a whole file of at most `most` bytes into memory that is wiped when it is dropped, as it may
/// hold secrets.
///
/// # Errors
/// See [`FileError`].
pub(crate) fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let unreadable = |error: io::Error| FileError::Unreadable(error.kind());
    // Asked of the path, since opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    // Room for all of it at once, so that the buffer never moves and leaves no copy behind.
    let len = usize::try_from(metadata.len().min(most)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(len + 1));
    let file = File::open(path).map_err(unreadable)?;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(FileError::TooLarge(most));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(FileError::Empty);
    }
    Ok(bytes)
}
