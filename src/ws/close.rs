//! The close frame's payload (§5.5.1) and the codes it may carry (§7.4).

use super::CloseCode;
use super::decoder::Violation;
use super::utf8;

/// Longest reason that fits into a close frame, in bytes: a control frame's 125 less the two of the
/// code (§5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// Reads an unmasked close payload: nothing, or a code and a reason.
///
/// Which codes are allowed is decided by [`CloseCode::is_allowed`]: those RFC 6455 defines for the
/// wire, 1012 and 1013 from the IANA registry, and 3000 to 4999. 1004, 1005, 1006, 1014 and 1015
/// are not, nor is anything below 1000, in 1016..=2999 or above 4999.
///
/// # Errors
/// [`Violation::ClosePayload`] for half a code, [`Violation::CloseCode`] for one that may not be
/// sent, and [`Violation::Utf8`] for a reason that is not text.
pub fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::ClosePayload),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    let parsed = CloseCode::from(code);
    if !parsed.is_allowed() {
        return Err(Violation::CloseCode(code));
    }
    Ok(Some((parsed, utf8::validate(reason)?)))
}

/// The longest beginning of `reason` that fits into a close frame and ends between characters.
pub fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §7.4.1 and §7.4.2 as a list, independent of the type's own opinion.
    fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999)
    }

    #[test]
    fn a9_every_code_with_every_length() {
        let mut payload = [b'r'; 125];
        for code in 0..=u16::MAX {
            payload[..2].copy_from_slice(&code.to_be_bytes());
            for len in 0..=payload.len() {
                let expected = match len {
                    0 => Ok(None),
                    1 => Err(Violation::ClosePayload),
                    _ if !may_be_sent(code) => Err(Violation::CloseCode(code)),
                    _ => Ok(Some(len - 2)),
                };
                let parsed = parse(&payload[..len]);
                if let Ok(Some((parsed_code, _))) = &parsed {
                    assert_eq!(u16::from(*parsed_code), code);
                }
                let outcome = parsed.map(|close| close.map(|(_, reason)| reason.len()));
                assert_eq!(outcome, expected, "code {code}, length {len}");
            }
        }
    }

    #[test]
    fn a9_a_reason_that_is_not_text_is_a_violation() {
        assert_eq!(parse(b"\x03\xe8\xce\xba\xe1"), Err(Violation::Utf8));
        // The code is looked at first: a frame wrong twice is answered with 1002.
        assert_eq!(parse(b"\x03\xed\xff"), Err(Violation::CloseCode(1005)));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let exact = "x".repeat(123);
        assert_eq!(fitting(&exact), exact);
        assert_eq!(fitting(&format!("{exact}y")), exact);
        assert_eq!(fitting(&"é".repeat(100)), "é".repeat(61));
        assert_eq!(fitting(&"😀".repeat(100)), "😀".repeat(30));
        assert_eq!(fitting(""), "");
    }
}
