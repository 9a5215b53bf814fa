//! A scripted HTTP server, as a backend that hooks call: it may be slow, away, wrong, or hostile.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::Value;

use crate::support::{PATIENCE, wait_until};

/// A request that the backend got.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the backend does with a request.
pub enum Reply {
    /// 200 with this JSON.
    Json(Value),
    /// These bytes.
    Raw(Vec<u8>),
    /// The same as soon as the test says so, or gives up saying.
    When(mpsc::Receiver<()>, Value),
    /// Nothing, and the connection ends.
    HangUp,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Raw(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").into_bytes())
    }

    pub fn body(body: &str) -> Self {
        let length = body.len();
        Self::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
    }
}

pub type Script = Box<dyn Fn(&Call) -> Reply + Send + Sync>;

/// A scripted HTTP server on a port of its own.
pub struct Backend {
    pub address: SocketAddr,
    pub calls: Arc<Mutex<Vec<Call>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl Backend {
    pub fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            calls: Arc::default(),
            connections: Arc::default(),
        };
        let (calls, connections) = (Arc::clone(&backend.calls), Arc::clone(&backend.connections));
        let script: Arc<Script> = Arc::new(Box::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *connections.lock().unwrap() += 1;
                let (calls, script) = (Arc::clone(&calls), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &calls, &script));
            }
        });
        backend
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub fn wait_for_calls(&self, count: usize) -> Vec<Call> {
        wait_until("the calls", || self.calls.lock().unwrap().len() >= count);
        self.calls()
    }
}

pub fn serve(stream: TcpStream, calls: &Mutex<Vec<Call>>, script: &Script) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|read| *read > 0)?;
        assert!(line.starts_with("POST "), "{line}");
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        let call = Call {
            path,
            headers,
            body,
        };
        calls.lock().unwrap().push(call.clone());
        let reply = match script(&call) {
            Reply::When(when, value) => {
                let _ = when.recv_timeout(PATIENCE);
                Reply::Json(value)
            }
            other => other,
        };
        let reply = match reply {
            Reply::Json(value) => Reply::body(&value.to_string()),
            other => other,
        };
        match reply {
            Reply::Raw(bytes) => out.write_all(&bytes).ok()?,
            _ => return None,
        }
    }
}
