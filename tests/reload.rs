//! SIGHUP: limits, origins and routes change while connections stay, all or nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use support::watched::Watched;
use support::{Client, On, Program, frame, request};
use tidegate::admission::{Policy, Route, limits};
use tidegate::demo::Echo;
use tidegate::server::{Reload, Routes};
use tidegate::{Settings, http};

mod support;

/// The program with a configuration file of its own, in a profile that needs nothing else.
struct Configured {
    program: Program,
    file: PathBuf,
}

const HEAD: &str = "profile = \"development\"\nlisten = [{ address = \"127.0.0.1:0\" }]\n\
                    monitor = { listen = [] }\nlog = { format = \"text\" }\n";

impl Configured {
    fn start(name: &str, text: &str) -> Self {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{name}.toml"));
        std::fs::write(&file, format!("{HEAD}{text}")).unwrap();
        let program = Program::start(&["--config", file.to_str().unwrap()], &[]);
        Self { program, file }
    }

    /// Writes another configuration and has it read, up to a line with `said` in it.
    fn reload(&mut self, text: &str, said: &str) -> String {
        self.write(&format!("{HEAD}{text}"));
        self.program.signal(Signal::HUP);
        self.program.read_line_with(said)
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    fn open(&self, path: &str) -> Client {
        Client::open(self.program.addresses[0], path)
    }

    /// The status and the head of an answer to somebody who wants in.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut client = Client::connect(self.program.addresses[0]);
        client.send(request.as_bytes());
        let head = client.read_head();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    fn end(mut self) {
        self.program.signal(Signal::TERM);
        assert_eq!(self.program.wait().code(), Some(0));
    }
}

const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "nothing was reloaded";

fn route(path: &str, rest: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\ntoken = \"none\"\n{rest}\n")
}

#[test]
fn an_open_connection_obeys_new_limits_at_once() {
    let echo = route("/a", "kind = \"echo\"");
    let text = |bytes: &str| format!("[websocket]\nmessage_bytes_max = \"{bytes}\"\n{echo}");
    let mut server = Configured::start("limits", &text("1KiB"));
    let mut client = server.open("/a");
    client.echo(&"x".repeat(1024));
    server.reload(&text("512B"), RELOADED);
    client.echo(&"x".repeat(512));
    client.send_frame(0x81, &[b'x'; 513]);
    assert_eq!(client.read_close(), Some(1009));
    // The program's own routes, too.
    let mut own = server.open("/echo");
    own.send_frame(0x81, &[b'x'; 513]);
    assert_eq!(own.read_close(), Some(1009));
    drop((client, own));

    let paced = |rate: &str| format!("[limits]\nmessages_per_second = \"{rate}\"\n{echo}");
    server.reload(&echo, RELOADED);
    let mut slow = server.open("/a");
    server.reload(&paced("1 burst 1"), RELOADED);
    slow.send(&[frame(0x81, b"one"), frame(0x81, b"two")].concat());
    assert_eq!(slow.read_text(), "one");
    assert_eq!(slow.read_close(), Some(1008));
    drop(slow);
    server.end();
}

#[test]
fn newcomers_meet_new_origins_and_connection_limits_and_those_inside_stay() {
    let text = |origin: &str, most: u32| {
        format!(
            "[origin]\nallowed = [\"{origin}\"]\n[limits]\nconnections_max = {most}\n{}",
            route("/a", "kind = \"echo\"")
        )
    };
    let from = |origin: &str| {
        let end = format!("\r\nOrigin: {origin}\r\n\r\n");
        request("/a").replace("\r\n\r\n", &end)
    };
    let (one, two) = ("https://one.example", "https://two.example");
    let mut server = Configured::start("origins", &text(one, 100));
    assert_eq!(server.ask(&from(one)).0, 101);
    assert_eq!(server.ask(&from(two)).0, 403);
    let mut inside = server.open("/a");
    server.reload(&text(two, 100), RELOADED);
    assert_eq!(server.ask(&from(one)).0, 403);
    assert_eq!(server.ask(&from(two)).0, 101);

    let held: Vec<_> = (0..4).map(|_| server.open("/a")).collect();
    server.reload(&text(two, 2), RELOADED);
    let (status, head) = server.ask(&from(two));
    assert!(status == 503 && head.contains("Retry-After"), "{head}");
    inside.echo("nobody is thrown out");
    drop((held, inside));
    server.end();
}

