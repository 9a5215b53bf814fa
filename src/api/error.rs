//! What the API answers where it does not do what was asked.
//!
//! What is wrong with a request as such (its key, its path, its JSON) has an HTTP status. What is wrong
//! with a command that was understood is an error in the body, under status 200, as Centrifugo's clients
//! expect it; `X-Centrifugo-Error-Mode: transport` asks for a status there, too.

use crate::hub::CommandError;
use crate::metrics::ApiResult;

/// Why a command was not carried out. The numbers are Centrifugo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiError {
    /// What the hub says.
    Hub(CommandError),
    /// 103: the key is not good for this.
    PermissionDenied,
    /// 106: more was asked for than one answer may hold, or one request.
    LimitExceeded,
}

impl ApiError {
    pub(super) const BAD_REQUEST: Self = Self::Hub(CommandError::BadRequest);
    pub(super) const NOT_AVAILABLE: Self = Self::Hub(CommandError::NotAvailable);
    pub(super) const NOT_FOUND: Self = Self::Hub(CommandError::NotFound);
    pub(super) const INTERNAL: Self = Self::Hub(CommandError::Internal);

    /// Its number.
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Hub(error) => error.code(),
            Self::PermissionDenied => 103,
            Self::LimitExceeded => 106,
        }
    }

    /// Its text.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Hub(error) => error.message(),
            Self::PermissionDenied => "permission denied",
            Self::LimitExceeded => "limit exceeded",
        }
    }

    /// Its status, where one is asked for.
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Hub(CommandError::Internal) => 500,
            Self::Hub(CommandError::UnknownChannel | CommandError::NotFound) => 404,
            Self::Hub(CommandError::BadRequest | CommandError::NotAvailable)
            | Self::LimitExceeded => 400,
            Self::Hub(CommandError::UnrecoverablePosition) => 416,
            Self::PermissionDenied => 403,
        }
    }

    /// How it is counted.
    pub(super) const fn result(self) -> ApiResult {
        match self {
            Self::Hub(CommandError::Internal) => ApiResult::Failed,
            Self::Hub(CommandError::BadRequest) | Self::LimitExceeded => ApiResult::Invalid,
            Self::Hub(
                CommandError::UnknownChannel
                | CommandError::NotFound
                | CommandError::NotAvailable
                | CommandError::UnrecoverablePosition,
            ) => ApiResult::Unavailable,
            Self::PermissionDenied => ApiResult::Denied,
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        Self::Hub(error)
    }
}

/// Why a request was not understood, with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400: the body, and where it went wrong.
    Json {
        /// Counted from 1.
        line: usize,
        column: usize,
        /// Whether it is JSON, but of another shape than the method's.
        is_json: bool,
    },
    /// 400: objects and lists in one another, too many times.
    TooDeep,
    /// 400: more commands or channels than one request may have.
    TooMany { what: &'static str, max: usize },
    /// 401.
    Key,
    /// 404.
    Path,
    /// 405.
    Method,
    /// 415: a type that a page of another site could send.
    ContentType,
    /// 421.
    Host,
    /// 429, for so many seconds.
    Rate(u64),
}

impl Refusal {
    /// A body that is not even text.
    pub(super) const NOT_TEXT: Self = Self::Json {
        line: 1,
        column: 1,
        is_json: false,
    };

    /// The status of the answer.
    pub(super) const fn status(&self) -> u16 {
        match self {
            Self::Json { .. } | Self::TooDeep | Self::TooMany { .. } => 400,
            Self::Key => 401,
            Self::Path => 404,
            Self::Method => 405,
            Self::ContentType => 415,
            Self::Host => 421,
            Self::Rate(_) => 429,
        }
    }

    /// One line for whoever sent it. Nothing of the request is in it.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Json {
                line,
                column,
                is_json,
            } => {
                let what = if *is_json {
                    "a field is missing, twice there, or of another type"
                } else {
                    "not JSON"
                };
                format!("{what}: line {line}, column {column}")
            }
            Self::TooDeep => format!(
                "objects and lists stand in one another more than {} times",
                super::DEPTH_MAX
            ),
            Self::TooMany { what, max } => format!("more than {max} {what}"),
            Self::Key => "no key, or a wrong one".to_owned(),
            Self::Path => "no such method".to_owned(),
            Self::Method => "POST is the only method".to_owned(),
            Self::ContentType => "the body must be of type application/json".to_owned(),
            Self::Host => "this is served for other hosts".to_owned(),
            Self::Rate(_) => "the key has been used more often than it may be".to_owned(),
        }
    }

    /// How it is counted.
    pub(super) const fn result(&self) -> ApiResult {
        match self {
            Self::Json { .. }
            | Self::TooDeep
            | Self::TooMany { .. }
            | Self::Path
            | Self::Method
            | Self::ContentType => ApiResult::Invalid,
            Self::Key | Self::Host => ApiResult::Denied,
            Self::Rate(_) => ApiResult::Limited,
        }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::Json {
            line: error.line(),
            column: error.column(),
            is_json: error.is_data(),
        }
    }
}
