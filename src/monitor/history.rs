//! The file with the figures of days: read at the start, written once a minute and at the end.
//!
//! A file is written under another name beside it, flushed to the disk, and renamed: whatever happens, one
//! whole file is there, and at most the last minute is missing from it. Writing has a thread of its own,
//! because a disk may take its time. A file that makes no sense is kept under another name, and said.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::metrics::Daily;
use crate::metrics::calendar::UnixSeconds;

/// Seconds between two writings.
const INTERVAL: UnixSeconds = 60;

/// Longest file that is read, in bytes. Four hundred days take less than 2 MiB.
const BYTES_MAX: u64 = 16 << 20;

/// Where the days are kept. Without a file they are not.
#[derive(Debug)]
pub(super) struct History {
    writer: Option<Writer>,
    written_at: UnixSeconds,
    /// What was written last or is being written.
    has_changed: bool,
}

#[derive(Debug)]
struct Writer {
    texts: Sender<String>,
    thread: JoinHandle<()>,
}

impl History {
    /// Reads the file, if there is one, and starts the thread that writes it.
    ///
    /// # Errors
    /// The thread cannot be started. A file that cannot be read is none: it is said in the log.
    pub(super) fn open(path: Option<&Path>, wall: UnixSeconds) -> io::Result<(Self, Daily)> {
        let Some(path) = path else {
            return Ok((Self::none(wall), Daily::new(wall)));
        };
        let daily = read(path, wall);
        let (texts, queue) = bounded::<String>(1);
        let target = path.to_owned();
        let write = move || {
            for text in queue {
                if let Err(error) = replace(&target, text.as_bytes()) {
                    tracing::error!(
                        file = %target.display(),
                        %error,
                        "the figures of days are not kept"
                    );
                }
            }
        };
        let thread = thread::Builder::new().name("history".into()).spawn(write)?;
        let history = Self {
            writer: Some(Writer { texts, thread }),
            ..Self::none(wall)
        };
        Ok((history, daily))
    }

    /// One that keeps nothing.
    pub(super) const fn none(wall: UnixSeconds) -> Self {
        Self {
            writer: None,
            written_at: wall,
            has_changed: false,
        }
    }

    /// Something was counted.
    pub(super) const fn note(&mut self) {
        self.has_changed = true;
    }

    /// Has the days written if a minute is over, and something was counted in it. A disk that still
    /// writes what came before has its turn a second later.
    pub(super) fn tick(&mut self, daily: &Daily, wall: UnixSeconds) {
        // A clock that was set back must not stop the writing.
        let is_due = wall < self.written_at || wall - self.written_at >= INTERVAL;
        if is_due && self.has_changed {
            self.write(daily, wall);
        }
    }

    fn write(&mut self, daily: &Daily, wall: UnixSeconds) {
        let Some(writer) = &self.writer else { return };
        match writer.texts.try_send(daily.to_text()) {
            Ok(()) => {
                self.written_at = wall;
                self.has_changed = false;
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Has the days written a last time, and waits until they are on the disk.
    pub(super) fn close(&mut self, daily: &Daily) {
        let Some(Writer { texts, thread }) = self.writer.take() else {
            return;
        };
        // Behind what is being written: here waiting is allowed.
        let _ = texts.send(daily.to_text());
        drop(texts);
        let _ = thread.join();
    }
}

/// The days in the file, or none yet.
fn read(path: &Path, wall: UnixSeconds) -> Daily {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Daily::new(wall),
        Err(error) => return refuse(path, wall, &error.to_string()),
    };
    match Daily::from_text(&text, wall) {
        Ok(daily) => daily,
        Err(error) => refuse(path, wall, &error.to_string()),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Keeps a file that makes no sense aside, so that the next writing does not take its place.
fn refuse(path: &Path, wall: UnixSeconds, error: &str) -> Daily {
    let aside = beside(path, &format!("broken-{wall}"));
    let kept = fs::rename(path, &aside);
    let kept = match &kept {
        Ok(()) => aside.display().to_string(),
        Err(error) => format!("nowhere: {error}"),
    };
    tracing::error!(
        file = %path.display(),
        error,
        kept,
        "the figures of days begin anew"
    );
    Daily::new(wall)
}

/// Puts a text in a file's place: afterwards either the old or the new one is there.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    // The rename itself is on the disk when its folder is.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

/// Another file of the same folder, of the same name with something behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::{Histogram, Measure};
    use crate::metrics::totals::Flow;

    const NOON: UnixSeconds = 1_762_776_000;

    /// An empty folder of this name.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidegate-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn count(daily: &mut Daily, opened: u64, wall: UnixSeconds) {
        let flow = Flow {
            opened,
            ..Flow::default()
        };
        daily.add(
            wall,
            &flow,
            &Histogram::new(Measure::ConnectionDuration.scale()),
            0,
        );
    }

    #[test]
    fn n19_days_outlive_the_process_and_are_written_once_a_minute() {
        let folder = folder("days");
        let path = folder.join("daily.json");
        let (mut history, mut daily) = History::open(Some(&path), NOON).unwrap();
        count(&mut daily, 3, NOON);
        history.note();
        history.tick(&daily, NOON + INTERVAL - 1);
        assert!(!path.exists(), "a minute is not over");
        history.tick(&daily, NOON + INTERVAL);
        assert!(!history.has_changed, "it was handed to the thread");
        count(&mut daily, 4, NOON + INTERVAL);
        history.close(&daily);
        let (mut history, daily) = History::open(Some(&path), NOON + 100).unwrap();
        assert_eq!(daily.today().1.opened, 7);
        history.close(&daily);
        let names = fs::read_dir(&folder).unwrap().count();
        assert_eq!(names, 1, "nothing else is left in the folder");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_writing() {
        let folder = folder("clock");
        let path = folder.join("daily.json");
        let (mut history, daily) = History::open(Some(&path), NOON).unwrap();
        history.note();
        history.tick(&daily, NOON - 3_600);
        assert_eq!(history.written_at, NOON - 3_600);
        history.close(&daily);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_broken_file_is_kept_aside() {
        let folder = folder("broken");
        let path = folder.join("daily.json");
        for (round, broken) in [&b"{}"[..], b"\xff\xfe", b""].into_iter().enumerate() {
            fs::write(&path, broken).unwrap();
            let wall = NOON + round as u64;
            let (mut history, daily) = History::open(Some(&path), wall).unwrap();
            assert_eq!(daily.today().1.opened, 0);
            history.close(&daily);
            let aside = folder.join(format!("daily.json.broken-{wall}"));
            assert_eq!(fs::read(aside).unwrap(), broken);
            assert!(Daily::from_text(&fs::read_to_string(&path).unwrap(), wall).is_ok());
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_left_of_an_interrupted_writing_does_no_harm() {
        let folder = folder("torn");
        let path = folder.join("daily.json");
        let (mut history, mut daily) = History::open(Some(&path), NOON).unwrap();
        count(&mut daily, 5, NOON);
        history.close(&daily);
        fs::write(beside(&path, "new"), b"tidegate dai").unwrap();
        let (mut history, daily) = History::open(Some(&path), NOON).unwrap();
        assert_eq!(daily.today().1.opened, 5);
        history.close(&daily);
        fs::remove_dir_all(folder).unwrap();
    }
}