#[test]
fn routes_come_and_go_and_change_and_their_connections_stay() {
    let (a, b) = (
        route("/a", "kind = \"echo\""),
        route("/b", "kind = \"echo\""),
    );
    let mut server = Configured::start("routes", &format!("{a}{b}"));
    let (mut on_a, mut on_b) = (server.open("/a"), server.open("/b"));
    assert_eq!(server.ask(&request("/c")).0, 404);

    // /a is gone, /b does something else, /c is new.
    let text = [
        route("/b", "kind = \"broadcast\""),
        route("/c", "kind = \"channels\"\nchannels = [\"room\"]\nrelay = [{ when = \"any\", to = [\"room\"] }]"),
    ]
    .concat();
    let said = server.reload(&text, RELOADED);
    assert!(
        said.contains("routes_added=2") && said.contains("routes_retired=2"),
        "{said}"
    );
    assert_eq!(server.ask(&request("/a")).0, 404);
    on_a.echo("still here");
    let (mut one, mut two) = (server.open("/b"), server.open("/b"));
    one.echo("to both");
    assert_eq!(two.read_text(), "to both");
    two.send_text("to all");
    assert_eq!(two.read_text(), "to all");
    assert_eq!(one.read_text(), "to all");
    on_b.echo("who was here before only hears itself");
    server
        .open("/echo")
        .echo("the program's own are where they were");

    // Back to the first one: it is another route than the one that was retired.
    server.reload(&format!("{a}{b}"), RELOADED);
    server.open("/a").echo("hello");
    server.open("/b").echo("hello");
    on_a.echo("still here");
    on_b.echo("still here");
    one.echo("still all");
    assert_eq!(two.read_text(), "still all");
    assert_eq!(server.ask(&request("/c")).0, 404);
    drop((on_a, on_b, one, two));
    server.end();
}

/// A template may not give a value the name of another route's channel (G2): those who come after a
/// reload are judged by all templates there are then.
#[test]
fn g2_a_new_channel_does_not_fall_to_an_old_template() {
    let rooms = route(
        "/rooms/{room}",
        "kind = \"channels\"\nchannels = [\"room_{room}\"]",
    );
    let all = route("/all", "kind = \"channels\"\nchannels = [\"room_all\"]");
    let mut server = Configured::start("names", &rooms);
    assert_eq!(server.ask(&request("/rooms/all")).0, 101);
    let mut before = server.open("/rooms/1");
    server.reload(&format!("{rooms}{all}"), RELOADED);
    server.open("/all");
    server.open("/rooms/1");
    let mut stranger = Client::connect(server.program.addresses[0]);
    stranger.send(request("/rooms/all").as_bytes());
    let head = stranger.read_head();
    let is_in = head.starts_with("HTTP/1.1 101 ") && stranger.read_close().is_none();
    assert!(!is_in, "{head}");
    before.send_frame(0x89, b"?");
    assert_eq!(before.read_frame().unwrap().opcode(), 10);
    drop((before, stranger));
    server.end();
}

