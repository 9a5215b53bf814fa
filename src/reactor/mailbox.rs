//! What threads send a reactor: a queue bounded in letters and in bytes, and one wake for any number of
//! letters.
//!
//! A sender posts, then wakes the reactor unless somebody has already done so since the reactor last
//! emptied its mailbox. The reactor takes the flag down *before* it empties the queue: a letter posted
//! in between costs one wake too many, and never waits unseen.
//!
//! Nobody ever waits for room: a full mailbox gives the letter back, and what that means is the
//! sender's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};

/// How a reactor is woken; mio's `Waker` outside tests.
pub trait Wake: Send + Sync {
    /// Makes the reactor's poll return. A failure is not reported: the reactor's next turn, which its
    /// timers guarantee, finds the letter.
    fn wake(&self);
}

impl Wake for mio::Waker {
    fn wake(&self) {
        let _ = Self::wake(self);
    }
}

/// The sender's end: cheap to clone, usable from any thread.
pub struct Postbox<T> {
    letters: Sender<(T, usize)>,
    bell: Arc<Bell>,
}

/// The reactor's end.
pub struct Mailbox<T> {
    letters: Receiver<(T, usize)>,
    bell: Arc<Bell>,
}

struct Bell {
    has_rung: AtomicBool,
    /// The last letter of all, which needs no room.
    must_end: AtomicBool,
    /// Bytes of the letters that wait.
    bytes: AtomicUsize,
    waker: Box<dyn Wake>,
}

/// A mailbox for at most `capacity` letters.
#[must_use]
pub fn mailbox<T>(capacity: usize, waker: impl Wake + 'static) -> (Postbox<T>, Mailbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let bell = Arc::new(Bell {
        has_rung: AtomicBool::new(false),
        must_end: AtomicBool::new(false),
        bytes: AtomicUsize::new(0),
        waker: Box::new(waker),
    });
    (
        Postbox {
            letters: sender,
            bell: Arc::clone(&bell),
        },
        Mailbox {
            letters: receiver,
            bell,
        },
    )
}

impl<T> Postbox<T> {
    /// Posts a letter and wakes the reactor.
    ///
    /// # Errors
    /// Gives the letter back if the mailbox is full or its reactor has ended.
    pub fn post(&self, letter: T) -> Result<(), T> {
        self.post_sized(letter, 0)
    }

    /// Posts a letter that holds `bytes` of memory. All that wait hold [`MAILBOX_BYTES_MAX`] at most.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub fn post_sized(&self, letter: T, bytes: usize) -> Result<(), T> {
        if self.bell.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAILBOX_BYTES_MAX {
            self.bell.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(letter);
        }
        self.letters.try_send((letter, bytes)).map_err(|error| {
            self.bell.bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                TrySendError::Full((letter, _)) | TrySendError::Disconnected((letter, _)) => letter,
            }
        })?;
        self.bell.ring();
        Ok(())
    }

    /// Tells the reactor to end. Never fails, and may be called from the reactor's own thread.
    pub fn post_end(&self) {
        self.bell.must_end.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Whether the reactor was told to end.
    #[must_use]
    pub fn must_end(&self) -> bool {
        self.bell.must_end.load(Ordering::Acquire)
    }
}

impl Bell {
    fn ring(&self) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

/// Memory that letters to one reactor may hold, in bytes: 64 MiB.
pub const MAILBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

impl<T> Clone for Postbox<T> {
    fn clone(&self) -> Self {
        Self {
            letters: self.letters.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<T> Mailbox<T> {
    /// Empties the mailbox: everything that was in it when the call began.
    pub fn take(&self) -> impl Iterator<Item = T> + '_ {
        // A swap, not a store: it reads what the last sender wrote and so sees that sender's letter.
        self.bell.has_rung.swap(false, Ordering::AcqRel);
        let letters = self.letters.try_iter().take(self.letters.len());
        letters.map(|(letter, bytes)| {
            self.bell.bytes.fetch_sub(bytes, Ordering::Relaxed);
            letter
        })
    }

    /// Whether the reactor was told to end. Look after [`Self::take`].
    #[must_use]
    pub fn must_end(&self) -> bool {
        self.bell.must_end.load(Ordering::Acquire)
    }

    /// Bytes of the letters that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bell.bytes.load(Ordering::Relaxed)
    }

    /// Letters that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether no letter waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

impl<T> std::fmt::Debug for Postbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postbox")
            .field("waiting", &self.letters.len())
            .finish()
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("waiting", &self.letters.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicUsize>);

    impl Wake for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_letters_cost_one_wake() {
        let waker = Counting::default();
        let (postbox, mailbox) = mailbox(10, waker.clone());
        for letter in 0..10 {
            assert_eq!(postbox.post(letter), Ok(()));
        }
        assert_eq!(postbox.post(10), Err(10), "full: the letter comes back");
        assert_eq!(waker.0.load(Ordering::Relaxed), 1);
        assert_eq!(
            mailbox.take().collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert_eq!(postbox.post(11), Ok(()));
        assert_eq!(waker.0.load(Ordering::Relaxed), 2);
        assert_eq!((mailbox.len(), mailbox.is_empty()), (1, false));
    }

    #[test]
    fn letters_are_bounded_in_bytes_too() {
        let (postbox, mailbox) = mailbox(10, Counting::default());
        assert_eq!(postbox.post_sized("large", MAILBOX_BYTES_MAX), Ok(()));
        assert_eq!(postbox.post_sized("one byte more", 1), Err("one byte more"));
        assert_eq!(postbox.post("weightless"), Ok(()));
        assert_eq!(mailbox.take().count(), 2);
        assert_eq!(postbox.post_sized("room again", MAILBOX_BYTES_MAX), Ok(()));
        assert_eq!(
            postbox.post_sized("too large", MAILBOX_BYTES_MAX + 1),
            Err("too large")
        );
    }

    #[test]
    fn the_end_needs_no_room() {
        let waker = Counting::default();
        let (postbox, mailbox) = mailbox(1, waker.clone());
        assert_eq!(postbox.post(()), Ok(()));
        assert!(!mailbox.must_end());
        mailbox.take().count();
        postbox.post_end();
        assert_eq!(
            (mailbox.must_end(), waker.0.load(Ordering::Relaxed)),
            (true, 2)
        );
    }

    #[test]
    fn a_letter_to_a_reactor_that_has_ended_comes_back() {
        let (postbox, mailbox) = mailbox(10, Counting::default());
        drop(mailbox);
        assert_eq!(postbox.post("hello"), Err("hello"));
    }

    #[test]
    fn no_letter_is_left_unseen() {
        // The reactor sleeps only when no wake is pending; were a wake lost, this would hang.
        struct Parked(std::thread::Thread, Arc<AtomicBool>);
        impl Wake for Parked {
            fn wake(&self) {
                self.1.store(true, Ordering::SeqCst);
                self.0.unpark();
            }
        }
        const EACH: usize = 20_000;
        let awake = Arc::new(AtomicBool::new(false));
        let waker = Parked(std::thread::current(), Arc::clone(&awake));
        let (postbox, mailbox) = mailbox(64, waker);
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let postbox = postbox.clone();
                std::thread::spawn(move || {
                    for mut letter in 0..EACH {
                        while let Err(back) = postbox.post(letter) {
                            letter = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut got = 0;
        while got < 3 * EACH {
            while !awake.swap(false, Ordering::SeqCst) {
                std::thread::park();
            }
            got += mailbox.take().count();
            // `take` stops at what was there when it began; the rest has rung again or is here.
            while !mailbox.is_empty() {
                got += mailbox.take().count();
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    }
}
