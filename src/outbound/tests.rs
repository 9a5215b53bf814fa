//! Calls against scripted servers and scripted resolvers.

#![expect(
    clippy::disallowed_types,
    reason = "tests share what a scripted resolver answers"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread::JoinHandle;

use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::NextTimeout;

use super::*;

fn http(url: &str) -> Result<(), ClientFault> {
    let options = Options {
        allow_http: true,
        ..Options::default()
    };
    Client::with_resolver(url, options, DefaultResolver::default).map(|_| ())
}

#[test]
fn an_address_that_cannot_be_called_is_refused_at_start() {
    let https = |url: &str| {
        Client::with_resolver(url, Options::default(), DefaultResolver::default).map(|_| ())
    };
    for (made, expected) in [
        (https("https://id.example/keys?a=b"), Ok(())),
        (https("https://[2001:db8::1]:8443/"), Ok(())),
        (http("http://id.example/"), Ok(())),
        (http("HTTP://id.example/"), Ok(())),
        (https("http://id.example/"), Err(ClientFault::NotHttps)),
        (https("HTTP://id.example/"), Err(ClientFault::NotHttps)),
        (
            https("https://user:canary@id.example/"),
            Err(ClientFault::Credentials),
        ),
        (
            https("https://public.example@127.0.0.1/"),
            Err(ClientFault::Credentials),
        ),
        (https(""), Err(ClientFault::Url)),
        (https("/keys"), Err(ClientFault::Url)),
        (https("id.example/keys"), Err(ClientFault::Url)),
        (https("https://"), Err(ClientFault::Url)),
        (https("https:///keys"), Err(ClientFault::Url)),
        (https("https://:443/keys"), Err(ClientFault::Url)),
        (https("file:///etc/passwd"), Err(ClientFault::Url)),
        (https("ftp://id.example/"), Err(ClientFault::Url)),
        (https("https://id.example/a b"), Err(ClientFault::Url)),
        (
            https("https://id.example/\r\nHost: x"),
            Err(ClientFault::Url),
        ),
    ] {
        assert_eq!(made, expected);
    }
    for (timeout, expected) in [
        (Duration::from_micros(999), Err(ClientFault::Timeout)),
        (Duration::from_millis(1), Ok(())),
        (TIME_MAX, Ok(())),
        (
            TIME_MAX + Duration::from_nanos(1),
            Err(ClientFault::Timeout),
        ),
    ] {
        let options = Options {
            timeout,
            ..Options::default()
        };
        let made = Client::with_resolver("https://id.example/", options, DefaultResolver::default);
        assert_eq!(made.map(|_| ()), expected, "{timeout:?}");
    }
}

/// Answers with these addresses: the first list to the first question, and so on. An empty list is a
/// resolver that has no answer.
#[derive(Debug)]
struct Scripted(&'static Mutex<Vec<Vec<SocketAddr>>>);

impl Resolver for Scripted {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut answers = self.0.lock().unwrap();
        let mut addresses = self.empty();
        for address in answers.remove(0) {
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(Error::HostNotFound);
        }
        Ok(addresses)
    }
}

/// Reads one request's head from a stream; `None` at its end.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Serves the requests of one connection until it ends, each with this answer; returns their heads.
fn serve(listener: TcpListener, answer: &'static str) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heads = Vec::new();
        while let Some(head) = read_head(&mut stream) {
            heads.push(head);
            stream.write_all(answer.as_bytes()).unwrap();
        }
        heads
    })
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client for which 127.0.0.1 is the public internet and 127.0.0.2 is not.
fn client(resolver: fn() -> Scripted, idle_connections_max: usize) -> Client<Scripted> {
    let options = Options {
        allow_http: true,
        reach: Reach {
            networks: vec!["127.0.0.1/32".parse().unwrap()],
            ..Reach::default()
        },
        idle_connections_max,
        ..Options::default()
    };
    Client::with_resolver("http://id.example/keys?key=1", options, resolver).unwrap()
}

impl Client<Scripted> {
    /// Lets what is remembered of the name age.
    fn age(&self, by: Duration) {
        let known = self.memory.load_full().unwrap();
        self.memory.store(Some(Arc::new(known.aged(by))));
    }
}

