//! Any bytes as a compressed message, any bytes as a message to compress, any text as an offer.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::ws::{DeflateParameters, Deflater, Inflater, Limits};

#[derive(Debug, Arbitrary)]
enum Case {
    Inflate {
        message_bytes_max: u32,
        inflate_ratio_max: u16,
        deflated: Vec<u8>,
    },
    RoundTrip {
        window_bits: u8,
        unit: Vec<u8>,
        times: u8,
    },
    Negotiate {
        offers: Vec<String>,
    },
}

fuzz_target!(|case: Case| match case {
    Case::Inflate {
        message_bytes_max,
        inflate_ratio_max,
        deflated,
    } => {
        let limits = Limits {
            message_bytes_max: (message_bytes_max % (1 << 20)) as usize,
            inflate_ratio_max: u32::from(inflate_ratio_max),
            ..Limits::default()
        };
        let mut inflater = Inflater::new();
        let first = inflater
            .inflate(&deflated, &limits)
            .map(|inflated| inflated.into_owned());
        if let Ok(inflated) = &first {
            assert!(inflated.len() <= limits.message_bytes_max);
        }
        // What came before leaves no trace.
        let second = inflater
            .inflate(&deflated, &limits)
            .map(|inflated| inflated.into_owned());
        assert_eq!(first, second);
    }
    Case::RoundTrip {
        window_bits,
        unit,
        times,
    } => {
        let message = unit.repeat(usize::from(times));
        let mut deflated = b"before".to_vec();
        if Deflater::new().deflate(&message, window_bits, &mut deflated) {
            assert!(deflated.len() < b"before".len() + message.len());
            let limits = Limits {
                message_bytes_max: usize::MAX,
                inflate_ratio_max: u32::MAX,
                ..Limits::default()
            };
            let mut inflater = Inflater::new();
            let inflated = inflater.inflate(&deflated[b"before".len()..], &limits);
            assert_eq!(inflated.as_deref(), Ok(&message[..]));
        } else {
            assert_eq!(deflated, b"before");
        }
    }
    Case::Negotiate { offers } => {
        if let Ok(Some(parameters)) =
            DeflateParameters::negotiate(offers.iter().map(String::as_str))
        {
            assert!((8..=15).contains(&parameters.window_bits()));
            let mut response = Vec::new();
            parameters.write_response(&mut response);
            // The answer is an offer we would accept, with the same outcome.
            let response = String::from_utf8(response).expect("ASCII");
            let again = DeflateParameters::negotiate([&response[..]].into_iter());
            assert_eq!(again, Ok(Some(parameters)));
        }
    }
});
