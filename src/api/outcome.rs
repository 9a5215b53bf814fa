//! The hub's outcomes as JSON, in the shapes of Centrifugo's API.
//!
//! Fields that Centrifugo's clients ask for are there also where they are empty; all text is written by
//! `serde_json`'s serializer, but for data that is JSON already, which goes out as it came in.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::access::covers;
use super::error::ApiError;
use super::reply::{DONE, Piece, REPLY_BYTES_MAX, write};
use crate::hub::command::{ChannelInfo, Outcome, Present, Publication, StreamPosition};
use crate::json::write_text;
use crate::ws::Message;

/// What an answer says beside the outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The name of this server among others: chosen at its start.
    pub(super) uid: &'a str,
    /// The name of its host.
    pub(super) host: &'a str,
    /// Seconds since its start.
    pub(super) uptime: u64,
}

/// The result of a command as JSON. `prefixes` are those of the key: channels that it is not good for
/// are not shown.
///
/// # Errors
/// 106 if it is longer than [`REPLY_BYTES_MAX`].
pub(super) fn piece(outcome: &Outcome, prefixes: &[String], facts: &Facts<'_>) -> Piece {
    let mut out = Vec::new();
    match outcome {
        Outcome::Published(None) | Outcome::Done(_) => return DONE,
        Outcome::Published(Some(position)) => {
            out.push(b'{');
            write_position(&mut out, *position);
            out.push(b'}');
        }
        Outcome::Presence(present) => write_presence(&mut out, present)?,
        Outcome::PresenceStats { clients, users } => {
            write(
                &mut out,
                format_args!(r#"{{"num_clients":{clients},"num_users":{users}}}"#),
            );
        }
        Outcome::History(publications, top) => {
            write_history(&mut out, publications.iter().map(|one| &**one), *top)?;
        }
        Outcome::Channels(channels) => write_channels(&mut out, channels, prefixes)?,
        Outcome::Info(info) => {
            out.extend_from_slice(b"{\"nodes\":[{\"uid\":");
            write_text(&mut out, facts.uid);
            out.extend_from_slice(b",\"name\":");
            write_text(&mut out, facts.host);
            let (version, uptime) = (env!("CARGO_PKG_VERSION"), facts.uptime);
            write(
                &mut out,
                format_args!(
                    r#","version":"{version}","num_clients":{},"num_users":{},"num_subs":{},"num_channels":{},"uptime":{uptime}}}]}}"#,
                    info.clients, info.users, info.subscriptions, info.channels
                ),
            );
        }
    }
    Ok(Cow::Owned(out))
}

fn write_presence(out: &mut Vec<u8>, present: &[Present]) -> Result<(), ApiError> {
    out.extend_from_slice(b"{\"presence\":{");
    for (number, one) in present.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        let client = one.client;
        write(out, format_args!(r#""{client}":{{"user":"#));
        write_text(out, &one.user);
        write(out, format_args!(r#","client":"{client}""#));
        if let Some(info) = &one.info {
            out.extend_from_slice(b",\"conn_info\":");
            out.extend_from_slice(info.as_bytes());
        }
        out.push(b'}');
        within(out)?;
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

fn write_history<'p>(
    out: &mut Vec<u8>,
    publications: impl Iterator<Item = &'p Publication>,
    top: StreamPosition,
) -> Result<(), ApiError> {
    out.extend_from_slice(b"{\"publications\":[");
    for (number, publication) in publications.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_data(out, &publication.message);
        write(out, format_args!(r#","offset":{}"#, publication.offset));
        if let Some(tags) = &publication.tags {
            out.extend_from_slice(b",\"tags\":{");
            for (number, (name, value)) in tags.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_text(out, name);
                out.push(b':');
                write_text(out, value);
            }
            out.push(b'}');
        }
        out.push(b'}');
        within(out)?;
    }
    out.extend_from_slice(b"],");
    write_position(out, top);
    out.push(b'}');
    Ok(())
}

/// The beginning of a publication's object: what was published. A client may have published text that is
/// not JSON; that is a text in JSON. Bytes are called what they are called in a request.
fn write_data(out: &mut Vec<u8>, message: &Message<'_>) {
    match message {
        Message::Text(text) => {
            out.extend_from_slice(b"{\"data\":");
            if serde_json::from_str::<&RawValue>(text).is_ok() {
                out.extend_from_slice(text.as_bytes());
            } else {
                write_text(out, text);
            }
        }
        Message::Binary(bytes) => {
            out.extend_from_slice(b"{\"b64data\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

fn write_channels(
    out: &mut Vec<u8>,
    channels: &[ChannelInfo],
    prefixes: &[String],
) -> Result<(), ApiError> {
    out.extend_from_slice(b"{\"channels\":{");
    let shown = channels
        .iter()
        .filter(|info| covers(prefixes, info.channel.as_str()));
    for (number, info) in shown.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_text(out, info.channel.as_str());
        write(out, format_args!(r#":{{"num_clients":{}}}"#, info.clients));
        within(out)?;
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

fn write_position(out: &mut Vec<u8>, position: StreamPosition) {
    let StreamPosition { offset, epoch } = position;
    write(out, format_args!(r#""offset":{offset},"epoch":"{epoch}""#));
}

const fn within(out: &[u8]) -> Result<(), ApiError> {
    if out.len() > REPLY_BYTES_MAX {
        return Err(ApiError::LimitExceeded);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
