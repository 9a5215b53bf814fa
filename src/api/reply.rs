//! How the answers to commands become the answer to a request, in the shapes of Centrifugo's API.

use std::borrow::Cow;
use std::io::Write as _;

use super::error::ApiError;
use super::order::Shape;

/// Longest answer, in bytes: 16 MiB. Where a result would be longer, it is error 106 instead: ask for
/// less, as with `limit`.
pub(super) const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What came of a command: a result as JSON, or why there is none.
pub(super) type Piece = Result<Cow<'static, [u8]>, ApiError>;

/// The status and the body of an answer.
pub(super) type Reply = (u16, Cow<'static, [u8]>);

/// The result of what has nothing to say.
pub(super) const DONE: Piece = Ok(Cow::Borrowed(b"{}"));

/// The body of the answer to a whole request, and its status.
pub(super) fn whole(shape: &Shape, pieces: &[Piece], wants_transport_errors: bool) -> Reply {
    let length: usize = pieces.iter().map(|one| bytes(one) + 16).sum();
    let mut out = Vec::new();
    match shape {
        Shape::One(_) => {
            let piece = pieces.first().unwrap_or(&Err(ApiError::INTERNAL));
            let piece = piece.as_deref().map_err(|error| *error);
            return one(piece, wants_transport_errors);
        }
        Shape::Broadcast(_) => {
            out.reserve(length + 32);
            out.extend_from_slice(b"{\"result\":");
            write_responses(&mut out, pieces);
            out.push(b'}');
        }
        Shape::Batch(items) => {
            out.reserve(length + 32);
            out.extend_from_slice(b"{\"replies\":[");
            let mut rest = pieces;
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                rest = write_item(&mut out, item, rest);
            }
            out.extend_from_slice(b"]}");
        }
    }
    if out.len() > REPLY_BYTES_MAX {
        return one(Err(ApiError::LimitExceeded), wants_transport_errors);
    }
    (200, out.into())
}

/// Writes one reply of a batch, under the name of its method also where it says nothing: clients look
/// it up by that. Returns the pieces that are left.
fn write_item<'p>(out: &mut Vec<u8>, item: &Shape, pieces: &'p [Piece]) -> &'p [Piece] {
    let count = match item {
        Shape::Broadcast(count) => *count,
        Shape::One(_) | Shape::Batch(_) => 1,
    };
    let (own, rest) = pieces.split_at(count.min(pieces.len()));
    match (item, own) {
        (Shape::Broadcast(_), own) => {
            out.extend_from_slice(b"{\"broadcast\":");
            write_responses(out, own);
            out.push(b'}');
        }
        (Shape::One(method), [Ok(result)]) => {
            write(out, format_args!("{{\"{}\":", method.name()));
            out.extend_from_slice(result);
            out.push(b'}');
        }
        (_, [Err(error), ..]) => write_error(out, *error),
        (Shape::One(_) | Shape::Batch(_), _) => write_error(out, ApiError::INTERNAL),
    }
    rest
}

/// The answer to a request of one command.
pub(super) fn one(piece: Result<&[u8], ApiError>, wants_transport_errors: bool) -> Reply {
    let mut out = Vec::new();
    let status = match piece {
        Ok(b"{}") => return (200, Cow::Borrowed(b"{\"result\":{}}")),
        Ok(result) => {
            out.reserve_exact(result.len() + 11);
            out.extend_from_slice(b"{\"result\":");
            out.extend_from_slice(result);
            out.push(b'}');
            200
        }
        Err(error) if wants_transport_errors => {
            write_error_itself(&mut out, error);
            error.status()
        }
        Err(error) => {
            write_error(&mut out, error);
            200
        }
    };
    (status, out.into())
}

fn bytes(piece: &Piece) -> usize {
    piece.as_ref().map_or(64, |result| result.len())
}

fn write_responses(out: &mut Vec<u8>, pieces: &[Piece]) {
    out.extend_from_slice(b"{\"responses\":[");
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        match piece {
            Ok(result) => {
                out.extend_from_slice(b"{\"result\":");
                out.extend_from_slice(result);
                out.push(b'}');
            }
            Err(error) => write_error(out, *error),
        }
    }
    out.extend_from_slice(b"]}");
}

fn write_error(out: &mut Vec<u8>, error: ApiError) {
    out.extend_from_slice(b"{\"error\":");
    write_error_itself(out, error);
    out.push(b'}');
}

fn write_error_itself(out: &mut Vec<u8>, error: ApiError) {
    let (code, message) = (error.code(), error.message());
    write(
        out,
        format_args!(r#"{{"code":{code},"message":"{message}"}}"#),
    );
}

/// Writing to memory cannot fail.
pub(super) fn write(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests;