#[test]
fn x20_of_a_bad_configuration_nothing_takes_effect() {
    let good = route("/a", "kind = \"echo\"\nmessage_bytes_max = \"1KiB\"");
    let bad = [
        ("[[route", "reload-bad.toml"),
        ("[limit]\n", "limit"),
        ("nonsense = 1\n", "nonsense"),
        ("[limits]\nconnections_max = 0\n", "limits.connections_max"),
        (
            "[limits]\nconnections_max = \"many\"\n",
            "limits.connections_max",
        ),
        (
            "[limits]\naddress_attempts = \"5 per hour\"\n",
            "limits.address_attempts",
        ),
        ("[limits]\nloop_lag_max = \"5\"\n", "limits.loop_lag_max"),
        (
            "[websocket]\nmessage_bytes_max = \"1\"\n",
            "websocket.message_bytes_max",
        ),
        (
            "[websocket]\npong_timeout = \"-1s\"\n",
            "websocket.pong_timeout",
        ),
        ("[outbox]\nbytes_max = \"1B\"\n", "outbox.bytes_max"),
        ("[http]\nhead_bytes_max = \"3\"\n", "http.head_bytes_max"),
        (
            "[origin]\nallowed = [\"https://*.*.example\"]\n",
            "origin.allowed",
        ),
        (
            "[address]\ntrusted_networks = [\"10.0.0.0/33\"]\n",
            "address.trusted_networks",
        ),
        ("[[route]]\nkind = \"echo\"\n", "route"),
        ("[[route]]\npath = \"/b\"\n", "kind"),
        ("[[route]]\npath = \"b\"\nkind = \"echo\"\n", "route"),
        ("[[route]]\npath = \"/b/{x\"\nkind = \"echo\"\n", "route"),
        ("[[route]]\npath = \"/b\"\nkind = \"echoes\"\n", "kind"),
        (
            "[[route]]\npath = \"/b\"\nkind = \"echo\"\nrule = \"role =\"\n",
            "rule",
        ),
        (
            "[[route]]\npath = \"/b\"\nkind = \"channels\"\nchannels = [\"{user}\"]\n",
            "channels",
        ),
        (
            "[[route]]\npath = \"/b\"\nkind = \"echo\"\nmessage_bytes_max = \"1 parsec\"\n",
            "message_bytes_max",
        ),
        (
            "[tls]\ncertificates = [{ certificate = \"/nowhere.pem\" }]\n",
            "certificate",
        ),
    ];
    let mut server = Configured::start("bad", &good);
    let mut before = server.open("/a");
    for (text, named) in bad {
        // What would be good by itself does not take effect either.
        let changed = good.replace("1KiB", "2B");
        server.write(&format!("{HEAD}{text}{changed}"));
        server.program.signal(Signal::HUP);
        let mut said = String::new();
        while !said.contains(REFUSED) {
            let line = server.program.read_line_with("");
            assert!(!line.contains(RELOADED), "{text}: {line}");
            said += &line;
        }
        assert!(said.contains(named), "{text}: {said}");
        assert!(said.contains("reload-bad.toml"), "{text}: {said}");
        before.echo("as before");
        let mut newcomer = server.open("/a");
        newcomer.echo("as before");
        drop(newcomer);
    }
    // A file that is gone.
    std::fs::remove_file(&server.file).unwrap();
    server.program.signal(Signal::HUP);
    server.program.read_line_with("cannot be read");
    server.program.read_line_with(REFUSED);
    before.echo("as before");
    server.reload(&good.replace("1KiB", "2B"), RELOADED);
    before.send_text("as after");
    assert_eq!(before.read_close(), Some(1009));
    drop(before);
    server.end();
}

/// What needs a restart is named, and does not stand in the way of what does not; but a route that
/// cannot be had without one is refused with all the rest.
#[test]
fn what_needs_a_restart_is_said() {
    let echo = |bytes: &str| {
        let size = format!("kind = \"echo\"\nmessage_bytes_max = \"{bytes}\"");
        route("/a", &size)
    };
    let mut server = Configured::start("restart", &echo("1KiB"));
    let mut client = server.open("/a");
    let text = format!("[hub]\nsubscriptions_max = 1000\n{}", echo("16B"));
    let said = server.reload(&text, "needs a restart");
    assert!(said.contains("[hub]"), "{said}");
    server.program.read_line_with(RELOADED);
    client.echo("sixteen at most!");

    let hooked = "kind = \"echo\"\non_open = \"https://backend.example/\"";
    let text = format!("{}{}", echo("1B"), route("/hooked", hooked));
    let said = server.reload(&text, "needs a restart");
    assert!(said.contains("hooks"), "{said}");
    server.program.read_line_with(REFUSED);
    client.echo("sixteen at most!");
    assert_eq!(server.ask(&request("/hooked")).0, 404);

    server.reload(&text.replace("/hooked", "/a/b"), REFUSED);
    client.echo("sixteen at most!");
    drop(client);
    server.end();
}

/// Two settings that change together are seen together, by whoever comes while they change.
#[test]
fn x21_a_handshake_is_judged_by_the_old_or_by_the_new() {
    let text = |name: &str, compression: bool| {
        let rest =
            format!("kind = \"echo\"\nsubprotocols = [\"{name}\"]\ncompression = {compression}");
        route("/a", &rest)
    };
    let (old, new) = (text("old", false), text("new", true));
    let mut server = Configured::start("handshakes", &old);
    let address = server.program.addresses[0];
    let is_over = Arc::new(AtomicBool::new(false));
    let ask = {
        let is_over = Arc::clone(&is_over);
        move || {
            let offers = "\r\nSec-WebSocket-Protocol: old, new\r\n\
                          Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
            let request = request("/a").replace("\r\n\r\n", offers);
            let (begin, end) = request.split_at(40);
            let mut seen = [0, 0];
            while !is_over.load(Ordering::Relaxed) {
                let mut client = Client::connect(address);
                client.send(begin.as_bytes());
                client.send(end.as_bytes());
                let head = client.read_head();
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                let is_new = head.contains("Sec-WebSocket-Protocol: new");
                assert_eq!(head.contains("permessage-deflate"), is_new, "{head}");
                client.echo("hello");
                seen[usize::from(is_new)] += 1;
                client.reset();
            }
            seen
        }
    };
    let askers: Vec<_> = (0..3).map(|_| thread::spawn(ask.clone())).collect();
    for round in 0..60 {
        server.reload([&new, &old][round % 2], RELOADED);
    }
    is_over.store(true, Ordering::Relaxed);
    let seen: Vec<[u32; 2]> = askers
        .into_iter()
        .map(|asker| asker.join().unwrap())
        .collect();
    let total = |which: usize| seen.iter().map(|seen| seen[which]).sum::<u32>();
    assert!(total(0) > 0 && total(1) > 0, "{seen:?}");
    server.end();
}

