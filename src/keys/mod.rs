//! The keys that tokens are verified with: read from files, fetched from URLs, kept fresh.
//!
//! A [`KeyRing`] is started from what an operator says about each issuer ([`IssuerKeys`]). It publishes
//! one immutable [`Verifier`] in [`Verifiers`], through which reactors read it without a lock and report
//! keys that nobody knows. If a source is a URL, one thread named `keys` fetches it: on schedule, and
//! when such a report comes.
//!
//! Invariants:
//! * A source that is down, or answers nonsense, changes nothing until its last good answer is too
//!   old: then its keys are dropped and its tokens refused, rather than believed for ever (X36).
//! * Keys belong to the issuer they were read for (D6); within it, those of the operator's own files
//!   win over fetched ones of the same name.
//! * A flood of unknown keys causes one fetch a minute (D7).
//! * The lock below is taken by this thread, by a reload and by who asks for the status; never by a
//!   reactor, and never while a fetch is under way.

mod configured;
mod error;
mod fetch;
mod file;
mod refresh;
mod schedule;
mod source;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

pub use self::configured::issuers;
pub use self::error::{FetchError, KeyFault, KeyProblem, KeysError};
pub use self::source::{IssuerKeys, JwksUrl, KeySource, Secret};

use self::fetch::Fetcher;
use self::file::{Named, place};
use self::refresh::Source;
use crate::admission::jwt::{Jwks, Key, KeyError, KeySet, Verifier, Verifiers};

/// The keys of all issuers. Dropping it ends its thread, at once or with the fetch under way; the
/// [`Verifiers`] go on with the keys they have.
#[derive(Debug)]
pub struct KeyRing {
    issuers: Vec<IssuerKeys>,
    shared: Arc<Shared>,
    /// The thread that fetches, if there is anything to fetch.
    thread: Option<Thread>,
}

impl KeyRing {
    /// Reads all files and fetches each URL once, one after the other, which takes at most the sum of
    /// their timeouts; then starts the thread, if there is a URL. Issuers keep their order: what
    /// [`Identity::issuer`](crate::admission::jwt::Identity::issuer) says is a place in `issuers`.
    ///
    /// A URL that cannot be fetched is no error: the server starts, refuses the tokens of that issuer,
    /// logs it, and goes on trying.
    ///
    /// # Errors
    /// Everything that is wrong with the sources, in one value.
    pub fn start(issuers: Vec<IssuerKeys>) -> Result<Self, KeysError> {
        let (verifier, book, sources) = Self::read(&issuers)?;
        let shared = Arc::new(Shared {
            verifiers: Verifiers::new(verifier),
            book: Book::new(book),
            is_ending: AtomicBool::new(false),
        });
        let thread = if sources.is_empty() {
            None
        } else {
            Some(fetch_in_background(&shared, sources)?)
        };
        Ok(Self {
            issuers,
            shared,
            thread,
        })
    }

    /// Reads all files as [`start`](Self::start) does, and fetches nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the sources, in one value.
    pub fn check(issuers: &[IssuerKeys]) -> Result<(), KeysError> {
        match issuers {
            [] => Ok(()),
            issuers => Self::read(issuers).map(|_| ()),
        }
    }

    /// A verifier with the keys of files, what it is made of, and what is to be fetched.
    fn read(issuers: &[IssuerKeys]) -> Result<(Verifier, Vec<Entry>, Vec<Source>), KeysError> {
        let mut faults = Vec::new();
        let (mut book, mut policies, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for (index, issuer) in issuers.iter().enumerate() {
            let own = file::load(issuer, &mut faults);
            let mut remote = None;
            for url in urls(issuer) {
                match Fetcher::new(url) {
                    Ok(fetcher) => sources.push(Source::new(index, fetcher, url)),
                    Err(problem) => faults.push(url_fault(issuer, url, problem)),
                }
                remote = Some(Remote::new(url));
            }
            let entry = Entry {
                issuer: issuer.policy.issuer.clone(),
                own,
                remote,
            };
            match entry.key_set() {
                Ok(keys) => policies.push((issuer.policy.clone(), keys)),
                Err(error) => {
                    faults.push(KeyProblem::Key(error).at(place(issuer)));
                    policies.push((issuer.policy.clone(), KeySet::default()));
                }
            }
            book.push(entry);
        }
        let verifier = Verifier::new(policies)
            .map_err(|error| faults.push(KeyProblem::Issuers(error).at("issuers")))
            .ok();
        match verifier.filter(|_| faults.is_empty()) {
            Some(verifier) => Ok((verifier, book, sources)),
            None => Err(KeysError(faults)),
        }
    }

    /// What reactors verify tokens with.
    #[must_use]
    pub fn verifiers(&self) -> Verifiers {
        self.shared.verifiers.clone()
    }

    /// Reads the files again, all or nothing, and lets their keys take effect at once. Secrets and what
    /// was fetched stay as they are; URLs are asked again as if a token had named an unknown key.
    ///
    /// # Errors
    /// Everything that is wrong with the files; the keys are then as before.
    pub fn reload(&self) -> Result<(), KeysError> {
        let mut faults = Vec::new();
        let loaded: Vec<Vec<Key>> = self
            .issuers
            .iter()
            .map(|issuer| file::load(issuer, &mut faults))
            .collect();
        let mut book = self.shared.lock();
        let mut sets = Vec::new();
        for ((issuer, entry), own) in self.issuers.iter().zip(&*book).zip(&loaded) {
            match merged(own, entry.fetched()) {
                Ok(keys) => sets.push(keys),
                Err(error) => faults.push(KeyProblem::Key(error).at(place(issuer))),
            }
        }
        if !faults.is_empty() {
            return Err(KeysError(faults));
        }
        for (entry, own) in book.iter_mut().zip(loaded) {
            entry.own = own;
        }
        self.shared.publish(&book, sets.into_iter().enumerate());
        for issuer in 0..book.len() {
            self.shared.verifiers.unknown_key(issuer);
        }
        Ok(())
    }

    /// How each issuer's keys are, in the order of the issuers.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerStatus> {
        let now = refresh::clock();
        let keys = |entry: &Entry| entry.key_set().map_or(0, |set| set.keys().len());
        let book = self.shared.lock();
        let statuses = book.iter().map(|entry| IssuerStatus {
            issuer: entry.issuer.clone(),
            keys: keys(entry),
            fetches: entry.remote.as_ref().map(|remote| FetchStatus {
                url: remote.url.clone(),
                succeeded: remote.succeeded,
                failed: std::array::from_fn(|index| {
                    (FetchError::LABELS[index], remote.failed[index])
                }),
                age: remote
                    .fetched_at
                    .map(|at| now.saturating_duration_since(at)),
                skipped: remote.skipped,
                last_error: remote.last_error.clone(),
            }),
        });
        statuses.collect()
    }
}

