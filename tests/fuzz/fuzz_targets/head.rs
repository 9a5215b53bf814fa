//! Any bytes as a request head, cut anywhere: nothing panics, every cut gives the same answer, and
//! what passes keeps the promises that routing and admission build on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::http::head::{Head, HeadError, HeadReader, Limits, Progress};
use tidegate::http::query;
use tidegate::ws::upgrade::{Upgrade, choose_subprotocol, write_accept};

/// How a head ended: refused, still going on, or whole, with its length and a digest of its parts.
type Answer = Result<Option<(usize, Vec<String>)>, HeadError>;

// The first byte chooses limits and pieces, the rest is the head.
fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    // Small limits are hit by short inputs.
    let limits = if choice & 1 == 0 {
        Limits::default()
    } else {
        Limits {
            head_bytes_max: 200,
            headers_max: 5,
            target_bytes_max: 40,
        }
    };
    let whole = read(bytes, bytes.len().max(1), &limits);
    assert_eq!(whole, read(bytes, 1, &limits));
    assert_eq!(whole, read(bytes, usize::from(choice >> 1) + 1, &limits));
});

fn read(bytes: &[u8], size: usize, limits: &Limits) -> Answer {
    let mut reader = HeadReader::new();
    let mut taken = 0;
    for piece in bytes.chunks(size) {
        match reader.receive(piece, limits)? {
            Progress::Incomplete => taken += piece.len(),
            Progress::Complete { head, used } => {
                assert!(used > 0 && used <= piece.len());
                assert!(taken + used <= limits.head_bytes_max);
                return Ok(Some((taken + used, examine(&head))));
            }
        }
    }
    assert!(taken < limits.head_bytes_max);
    assert!(reader.bytes_held() <= limits.head_bytes_max + 128);
    Ok(None)
}

fn examine(head: &Head<'_>) -> Vec<String> {
    let mut parts = vec![head.method().to_owned(), head.target().to_owned()];
    parts.extend(head.host().map(str::to_owned));

    assert!(head.path().starts_with('/'));
    let segments: Vec<_> = head.path_segments().collect();
    for (at, segment) in segments.iter().enumerate() {
        assert!(!segment.is_empty() || at + 1 == segments.len());
        assert!(*segment != "." && *segment != "..");
        assert!(!segment.contains(['/', '\\', ';', '%']));
        assert!(!segment.contains(char::is_control));
        parts.push(segment.to_string());
    }
    parts.extend(
        head.query()
            .into_iter()
            .flat_map(query::pairs)
            .map(|pair| format!("{pair:?}")),
    );

    match Upgrade::check(head) {
        Ok(upgrade) => {
            parts.extend(upgrade.protocols().map(str::to_owned));
            parts.extend(upgrade.extensions().map(str::to_owned));
            let mut out = Vec::new();
            let subprotocol = choose_subprotocol(&upgrade, &["chat"]);
            write_accept(&mut out, &upgrade, subprotocol, None);
            assert_eq!(out.len(), 129 + if subprotocol.is_some() { 30 } else { 0 });
        }
        Err(error) => assert!((400..500).contains(&error.status())),
    }
    parts
}
