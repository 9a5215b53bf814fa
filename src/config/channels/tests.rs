//! The keys of channels and relays as an operator meets them: read, printed, and refused in one line.

use super::super::{Config, ConfigErrors, File, Flags, Host, Loaded, Sources};
use super::*;

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    Config::load(&Sources {
        flags: Flags::default(),
        // A printed configuration says where the API listens, which needs a key.
        environment: vec![("TIDEGATE_API_KEY".into(), "0123456789abcdef".repeat(2))],
        file: Some(File {
            path: "t.toml",
            text,
        }),
        host: Host {
            cores: 2,
            descriptors_max: Some(20_000),
        },
    })
}

const WHOLE: &str = r#"
[[route]]
path = "/ws/{room}/"
kind = "channels"
channels = ["room_{room}", "role_{claims.role?}"]
open_message = '{"type": "hello"}'
open_history = 10
announce = true
announce_fields = ["who={user}"]
unmatched = "close"

[[route.relay]]
when = "action = 'a'"
to = ["room_{room}"]
rename = ["action=type"]
stamp = ["user={user}", "name={claims.'https://example.com/name'}"]

[[route.relay]]
when = "claims.staff = true"
to = ["staff_{room}"]
wrap = "data"
echo = true
"#;

#[test]
fn a_whole_route_is_read_printed_and_read_again() {
    let loaded = load(WHOLE).unwrap();
    let channels = &loaded.config.routes[0].channels;
    assert_eq!(channels.channels.len(), 2);
    assert_eq!((channels.open_history, channels.announce), (10, true));
    assert_eq!(channels.unmatched, Unmatched::Close);
    assert_eq!(channels.relays.len(), 2);
    assert_eq!(channels.relays[0].stamp[1].name(), "name");
    assert!(!channels.relays[0].echo && channels.relays[1].echo);
    let printed = loaded.to_toml();
    assert_eq!(load(&printed).unwrap().config, loaded.config, "{printed}");
    let kept: Vec<String> = channels.claims().iter().map(ToString::to_string).collect();
    assert_eq!(kept, ["staff", "role", "\"https://example.com/name\""]);
}

#[test]
fn every_claim_that_a_channel_asks_for_is_kept_of_a_token() {
    let text = format!("token.secret = '0123456789abcdef0123456789ABCDEF'\n{WHOLE}");
    let issuers = load(&text).unwrap().config.issuers();
    let kept = &issuers[0].policy.kept;
    for name in ["role", "staff", "https://example.com/name"] {
        assert!(kept.contains(&ClaimPath::top_level(name)), "{name}");
    }
}

#[test]
fn x20_faults_of_channels_name_the_line_to_change() {
    let route =
        |path: &str, keys: &str| format!("[[route]]\npath = '{path}'\nkind = 'channels'\n{keys}\n");
    let mut found = Vec::new();
    for (text, expected) in [
        (
            route("/a", "channels = ['n_{user}', '{user}']"),
            "t.toml:4:25: route.channels: column 1: begin with a text of its own, such as room_{room}, \
             or a value could name any channel\n  {user}\n  ^",
        ),
        (
            route("/a", "channels = ['n_{room}']"),
            "t.toml:4:12: route.channels: {room} is not in the path /a",
        ),
        (
            route("/{user}", "channels = ['n_{user}']"),
            "t.toml:2:8: route.path: {user} in a channel's name is what the server knows, not what stands \
             in the path; call the capture something else",
        ),
        (
            route("/a", "token = 'none'\nchannels = ['n_{user}']"),
            "t.toml:5:12: route.channels: without a token nobody is known; write token = \"required\", or \
             a ? behind the name",
        ),
        (
            route("/a", "channels = ['a', 'b']\n[[route.relay]]\nwhen = 'any'"),
            "t.toml:5:1: route.relay: the route has not one channel, so the relay has to say which: write \
             to = [\"…\"]",
        ),
        (
            route("/a", "announce = true"),
            "t.toml:4:12: route.announce: there is no channel to announce in; write channels, or leave \
             this out",
        ),
        (
            route(
                "/{a}",
                "channels = ['c']\nannounce_fields = ['x={time} {a}']",
            ),
            "t.toml:5:19: route.announce_fields: beside {time} only {user} and {connection} are known; \
             write a field of its own for what else is in x",
        ),
        (
            route("/a", "open_message = 'hello'"),
            "t.toml:4:16: route.open_message = \"hello\": this is not JSON; accepted: JSON of up to 16 KiB, \
             or \"\" for none",
        ),
        (
            route("/a", "channels = ['c']\n[[route.relay]]\nto = ['c']"),
            "t.toml:5:1: route.relay.when is missing; write when = \"action in ['cursor_update']\"",
        ),
        (
            route(
                "/a",
                "channels = ['c']\n[[route.relay]]\nwhen = 'any'\nstamps = []",
            ),
            "t.toml:7:10: unknown key route.relay.stamps; the nearest known one is route.relay.stamp",
        ),
        (
            route(
                "/a",
                "channels = ['c']\n[[route.relay]]\nwhen = 'any'\nstamp = ['user']",
            ),
            "t.toml:7:10: route.relay.stamp = \"user\": write the field's name, =, and its value; accepted: \
             \"FIELD=VALUE\", the value with {user}, {claims.NAME}, {time}, {connection} or a capture",
        ),
        (
            "[[route]]\npath = '/a'\nkind = 'echo'\nchannels = ['c']\n".to_owned(),
            "t.toml:3:8: route.kind: channels, relays and announcements are for kind = \"channels\"; write \
             that, or leave them out",
        ),
    ] {
        let errors = load(&text).unwrap_err().to_string();
        if errors.trim_end() != expected {
            found.push((text, errors));
        }
    }
    assert_eq!(found, []);
}

#[test]
fn what_is_sent_first_has_a_limit() {
    for (count, is_good) in [(0, true), (999, true), (1_000, true), (1_001, false)] {
        let text = format!("[[route]]\npath = '/a'\nkind = 'channels'\nopen_history = {count}\n");
        assert_eq!(load(&text).is_ok(), is_good, "{count}");
    }

    for (length, is_good) in [(16_383, true), (16_384, true), (16_385, false)] {
        let json = format!("\"{}\"", "x".repeat(length - 2));
        let text = format!("[[route]]\npath = '/a'\nkind = 'channels'\nopen_message = '{json}'\n");
        assert_eq!(load(&text).is_ok(), is_good, "{length}");
    }
}
