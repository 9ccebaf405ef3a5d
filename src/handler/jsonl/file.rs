//! A file of lines that only grows by whole lines.
//!
//! Blocking: it is called where blocking is allowed. Invariants: nobody else who asks writes to the file (an advisory
//! lock on it); when [`LineFile::append`] has returned `Ok` the lines are on the disk; a torn line is taken off before
//! anything follows it; a complete line is never touched.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::event::PAYLOAD_BYTES_MAX;

/// The longest torn line that is taken off: more than the largest event has, encoded. What is longer is no file of ours.
const TORN_BYTES_MAX: u64 = 2 * PAYLOAD_BYTES_MAX as u64;

/// So many bytes of it are looked through at a time.
const TORN_STEP_BYTES: usize = 1 << 20;

/// So many bytes are written at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JsonlError {
    /// The operating system refused.
    #[error("failed to {action} the file {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another handler or process holds the file.
    #[error("the file {} is being written by another handler or process; give each its own", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// What follows the last line end is no torn CloudEvent.
    #[error("the file {} does not end in a JSON line; nothing was changed, configure another path", path.display())]
    NotLines {
        /// The file.
        path: PathBuf,
    },
}

/// An open, locked file of lines.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    /// The length up to which the file holds whole lines, ours and those that were there.
    length: u64,
    /// Whether bytes of a failed append may follow `length`.
    torn: bool,
}