fn is_quiet(trap: &TcpListener) -> bool {
    trap.set_nonblocking(true).unwrap();
    trap.accept().is_err()
}

#[test]
fn d5_a_name_that_rebinds_gains_nothing() {
    static ANSWERS: Mutex<Vec<Vec<SocketAddr>>> = Mutex::new(Vec::new());
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let trap = TcpListener::bind("127.0.0.2:0").unwrap();
    // Public when it is judged, private when somebody asked again.
    *ANSWERS.lock().unwrap() = vec![
        vec![public.local_addr().unwrap()],
        vec![trap.local_addr().unwrap()],
    ];
    let server = serve(public, OK);
    let client = client(|| Scripted(&ANSWERS), 0);
    assert_eq!(client.get(&[]).unwrap().body, b"ok");
    let heads = server.join().unwrap();
    assert!(heads[0].starts_with("GET /keys?key=1 HTTP/1.1\r\n"));
    assert!(heads[0].contains("host: id.example\r\n"), "{}", heads[0]);
    assert_eq!(heads.len(), 1);
    assert_eq!(ANSWERS.lock().unwrap().len(), 1, "asked once");
    // The next call asks again, and is refused.
    let refused = CallError::Address("127.0.0.2".parse().unwrap());
    assert_eq!(client.get(&[]), Err(refused));
    assert!(is_quiet(&trap));
}

#[test]
fn d5_of_several_addresses_only_allowed_ones_are_tried() {
    static ANSWERS: Mutex<Vec<Vec<SocketAddr>>> = Mutex::new(Vec::new());
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let trap = TcpListener::bind("127.0.0.2:0").unwrap();
    *ANSWERS.lock().unwrap() = vec![vec![
        trap.local_addr().unwrap(),
        public.local_addr().unwrap(),
        trap.local_addr().unwrap(),
    ]];
    let server = serve(public, OK);
    assert!(client(|| Scripted(&ANSWERS), 0).get(&[]).is_ok());
    server.join().unwrap();
    assert!(is_quiet(&trap));
}

#[test]
fn x36_the_deadline_is_the_resolvers_too() {
    #[derive(Debug)]
    struct Late;
    impl Resolver for Late {
        fn resolve(
            &self,
            _uri: &Uri,
            _config: &ureq::config::Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let most = Duration::from_secs(5);
            assert!(*timeout.after <= most, "the deadline is handed on");
            Err(Error::Timeout(timeout.reason))
        }
    }
    let client = Client::with_resolver("https://id.example/", Options::default(), || Late);
    let client = Client {
        // No authorities are needed where nobody is met.
        uri: Uri::from_static("http://id.example/"),
        options: Options {
            allow_http: true,
            ..Options::default()
        },
        ..client.unwrap()
    };
    assert_eq!(client.get(&[]), Err(CallError::Timeout));
}