impl Drop for KeyRing {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// Fetches each source once, then starts the thread that goes on doing so.
fn fetch_in_background(
    shared: &Arc<Shared>,
    mut sources: Vec<Source>,
) -> Result<Thread, KeysError> {
    for source in &mut sources {
        source.turn(shared);
    }
    let theirs = Arc::clone(shared);
    let thread = std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || refresh::run(&theirs, sources))
        .map_err(|error| KeysError(vec![KeyProblem::Thread(error.kind()).at("keys")]))?;
    let thread = thread.thread().clone();
    let woken = thread.clone();
    shared.verifiers.on_unknown_key(move || woken.unpark());
    Ok(thread)
}

/// How one issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerStatus {
    /// The issuer's name.
    pub issuer: Option<String>,
    /// Keys that verify its tokens now. None: they are all refused.
    pub keys: usize,
    /// How its fetches went; `None` if nothing is fetched for it.
    pub fetches: Option<FetchStatus>,
}

/// How fetches went since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchStatus {
    /// The URL, without its query.
    pub url: String,
    /// Fetches that brought a key set that is used.
    pub succeeded: u64,
    /// Fetches that did not, by [`FetchError::label`].
    pub failed: [(&'static str, u64); FetchError::LABELS.len()],
    /// How long ago the keys were last confirmed; `None` before the first success, and once they were
    /// dropped as too old.
    pub age: Option<Duration>,
    /// Keys of the last good answer that are of no use: of another kind, for another purpose, broken.
    pub skipped: usize,
    /// Why the last fetch failed; `None` if it succeeded.
    pub last_error: Option<FetchError>,
}

/// By issuer.
#[expect(
    clippy::disallowed_types,
    reason = "not on the data path: a fetch, a reload and the status exclude each other for a moment"
)]
type Book = std::sync::Mutex<Vec<Entry>>;

/// What the ring and its thread share.
#[derive(Debug)]
struct Shared {
    verifiers: Verifiers,
    /// Who replaces the verifier holds this.
    book: Book,
    is_ending: AtomicBool,
}

/// One issuer's keys by where they are from.
#[derive(Debug)]
struct Entry {
    issuer: Option<String>,
    /// From secrets and files.
    own: Vec<Key>,
    /// From a URL.
    remote: Option<Remote>,
}

/// What was fetched from a URL.
#[derive(Debug)]
struct Remote {
    url: String,
    keys: Vec<Key>,
    fetched_at: Option<Instant>,
    skipped: usize,
    succeeded: u64,
    /// By [`FetchError::index`].
    failed: [u64; FetchError::LABELS.len()],
    last_error: Option<FetchError>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets new keys take effect. Takes the book to show that it is held.
    fn publish(&self, _book: &[Entry], sets: impl Iterator<Item = (usize, KeySet)>) {
        let mut verifier = self.verifiers.load();
        for (issuer, keys) in sets {
            if let Some(renewed) = verifier.with_keys(issuer, keys) {
                verifier = Arc::new(renewed);
            }
        }
        self.verifiers.replace(verifier);
    }