impl LineFile {
    /// Opens or makes the file, locks it, and takes off a torn last line.
    pub(super) fn open(path: &Path) -> Result<Self, JsonlError> {
        let failed = |action| move |source| JsonlError::Io { action, path: path.to_owned(), source };
        let is_new = !path.exists();
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JsonlError::Locked { path: path.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        if is_new {
            sync_parent(path).map_err(failed("sync the directory of"))?;
        }
        let mut opened = Self { path: path.to_owned(), file, length: 0, torn: false };
        opened.mend()?;
        Ok(opened)
    }

    /// Appends whole lines, given in pieces, and syncs them. After an error none of them counts as written, and those of
    /// this attempt that did reach the file are taken off before the next.
    pub(super) fn append(&mut self, pieces: impl Iterator<Item = Bytes>) -> Result<(), JsonlError> {
        self.follow_path()?;
        self.restore_length()?;
        self.torn = true;
        let written = write_pieces(&self.file, pieces).map_err(|source| self.failed("write to", source))?;
        self.file.sync_data().map_err(|source| self.failed("sync", source))?;
        self.torn = false;
        self.length += written;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> JsonlError {
        JsonlError::Io { action, path: self.path.clone(), source }
    }

    /// When the path leads to another file now, or to none (it was rotated or removed), goes on in the one at the path.
    /// Every line so far is synced in the old file.
    fn follow_path(&mut self) -> Result<(), JsonlError> {
        let ours = self.file.metadata().map_err(|source| self.failed("examine", source))?;
        let same = match std::fs::metadata(&self.path) {
            Ok(at_path) => is_same_file(&ours, &at_path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(self.failed("examine", source)),
        };
        if !same {
            if self.torn {
                self.file.set_len(self.length).map_err(|source| self.failed("truncate", source))?;
            }
            tracing::info!(path = %self.path.display(), "the file was moved or removed, going on in a new one");
            *self = Self::open(&self.path)?;
        }
        Ok(())
    }

    /// Takes off what a failed append left, and notices a file that somebody else truncated or wrote to.
    fn restore_length(&mut self) -> Result<(), JsonlError> {
        let length = self.file.metadata().map_err(|source| self.failed("examine", source))?.len();
        if self.torn && length >= self.length {
            self.file.set_len(self.length).map_err(|source| self.failed("truncate", source))?;
        } else if length != self.length {
            tracing::warn!(
                path = %self.path.display(), expected = self.length, found = length,
                "somebody else changed the length of the file"
            );
            self.mend()?;
        }
        self.torn = false;
        Ok(())
    }

    /// Takes off what follows the last line end.
    fn mend(&mut self) -> Result<(), JsonlError> {
        let found = self.file.metadata().map_err(|source| self.failed("examine", source))?.len();
        let torn = self.torn_bytes(found)?;
        if torn > 0 {
            let kept = found - torn;
            self.file.set_len(kept).map_err(|source| self.failed("truncate", source))?;
            self.file.sync_all().map_err(|source| self.failed("sync", source))?;
            tracing::warn!(path = %self.path.display(), bytes = torn, "took off a torn last line");
        }
        self.length = found - torn;
        Ok(())
    }

    /// How many bytes follow the last line end, in a file of `length` bytes.
    fn torn_bytes(&mut self, length: u64) -> Result<u64, JsonlError> {
        let start = length.saturating_sub(TORN_BYTES_MAX);
        // Nearly always the last byte is a line end, and that is all there is to read.
        let mut last = [0];
        if length == 0 {
            return Ok(0);
        }
        self.read_at(length - 1, &mut last)?;
        if last == *b"\n" {
            return Ok(0);
        }
        let (mut torn_from, mut end, mut step) = (start, length, vec![0; TORN_STEP_BYTES]);
        while end > start {
            let bytes = (end - start).min(TORN_STEP_BYTES as u64);
            let part = &mut step[..usize::try_from(bytes).unwrap_or(TORN_STEP_BYTES)];
            end -= bytes;
            self.read_at(end, part)?;
            if let Some(line_end) = part.iter().rposition(|byte| *byte == b'\n') {
                torn_from = end + line_end as u64 + 1;
                break;
            }
        }
        if torn_from == start && start > 0 {
            return Err(JsonlError::NotLines { path: self.path.clone() });
        }
        // A line of ours begins with a brace; after a loss of power it may be zeros that the file system had promised.
        let mut first = [0];
        self.read_at(torn_from, &mut first)?;
        if !matches!(first, [b'{' | 0]) {
            return Err(JsonlError::NotLines { path: self.path.clone() });
        }
        Ok(length - torn_from)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), JsonlError> {
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(buffer));
        read.map_err(|source| self.failed("read", source))
    }
}

/// Writes all of it, and says how much it was.
pub(super) fn write_pieces(output: impl io::Write, pieces: impl Iterator<Item = Bytes>) -> io::Result<u64> {
    let (mut output, mut written) = (BufWriter::with_capacity(BUFFER_BYTES, output), 0);
    for piece in pieces {
        output.write_all(&piece)?;
        written += piece.len() as u64;
    }
    output.flush()?;
    Ok(written)
}

/// Makes a new file's name durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(unix)]
fn is_same_file(ours: &std::fs::Metadata, at_path: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (ours.dev(), ours.ino()) == (at_path.dev(), at_path.ino())
}

/// Elsewhere an open file cannot be replaced at its path.
#[cfg(not(unix))]
fn is_same_file(_: &std::fs::Metadata, _: &std::fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        std::fs::write(&path, content).unwrap();
        (directory, path)
    }

    fn lines(text: &'static [u8]) -> impl Iterator<Item = Bytes> {
        std::iter::once(Bytes::from_static(text))
    }

    #[test]
    fn mends_a_torn_last_line_and_touches_no_complete_one() {
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(100_000));
        for (content, kept) in [
            ("", ""),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\n"),
            ("{\"b\":", ""),
            ("{\"a\":1}\n\0\0\0", "{\"a\":1}\n"),
            (&format!("{long}{{\"torn"), &long),
            // Of a large event.
            (&format!("{long}{{\"torn{}", "x".repeat(5 << 20)), &long),
            (&format!("{{\"torn{}", "x".repeat(3 << 20)), ""),
        ] {
            let (_directory, path) = directory_with(content.as_bytes());
            let mut file = LineFile::open(&path).unwrap();
            file.append(lines(b"{\"c\":3}\n")).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}{{\"c\":3}}\n"));
        }
    }

    #[test]
    fn leaves_a_file_of_another_kind_alone() {
        let one_line = vec![b'x'; usize::try_from(TORN_BYTES_MAX).unwrap() + 1];
        for content in [b"name,amount\na,1".as_slice(), b"no line end at all", &one_line] {
            let (_directory, path) = directory_with(content);
            assert!(matches!(LineFile::open(&path), Err(JsonlError::NotLines { .. })));
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn two_writers_of_one_file_are_impossible() {
        let (_directory, path) = directory_with(b"");
        let first = LineFile::open(&path).unwrap();
        assert!(matches!(LineFile::open(&path), Err(JsonlError::Locked { .. })));
        drop(first);
        assert!(LineFile::open(&path).is_ok());
    }

    #[test]
    fn a_rotated_or_removed_file_is_followed() {
        let (directory, path) = directory_with(b"");
        let mut file = LineFile::open(&path).unwrap();
        file.append(lines(b"{\"a\":1}\n")).unwrap();
        let rotated = directory.path().join("events.jsonl.1");
        std::fs::rename(&path, &rotated).unwrap();
        file.append(lines(b"{\"b\":2}\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "{\"a\":1}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"b\":2}\n");
        std::fs::remove_file(&path).unwrap();
        file.append(lines(b"{\"c\":3}\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"c\":3}\n");
    }

    #[test]
    fn what_a_failed_append_left_is_taken_off() {
        let (_directory, path) = directory_with(b"{\"a\":1}\n");
        let mut file = LineFile::open(&path).unwrap();
        // As after a write that failed in the middle: a whole line and a torn one that were never answered for.
        file.file.write_all(b"{\"b\":2}\n{\"c\"").unwrap();
        file.torn = true;
        file.append(lines(b"{\"b\":2}\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn a_file_truncated_by_somebody_else_goes_on() {
        let (_directory, path) = directory_with(b"{\"a\":1}\n");
        let mut file = LineFile::open(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        file.append(lines(b"{\"b\":2}\n")).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"x\":0}\n{\"torn").unwrap();
        file.append(lines(b"{\"c\":3}\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"b\":2}\n{\"x\":0}\n{\"c\":3}\n");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_said_so() {
        // `/dev/full` takes no byte; it is no file that could be locked or mended, so it is put under an open one.
        let (_directory, path) = directory_with(b"");
        let mut file = LineFile::open(&path).unwrap();
        file.path = "/dev/full".into();
        file.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let error = file.append(lines(b"{\"a\":1}\n")).unwrap_err();
        assert!(matches!(error, JsonlError::Io { action: "write to", .. }), "{error:?}");
        assert!(file.torn);
    }
}