#[test]
fn x13_of_many_reloads_the_last_one_counts() {
    let text = |bytes: usize| {
        let size = format!("kind = \"echo\"\nmessage_bytes_max = \"{bytes}B\"");
        format!("{HEAD}{}", route("/a", &size))
    };
    let mut server = Configured::start("storm", "");
    for bytes in 1..=200 {
        // In one step: a file that is half written would be a bad one.
        let other = server.file.with_extension("new");
        std::fs::write(&other, text(bytes)).unwrap();
        std::fs::rename(&other, &server.file).unwrap();
        server.program.signal(Signal::HUP);
    }
    let is_last = || {
        let mut client = Client::connect(server.program.addresses[0]);
        client.send(request("/a").as_bytes());
        if !client.read_head().starts_with("HTTP/1.1 101 ") {
            return false;
        }
        client.send_frame(0x81, &[b'x'; 200]);
        client.read_frame().is_some_and(|frame| frame.opcode() == 1)
    };
    support::wait_until("the last configuration is in force", is_last);
    server.program.signal(Signal::TERM);
    server.program.read_line_with("all connections have ended");
    assert_eq!(server.program.wait().code(), Some(0));
}

/// A program that embeds the server, and an administrator who looks.
#[test]
fn the_monitor_knows_the_routes_and_the_limit_that_there_are_now() {
    let routes = vec![support::route("/one", On::default())];
    let old: Vec<Route> = routes.iter().map(|(route, _)| route.clone()).collect();
    let mut watched = Watched::start(support::settings(), routes);
    let handle = watched.running().handle.clone();
    let settings = Settings {
        admission: Policy {
            limits: limits::Policy {
                connections: limits::Cap::of(1234),
                ..support::settings().admission.limits
            },
            ..Policy::default()
        },
        http: http::head::Limits::default(),
        ..support::settings()
    };
    let added: Routes = vec![(Route::open("/two"), Arc::new(|_| Echo))];
    let reload = Reload {
        settings,
        routes: old,
        added,
    };
    // It has to be told of every route that there is.
    let short = Reload {
        routes: Vec::new(),
        ..reload.clone()
    };
    assert!(handle.reload(short).is_err());
    handle.reload(reload).unwrap();
    let mut client = Client::connect(watched.address);
    support::wait_until("the new route is served", || {
        client = Client::connect(watched.address);
        client.send(request("/two").as_bytes());
        client.read_head().starts_with("HTTP/1.1 101 ")
    });
    client.echo("hello");
    let page = watched.get_when(
        "/api/monitoring/websocket/connections/?route=/two",
        "the connection is shown under its route",
        |page| {
            page["connections"]
                .as_array()
                .is_some_and(|rows| !rows.is_empty())
        },
    );
    assert_eq!(page["connections"][0]["route"], "/two", "{page}");
    let health = watched.get_json("/healthz?verbose");
    assert_eq!(health["connections_max"], 1234, "{health}");
    drop(client);
}

#[test]
fn reloads_are_counted_by_result() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("reload-counted.toml");
    let good = HEAD.replace("listen = [] }", "listen = [\"127.0.0.1:0\"] }");
    std::fs::write(&file, &good).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(["--config", file.to_str().unwrap()])
        .env_clear();
    let mut program = Program::spawn(command);
    let line = program.read_line_with("monitoring");
    let admin = line
        .split_once("http://")
        .unwrap()
        .1
        .trim()
        .parse()
        .unwrap();
    for (text, said) in [
        (good.clone() + "nonsense = 1", REFUSED),
        (good, "says what it said"),
    ] {
        std::fs::write(&file, text).unwrap();
        program.signal(Signal::HUP);
        program.read_line_with(said);
    }
    support::wait_until("both are counted", || {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = support::watched::ask(admin, request);
        let counted = |result: &str| {
            let line = format!("tidegate_reloads_total{{result=\"{result}\"}} 1\n");
            answer.body.contains(&line)
        };
        counted("ok") && counted("failed")
    });
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(0));
}
