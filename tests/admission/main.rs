//! Admission through real sockets, against servers made from the text of a configuration: who is let in,
//! what everybody else is told, and that nothing is held when it is over. What the parts decide byte by
//! byte is tested beside them; here it counts that they are asked, in their order, by what an operator
//! wrote.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod life;
mod limits;
mod origins;
mod secrets;
mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use socket2::{Domain, Socket, Type};
use tidegate::config::{Config, File, Flags, Host, Sources};
use tidegate::keys::{self, KeyRing};
use tidegate::{HandlerFactory, Settings, routes};

use support::{Client, On, PATIENCE, Running};

/// The secret of all servers here, from their environment as in production.
const SECRET: &str = "0123456789abcdef0123456789ABCDEF";

/// A page that the configurations below let in.
const PAGE: &str = "https://app.example.com";

/// What most tests begin with: the production profile without its limits on clients, which tests of limits
/// set themselves, and the claims of the original.
const BASE: &str = r#"
profile = "production"
reactors = 2
limits.preset = "none"
origin.allowed = ["https://app.example.com"]
token.user_claim = "user_id"
token.token_type = "access"
listen = [{ address = "127.0.0.1:0" }]
"#;

/// A server by this configuration.
fn start(text: &str) -> Running {
    let (settings, routes) = settings(text);
    Running::start(settings, routes)
}

/// The same, whose routes say whom they see when somebody comes: `user address`.
fn start_telling(text: &str) -> Running {
    let on = On {
        open: |peer| {
            let user = peer.user().unwrap_or("-").to_owned();
            let address = peer.address().ip();
            peer.send(format!("{user} {address}").as_str());
        },
        ..On::default()
    };
    let (settings, mut routes) = settings(text);
    for (_, handler) in &mut routes {
        let telling: Arc<dyn HandlerFactory> = Arc::new(move |_| on);
        *handler = telling;
    }
    Running::start(settings, routes)
}

/// What the program makes of a configuration.
fn settings(text: &str) -> (Settings, tidegate::server::Routes) {
    let loaded = Config::load(&Sources {
        flags: Flags::default(),
        environment: vec![("TIDEGATE_TOKEN_SECRET".into(), SECRET.into())],
        file: Some(File {
            path: "test.toml",
            text,
        }),
        host: Host {
            cores: 2,
            descriptors_max: Some(20_000),
        },
    });
    let config = loaded.unwrap_or_else(|errors| panic!("{errors}")).config;
    let mut settings = Settings::from_config(&config).unwrap();
    let ring = KeyRing::start(keys::issuers(&config)).unwrap();
    settings.verifier = Some(Arc::new(ring.verifiers()));
    (settings, routes::configured(&config).unwrap())
}

/// The wall clock, in seconds since 1970.
fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// A token with these claims, signed by the secret of these servers.
fn token(claims: &str) -> String {
    token_by(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

fn token_by(secret: &str, header: &str, claims: &str) -> String {
    let message = [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// A good token of this user, for an hour.
fn token_of(user: &str) -> String {
    token(&claims_of(user, wall() + 3600))
}

/// What the original puts into its tokens.
fn claims_of(user: &str, expires_at: u64) -> String {
    format!(
        r#"{{"token_type":"access","exp":{expires_at},"iat":{},"jti":"{user}-1","user_id":"{user}"}}"#,
        wall() - 10
    )
}

/// A request for this target, from the page that is let in unless `lines` name another one.
fn ask(target: &str, lines: &[&str]) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    );
    let page = format!("Origin: {PAGE}");
    for (name, default) in [("Host:", "Host: localhost"), ("Origin:", page.as_str())] {
        if !lines.iter().any(|line| line.starts_with(name)) {
            request += &format!("{default}\r\n");
        }
    }
    for line in lines.iter().filter(|line| **line != NO_ORIGIN) {
        request += &format!("{line}\r\n");
    }
    request + "\r\n"
}

/// In place of a line: the request has no origin.
const NO_ORIGIN: &str = "Origin:";

/// The status that a request is answered with, the head of the answer, and the client.
fn answer(mut client: Client, request: &str) -> (u16, String, Client) {
    client.send(request.as_bytes());
    let head = client.read_head();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        client,
    )
}

/// The status for a request of a new connection. A refused one is read to its end.
fn status(running: &Running, request: &str) -> u16 {
    let (status, _, mut client) = answer(Client::connect(running.address), request);
    if status != 101 {
        client.read_to_end();
    }
    status
}

/// A connection that is let in.
fn enter(running: &Running, request: &str) -> Client {
    let (status, head, client) = answer(Client::connect(running.address), request);
    assert_eq!(status, 101, "{request}\n{head}");
    client
}

/// A refusal over HTTP: status, reason and the head. It must be one whole line of JSON that says the same.
fn refused(running: &Running, request: &str) -> (u16, String, String) {
    let mut client = Client::connect(running.address);
    client.send(request.as_bytes());
    let (status, head, body) = client.read_refusal();
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}{body}");
    assert!(body.ends_with("}\n") && body.lines().count() == 1, "{body}");
    let line: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(line["status"], status, "{body}");
    assert!(
        line["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    let reason = line["reason"].as_str().unwrap().to_owned();
    (status, reason, head)
}

/// A refusal by close code: the upgrade completes, and the code and its reason are all that comes.
fn told(running: &Running, request: &str) -> (u16, String) {
    let (status, head, mut client) = answer(Client::connect(running.address), request);
    assert_eq!(status, 101, "{request}\n{head}");
    let frame = client.read_frame().unwrap();
    let code = frame.close_code().unwrap();
    client.send_frame(0x88, &code.to_be_bytes());
    assert_eq!(client.read_frame(), None, "nothing follows a close frame");
    let reason = String::from_utf8(frame.payload[2..].to_vec()).unwrap();
    (code, reason)
}

/// A client that comes from this address of the loopback network.
fn client_from(source: [u8; 4], address: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = SocketAddr::from((Ipv4Addr::from(source), 0));
    socket.bind(&source.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    Client::over(socket.into())
}