    /// Takes what a fetch brought. An answer that cannot be used changes no key. Says whether it was
    /// good.
    fn take(&self, issuer: usize, answer: Result<Jwks, FetchError>, now: Instant) -> bool {
        let mut book = self.lock();
        let Some(entry) = book.get_mut(issuer) else {
            return false;
        };
        let used = answer.and_then(|answer| entry.accept(answer, now));
        match used {
            Ok(keys) => {
                self.publish(&book, std::iter::once((issuer, keys)));
                true
            }
            Err(error) => {
                entry.fail(error);
                false
            }
        }
    }

    /// Drops what was fetched: it is too old.
    fn expire(&self, issuer: usize) {
        let mut book = self.lock();
        let Some(entry) = book.get_mut(issuer) else {
            return;
        };
        if let Ok(keys) = entry.expire() {
            self.publish(&book, std::iter::once((issuer, keys)));
        }
    }
}

impl Entry {
    fn fetched(&self) -> &[Key] {
        self.remote.as_ref().map_or(&[], |remote| &remote.keys)
    }

    fn key_set(&self) -> Result<KeySet, KeyError> {
        merged(&self.own, self.fetched())
    }

    /// Takes the keys of an answer in place of the last ones, if the issuer's keys then go together.
    fn accept(&mut self, answer: Jwks, now: Instant) -> Result<KeySet, FetchError> {
        let Some(remote) = &mut self.remote else {
            return Err(FetchError::Internal);
        };
        let keys = merged(&self.own, &answer.keys).map_err(FetchError::Keys)?;
        let previous = std::mem::replace(&mut remote.keys, answer.keys);
        let is_same = previous.len() == remote.keys.len()
            && previous
                .iter()
                .zip(&remote.keys)
                .all(|(a, b)| (a.id(), a.algorithm()) == (b.id(), b.algorithm()));
        if !is_same || remote.last_error.is_some() || remote.succeeded == 0 {
            let ids: Vec<&str> = remote.keys.iter().filter_map(Key::id).collect();
            tracing::info!(
                issuer = %Named(self.issuer.as_deref()),
                url = %remote.url,
                keys = remote.keys.len(),
                skipped = answer.skipped.len(),
                ids = ?ids,
                "keys fetched"
            );
        }
        for (index, error) in &answer.skipped {
            tracing::debug!(url = %remote.url, key = index + 1, %error, "a key of the set is not used");
        }
        remote.skipped = answer.skipped.len();
        remote.succeeded += 1;
        remote.fetched_at = Some(now);
        remote.last_error = None;
        Ok(keys)
    }

    fn fail(&mut self, error: FetchError) {
        let Some(remote) = &mut self.remote else {
            return;
        };
        let issuer = Named(self.issuer.as_deref());
        if self.own.is_empty() && remote.keys.is_empty() {
            tracing::error!(
                %issuer,
                url = %remote.url,
                %error,
                "keys cannot be fetched and there are none: every token of the issuer is refused"
            );
        } else {
            tracing::warn!(
                %issuer,
                url = %remote.url,
                %error,
                "keys cannot be fetched; the last good ones stay in use"
            );
        }
        remote.failed[error.index()] += 1;
        remote.last_error = Some(error);
    }

    fn expire(&mut self) -> Result<KeySet, KeyError> {
        if let Some(remote) = &mut self.remote {
            tracing::error!(
                issuer = %Named(self.issuer.as_deref()),
                url = %remote.url,
                "the fetched keys are too old and no fetch succeeds: they are dropped, and tokens \
                 signed with them are refused"
            );
            remote.keys.clear();
            remote.fetched_at = None;
        }
        self.key_set()
    }
}

impl Remote {
    fn new(source: &JwksUrl) -> Self {
        Self {
            url: source.shown(),
            keys: Vec::new(),
            fetched_at: None,
            skipped: 0,
            succeeded: 0,
            failed: [0; FetchError::LABELS.len()],
            last_error: None,
        }
    }
}

/// The keys of files, and the fetched ones whose names and algorithms those do not have.
fn merged(own: &[Key], fetched: &[Key]) -> Result<KeySet, KeyError> {
    let is_own = |key: &Key| {
        let is_same = |own: &Key| own.id() == key.id() && own.algorithm() == key.algorithm();
        key.id().is_some() && own.iter().any(is_same)
    };
    let fetched = fetched.iter().filter(|key| !is_own(key));
    KeySet::new(own.iter().chain(fetched).cloned().collect())
}

fn urls(issuer: &IssuerKeys) -> impl Iterator<Item = &JwksUrl> {
    issuer.sources.iter().filter_map(|source| match source {
        KeySource::JwksUrl(url) => Some(url),
        _ => None,
    })
}

fn url_fault(issuer: &IssuerKeys, url: &JwksUrl, problem: KeyProblem) -> KeyFault {
    // A fault of the file of authorities is best found by that file's name.
    let at_file = match problem {
        KeyProblem::Url
        | KeyProblem::UrlCredentials
        | KeyProblem::UrlNotHttps
        | KeyProblem::Times
        | KeyProblem::NoSystemAuthorities => None,
        _ => url.ca_file.as_ref(),
    };
    match at_file {
        Some(path) => problem.at(format_args!("{}: {}", place(issuer), path.display())),
        None => problem.at(format_args!("{}: {}", place(issuer), url.shown())),
    }
}
