//! What is asked of JSON before a parser sees it, and how single texts are written.

/// Does the nesting of objects and lists go beyond `depth_max`, the outermost counted? One pass,
/// without recursion and without allocating. In text that is not JSON the answer means nothing, and the
/// parser has its say next.
#[must_use]
pub fn is_deeper_than(text: &str, depth_max: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => _ = bytes.next(),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    false
}

/// Appends a text as JSON writes it, quotes and all.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail, and every text has a form in JSON.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn brackets_within_texts_do_not_count() {
        for (text, depth) in [
            ("1", 0),
            ("[]", 1),
            ("[[],[]]", 2),
            (r#"{"a":{"b":[1]}}"#, 3),
            (r#"["[[[[", "\"[[[", "\\", [1]]"#, 2),
        ] {
            assert!(!is_deeper_than(text, depth), "{text}");
            assert!(depth == 0 || is_deeper_than(text, depth - 1), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_text_is_read_as_it_was(text in any::<String>()) {
            let mut out = b"x".to_vec();
            write_text(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out[1..]).unwrap(), text);
        }
    }
}
