//! Headers as the specification (HAProxy, `proxy-protocol.txt`) has them, and as it does not.

use proptest::prelude::*;

use super::*;

fn proxied(client: &str, destination: &str) -> Result<Source, ProxyError> {
    Ok(Source::Proxied {
        client: client.parse().unwrap(),
        destination: destination.parse().unwrap(),
    })
}

/// Version 2's header, with everything as it is given.
fn v2(command: u8, family: u8, addresses: &[u8], tlvs: usize) -> Vec<u8> {
    let length = u16::try_from(addresses.len() + tlvs).unwrap();
    let mut header = V2_START.to_vec();
    header.extend([command, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.resize(header.len() + tlvs, 0xee);
    header
}

const TCP4: &[u8] = &[198, 51, 100, 1, 192, 0, 2, 7, 0x12, 0x67, 0x01, 0xbb];

fn tcp6() -> Vec<u8> {
    let mut addresses = Vec::new();
    for address in ["2001:db8::1", "2001:db8::ffff"] {
        addresses.extend(address.parse::<Ipv6Addr>().unwrap().octets());
    }
    addresses.extend([0x12, 0x67, 0x01, 0xbb]);
    addresses
}

/// Reads by pieces of `size` bytes. The answer, and how many bytes were used in all.
fn read_by(size: usize, input: &[u8]) -> (Option<Result<Source, ProxyError>>, usize) {
    let mut reader = ProxyReader::new(100);
    let mut before = 0;
    for piece in input.chunks(size) {
        match reader.receive(piece) {
            Ok(Progress::Incomplete) => before += piece.len(),
            Ok(Progress::Complete { source, used }) => return (Some(Ok(source)), before + used),
            Err(error) => return (Some(Err(error)), 0),
        }
    }
    (None, before)
}

fn samples() -> Vec<(Vec<u8>, Result<Source, ProxyError>)> {
    use ProxyError::{Family, Malformed, Missing, TooLong};
    let v4 = || proxied("198.51.100.1:4711", "192.0.2.7:443");
    let v6 = || proxied("[2001:db8::1]:4711", "[2001:db8::ffff]:443");
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 16));
    let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 15));
    let unix = [b'/'; UNIX_ADDRESS_BYTES];
    let lines: Vec<(&str, _)> = vec![
        // §2.1
        ("PROXY TCP4 198.51.100.1 192.0.2.7 4711 443\r\n", v4()),
        ("PROXY TCP6 2001:db8::1 2001:db8::ffff 4711 443\r\n", v6()),
        (
            "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
            proxied("0.0.0.0:0", "255.255.255.255:65535"),
        ),
        (
            "PROXY TCP6 ::ffff:198.51.100.1 ::1 1 2\r\n",
            proxied("[::ffff:198.51.100.1]:1", "[::1]:2"),
        ),
        ("PROXY UNKNOWN\r\n", Ok(Source::Unknown)),
        (
            "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
            Ok(Source::Unknown),
        ),
        (&longest, Ok(Source::Unknown)),
        (&too_long, Err(TooLong)),
        (
            "PROXY TCP4 198.51.100.1 192.0.2.7 4711 443\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 198.51.100.1 192.0.2.7 4711 443\rX",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 198.51.100.1 192.0.2.7 4711 443 \r\n",
            Err(Malformed),
        ),
        ("PROXY TCP4 198.51.100.1 192.0.2.7 4711\r\n", Err(Malformed)),
        (
            "PROXY TCP4 198.51.100.1  192.0.2.7 4711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 198.51.100.1 192.0.2.7 +711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 198.51.100.1 192.0.2.7 04711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 198.51.100.1 192.0.2.7 65536 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 198.51.100.01 192.0.2.7 4711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY TCP6 198.51.100.1 192.0.2.7 4711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY UDP4 198.51.100.1 192.0.2.7 4711 443\r\n",
            Err(Malformed),
        ),
        (
            "PROXY tcp4 198.51.100.1 192.0.2.7 4711 443\r\n",
            Err(Malformed),
        ),
        ("PROXY \r\n", Err(Malformed)),
        ("PROXY\r\n", Err(Missing)),
        ("POST / HTTP/1.1\r\n\r\n", Err(Missing)),
        ("GET / HTTP/1.1\r\n\r\n", Err(Missing)),
        ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Err(Missing)),
        ("\x16\x03\x01\x02\x00", Err(Missing)),
    ];
    let mut samples: Vec<_> = lines
        .into_iter()
        .map(|(line, expected)| (line.as_bytes().to_vec(), expected))
        .collect();
    let mut short = v2(0x21, 0x11, &TCP4[..11], 0);
    short.extend(b"xxxxxxxxxxxxxxxxxxxx");
    samples.extend([
        // §2.2
        (v2(0x21, 0x11, TCP4, 0), v4()),
        (v2(0x21, 0x11, TCP4, 1), v4()),
        (v2(0x21, 0x11, TCP4, 100), v4()),
        (v2(0x21, 0x11, TCP4, 101), Err(TooLong)),
        (v2(0x21, 0x11, TCP4, 65_000), Err(TooLong)),
        (short, Err(Malformed)),
        (v2(0x21, 0x21, &tcp6(), 0), v6()),
        (v2(0x21, 0x21, &tcp6(), 30), v6()),
        (v2(0x21, 0x21, TCP4, 0), Err(Malformed)),
        (v2(0x21, 0x31, &unix, 0), Ok(Source::Unknown)),
        (v2(0x21, 0x31, &unix, 30), Ok(Source::Unknown)),
        (v2(0x21, 0x31, &unix[1..], 0), Err(Malformed)),
        (v2(0x21, 0x00, &[], 0), Ok(Source::Unknown)),
        (v2(0x21, 0x00, &[], 7), Ok(Source::Unknown)),
        (v2(0x20, 0x00, &[], 0), Ok(Source::Local)),
        // A LOCAL header may carry anything; none of it is believed.
        (v2(0x20, 0x11, TCP4, 9), Ok(Source::Local)),
        (v2(0x20, 0x77, &[], 9), Ok(Source::Local)),
        (v2(0x20, 0x00, &[], 317), Err(TooLong)),
        (v2(0x21, 0x12, TCP4, 0), Err(Family)),
        (v2(0x21, 0x22, &tcp6(), 0), Err(Family)),
        (v2(0x21, 0x32, &unix, 0), Err(Family)),
        (v2(0x21, 0x13, TCP4, 0), Err(Family)),
        (v2(0x22, 0x11, TCP4, 0), Err(Malformed)),
        (v2(0x11, 0x11, TCP4, 0), Err(Malformed)),
        (v2(0x31, 0x11, TCP4, 0), Err(Malformed)),
    ]);
    samples
}