#[test]
fn x34_calls_share_a_connection_where_connections_are_kept() {
    static ANSWERS: Mutex<Vec<Vec<SocketAddr>>> = Mutex::new(Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    *ANSWERS.lock().unwrap() = vec![vec![listener.local_addr().unwrap()]];
    let server = serve(listener, OK);
    let client = client(|| Scripted(&ANSWERS), 4);
    for _ in 0..3 {
        let answer = client.post(b"{}", &[("x-mark", "1")]).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
    }
    drop(client);
    // The server reads heads only, so a body of two bytes comes in front of the next head.
    let heads = server.join().unwrap();
    assert_eq!(
        heads.len(),
        3,
        "one connection, one question to the resolver"
    );
    assert!(heads.iter().all(|head| head.contains("x-mark: 1\r\n")));
}

#[test]
fn x35_while_the_resolver_is_dead_the_last_good_address_is_called() {
    static ANSWERS: Mutex<Vec<Vec<SocketAddr>>> = Mutex::new(Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let trap = TcpListener::bind("127.0.0.2:0").unwrap();
    *ANSWERS.lock().unwrap() = vec![vec![listener.local_addr().unwrap()], vec![]];
    let server = serve(listener, OK);
    let client = client(|| Scripted(&ANSWERS), 4);
    assert!(client.get(&[]).is_ok());
    client.age(Duration::from_secs(31));
    assert!(client.get(&[]).is_ok(), "asked again, in vain");
    assert!(ANSWERS.lock().unwrap().is_empty());
    assert!(client.get(&[]).is_ok(), "not asked again so soon");

    // What is an hour old is nobody's any more, and an address that must not be called is no answer.
    *ANSWERS.lock().unwrap() = vec![vec![], vec![trap.local_addr().unwrap()], vec![]];
    client.age(Duration::from_secs(60 * 60));
    assert_eq!(client.get(&[]), Err(CallError::Name));
    let refused = CallError::Address("127.0.0.2".parse().unwrap());
    assert_eq!(client.get(&[]), Err(refused));
    assert_eq!(client.get(&[]), Err(CallError::Name));
    drop(client);
    assert_eq!(server.join().unwrap().len(), 3);
    assert!(is_quiet(&trap));
}

#[test]
fn g6_an_address_in_place_of_a_name_is_judged_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let call = |host: &str, reach: Reach| {
        let options = Options {
            allow_http: true,
            reach,
            timeout: Duration::from_millis(200),
            idle_connections_max: 1,
            ..Options::default()
        };
        let client = Client::new(&format!("http://{host}:{port}/"), options).unwrap();
        client.get(&[]).unwrap_err()
    };
    let private = Reach {
        private: true,
        ..Reach::default()
    };
    let refused = |address: &str| CallError::Address(address.parse().unwrap());
    assert_eq!(call("127.0.0.1", Reach::default()), refused("127.0.0.1"));
    assert_eq!(
        call("169.254.169.254", private.clone()),
        refused("169.254.169.254")
    );
    assert_eq!(
        call("[fd00:ec2::254]", private.clone()),
        refused("fd00:ec2::254")
    );
    assert_eq!(call("[::]", private.clone()), refused("::"));
    assert!(is_quiet(&listener));
    // The backlog takes the connection, and nobody answers.
    assert_eq!(call("127.0.0.1", private), CallError::Timeout);
}

#[test]
fn a_reach_is_what_it_says() {
    let private = Reach {
        private: true,
        ..Reach::default()
    };
    let listed = Reach {
        networks: vec!["169.254.170.0/24".parse().unwrap()],
        ..private.clone()
    };
    let anywhere = Reach {
        anywhere: true,
        ..Reach::default()
    };
    for (address, expected) in [
        ("8.8.8.8", [true, true, true, true]),
        ("10.0.0.1", [false, true, true, true]),
        ("::ffff:10.0.0.1", [false, true, true, true]),
        ("169.254.170.2", [false, false, true, true]),
        ("::ffff:169.254.170.2", [false, false, true, true]),
        ("169.254.169.254", [false, false, false, true]),
        ("fe80::1", [false, false, false, true]),
        ("0.0.0.0", [false, false, false, true]),
    ] {
        let address = address.parse().unwrap();
        let reaches = [&Reach::default(), &private, &listed, &anywhere];
        assert_eq!(
            reaches.map(|reach| reach.allows(address)),
            expected,
            "{address}"
        );
    }
}

#[test]
fn g6_an_answer_is_bounded_and_steers_nothing() {
    for (what, answer, expected) in [
        (
            "at the limit",
            "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678",
            Ok(200),
        ),
        (
            "beyond the limit",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789",
            Err(CallError::TooLarge),
        ),
        (
            "a failure",
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            Ok(500),
        ),
        (
            "elsewhere",
            "HTTP/1.1 307 Go\r\nlocation: http://127.0.0.2/\r\ncontent-length: 0\r\n\r\n",
            Err(CallError::Redirect),
        ),
        (
            "no HTTP",
            "SSH-2.0-OpenSSH\r\n\r\n",
            Err(CallError::Protocol),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = serve(listener, answer);
        let options = Options {
            allow_http: true,
            reach: Reach {
                private: true,
                ..Reach::default()
            },
            answer_bytes_max: 8,
            ..Options::default()
        };
        let client = Client::new(&url, options).unwrap();
        let answer = client.get(&[("connection", "close")]);
        assert_eq!(answer.map(|answer| answer.status), expected, "{what}");
        drop(client);
        server.join().unwrap();
    }
}
