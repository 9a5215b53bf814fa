//! Status lines, headers and short bodies, appended to the caller's buffer.
//!
//! Nothing a peer sent is ever written here: status, headers and body come from this program and its
//! configuration. Should a configured value hold a control byte all the same, it becomes a space
//! (RFC 9110 §5.5), so that no value can end its line and begin another.

use super::{is_token_byte, is_value_byte};

/// An HTTP status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

impl Status {
    /// The reason phrase (RFC 9110 §15, RFC 6585); empty for a code this server does not use.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            101 => "Switching Protocols",
            200 => "OK",
            202 => "Accepted",
            204 => "No Content",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            409 => "Conflict",
            411 => "Length Required",
            413 => "Content Too Large",
            414 => "URI Too Long",
            415 => "Unsupported Media Type",
            421 => "Misdirected Request",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }

    /// 1xx, 204 and 304 end with their head (RFC 9112 §6.3).
    pub(super) const fn has_body(self) -> bool {
        !matches!(self.0, 100..=199 | 204 | 304)
    }
}

/// Appends a refusal: `status`, the `extra` headers (`Retry-After`, `Allow`, …), `Connection: close`,
/// and `body` as one line of JSON. The connection is to be closed behind it.
pub fn write_refusal(out: &mut Vec<u8>, status: u16, extra: &[(&str, &str)], body: &str) {
    write_head(out, Status(status), extra);
    write_header(out, "Content-Type", "application/json");
    write_header(out, "Connection", "close");
    write_header(out, "Content-Length", Decimal::new(body.len() + 1).as_str());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
    out.push(b'\n');
}

/// Appends a whole response. `Content-Length` and `Connection` are written here and are not for
/// `headers` to carry; `Content-Type` is. A status that has no body (204, 304) drops `body`.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
) {
    let status = Status(status);
    write_head(out, status, headers);
    write_header(
        out,
        "Connection",
        if keep_alive { "keep-alive" } else { "close" },
    );
    if status.has_body() {
        write_header(out, "Content-Length", Decimal::new(body.len()).as_str());
    }
    out.extend_from_slice(b"\r\n");
    if status.has_body() {
        out.extend_from_slice(body);
    }
}

fn write_head(out: &mut Vec<u8>, status: Status, headers: &[(&str, &str)]) {
    debug_assert!((100..=599).contains(&status.0), "a status has three digits");
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(Decimal::new(usize::from(status.0)).as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.reason().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        write_header(out, name, value);
    }
}

/// Appends one header line. Control bytes in `value` become spaces.
pub(crate) fn write_header(out: &mut Vec<u8>, name: &str, value: impl AsRef<[u8]>) {
    debug_assert!(
        !name.is_empty() && name.bytes().all(is_token_byte),
        "header names are constants"
    );
    out.extend(name.bytes().filter(|&byte| is_token_byte(byte)));
    out.extend_from_slice(b": ");
    let value = value.as_ref();
    if value.iter().copied().all(is_value_byte) {
        out.extend_from_slice(value);
    } else {
        out.extend(
            value
                .iter()
                .map(|&byte| if is_value_byte(byte) { byte } else { b' ' }),
        );
    }
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal digits, without an allocation.
struct Decimal {
    digits: [u8; Self::DIGITS_MAX],
    first: usize,
}

impl Decimal {
    /// Digits of `u64::MAX`.
    const DIGITS_MAX: usize = 20;

    fn new(mut number: usize) -> Self {
        let mut digits = [b'0'; Self::DIGITS_MAX];
        let mut first = digits.len();
        loop {
            first -= 1;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a remainder of 10 fits in a byte"
            )]
            let digit = (number % 10) as u8;
            digits[first] = b'0' + digit;
            number /= 10;
            if number == 0 {
                return Self { digits, first };
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.first..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_are_whole_and_close_the_connection() {
        let mut out = Vec::new();
        write_refusal(&mut out, 429, &[("Retry-After", "30")], r#"{"status":429}"#);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 429 Too Many Requests\r\n\
             Retry-After: 30\r\n\
             Content-Type: application/json\r\n\
             Connection: close\r\n\
             Content-Length: 15\r\n\
             \r\n\
             {\"status\":429}\n"
        );
    }

    #[test]
    fn responses_say_whether_the_connection_stays() {
        let mut out = b"before".to_vec();
        write_response(
            &mut out,
            200,
            &[("Content-Type", "application/json")],
            b"{}",
            true,
        );
        assert_eq!(
            String::from_utf8_lossy(&out),
            "beforeHTTP/1.1 200 OK\r\n\
             Content-Type: application/json\r\n\
             Connection: keep-alive\r\n\
             Content-Length: 2\r\n\
             \r\n\
             {}"
        );
    }

    #[test]
    fn a_status_without_body_drops_it() {
        let mut out = Vec::new();
        write_response(&mut out, 204, &[], b"dropped", false);
        assert_eq!(out, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 999, 65_536, usize::MAX] {
            assert_eq!(Decimal::new(number).as_str(), number.to_string());
        }
    }

    proptest! {
        /// Whatever the values hold, the head keeps its lines: as many as were written, one empty
        /// line at the end, and a body of the length announced.
        #[test]
        fn b8_no_value_can_split_a_response(
            values in prop::collection::vec("\\PC*|[\\x00-\\x20]*|(a\r\n)*", 0..5),
            body in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let headers: Vec<_> = values.iter().map(|value| ("X-Value", value.as_str())).collect();
            let mut out = Vec::new();
            write_response(&mut out, 403, &headers, &body, false);
            let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            prop_assert_eq!(&out[end + 4..], &body[..]);
            let head = &out[..end];
            let lines: Vec<_> = head.split(|&byte| byte == b'\n').collect();
            prop_assert_eq!(lines.len(), 1 + values.len() + 2);
            for (at, line) in lines.iter().enumerate() {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                prop_assert!(line.iter().copied().all(is_value_byte));
                prop_assert_eq!(at > 0 && at <= values.len(), line.starts_with(b"X-Value: "));
            }
        }
    }
}