#[test]
fn every_header_is_read_alike_however_it_is_split() {
    for (header, expected) in samples() {
        // What follows belongs to somebody else.
        let mut input = header.clone();
        input.extend(b"GET / HTTP/1.1\r\n");
        let used = if expected.is_ok() { header.len() } else { 0 };
        for size in 1..=input.len() {
            let found = read_by(size, &input);
            assert_eq!(
                found,
                (Some(expected), used),
                "{} by {size}",
                input.escape_ascii()
            );
        }
        // Two pieces, cut anywhere; the second may be empty.
        for at in 0..=header.len() {
            let mut reader = ProxyReader::new(100);
            let first = reader.receive(&input[..at]);
            let answer = match first {
                Ok(Progress::Incomplete) => {
                    reader.receive(&input[at..]).map(|progress| match progress {
                        Progress::Complete { source, used } => (source, at + used),
                        Progress::Incomplete => panic!("whole by now"),
                    })
                }
                Ok(Progress::Complete { source, used }) => Ok((source, used)),
                Err(error) => Err(error),
            };
            assert_eq!(answer, expected.map(|source| (source, header.len())));
        }
    }
}

#[test]
fn a_header_that_is_not_whole_waits() {
    for (header, expected) in samples().iter().filter(|(_, expected)| expected.is_ok()) {
        for end in 0..header.len() {
            let found = read_by(usize::MAX, &header[..end]);
            assert_eq!(found, (None, end), "{expected:?}");
        }
    }
    assert!(size_of::<ProxyReader>() <= 192);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_one_answer(
        which in 0_usize..60,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        tail in prop::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..400,
    ) {
        let samples = samples();
        let mut input = samples[which % samples.len()].0.clone();
        input.truncate(400);
        for (at, byte) in changes {
            let at = at % input.len();
            input[at] = byte;
        }
        input.extend(tail);
        let whole = read_by(usize::MAX, &input);
        prop_assert_eq!(whole, read_by(size, &input));
        prop_assert!(whole.1 <= input.len());
    }

    #[test]
    fn what_is_written_is_read(
        client in any::<(u128, u16)>(), destination in any::<(u128, u16)>(), is_v4 in any::<bool>(),
    ) {
        let address = |(bits, port): (u128, u16)| {
            let ip: IpAddr = if is_v4 {
                Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap()).into()
            } else {
                Ipv6Addr::from_bits(bits).into()
            };
            SocketAddr::new(ip, port)
        };
        let (client, destination) = (address(client), address(destination));
        let expected = Ok(Source::Proxied { client, destination });
        let name = if is_v4 { "TCP4" } else { "TCP6" };
        let line = format!(
            "PROXY {name} {} {} {} {}\r\n",
            client.ip(), destination.ip(), client.port(), destination.port()
        );
        prop_assert_eq!(read_by(usize::MAX, line.as_bytes()), (Some(expected), line.len()));
        let mut addresses = Vec::new();
        for end in [client, destination] {
            match end.ip() {
                IpAddr::V4(ip) => addresses.extend(ip.octets()),
                IpAddr::V6(ip) => addresses.extend(ip.octets()),
            }
        }
        addresses.extend(client.port().to_be_bytes());
        addresses.extend(destination.port().to_be_bytes());
        let header = v2(0x21, if is_v4 { 0x11 } else { 0x21 }, &addresses, 3);
        prop_assert_eq!(read_by(7, &header), (Some(expected), header.len()));
    }
}
