//! Templates against tables, and against an oracle that splits and compares.

use proptest::prelude::*;

use super::*;

const UUID: &str = "6f1c9ad0-c4b8-4f0f-9a2e-4d6a1b2c3d4e";

fn template(text: &str) -> Template {
    Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The captures as text, or `None` if the path does not match.
fn captured(text: &str, path: &str) -> Option<Vec<(String, String)>> {
    let template = template(text);
    let captures = template.matches(path)?;
    for (name, value) in captures.iter() {
        assert_eq!(captures.get(name), Some(value));
    }
    assert_eq!(captures.get("no such name"), None);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Some(captures.iter().map(owned).collect())
}

#[test]
fn paths_match_and_are_taken_apart() {
    type Pairs<'a> = Option<&'a [(&'a str, &'a str)]>;
    let cases: &[(&str, &str, Pairs<'_>)] = &[
        ("/", "/", Some(&[])),
        ("/", "", None),
        ("/", "/a", None),
        ("/a", "/a", Some(&[])),
        (
            "/a.b~c-d_e/@f+g=h,i/v1:j",
            "/a.b~c-d_e/@f+g=h,i/v1:j",
            Some(&[]),
        ),
        ("/ws/notifications/", "/ws/notifications/", Some(&[])),
        // The slash at the end is significant.
        ("/ws/notifications/", "/ws/notifications", None),
        ("/ws/notifications", "/ws/notifications/", None),
        ("/ws/{room}/", "/ws/r", None),
        ("/ws/{room}", "/ws/r/", None),
        // Byte for byte: case counts, and an escape is another spelling.
        ("/ws/admin", "/WS/admin", None),
        ("/ws/admin", "/ws/%61dmin", None),
        ("/ws/@a", "/ws/%40a", None),
        ("/{a}/x", "/v/X", None),
        (
            "/ws/projects/{project_id}/",
            "/ws/projects/42/",
            Some(&[("project_id", "42")]),
        ),
        ("/ws/projects/{project_id}/", "/ws/projects//", None),
        ("/ws/projects/{project_id}/", "/ws/projects/", None),
        ("/ws/projects/{project_id}/", "/ws/projects/4/2/", None),
        ("/ws/projects/{project_id}/", "/ws/project/42/", None),
        (
            "/{a}/{b}/{c}",
            "/x/y/z",
            Some(&[("a", "x"), ("b", "y"), ("c", "z")]),
        ),
        ("/{a}/{b}/{c}", "/x/y", None),
        ("/{a}/{b}/{c}", "/x/y/z/", None),
        ("/{a}/lit/{b}", "/x/lit/y", Some(&[("a", "x"), ("b", "y")])),
        ("/{a}/lit/{b}", "/x/literal/y", None),
        ("/{a}/lit/{b}", "/x/li/y", None),
        ("/{a:word}", "/x", Some(&[("a", "x")])),
        ("/{n:int}", "/7", Some(&[("n", "7")])),
        (
            "/{n:int}/{u:uuid}",
            &format!("/7/{UUID}"),
            Some(&[("n", "7"), ("u", UUID)]),
        ),
    ];
    for (text, path, expected) in cases {
        let expected = expected.map(|pairs| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect::<Vec<_>>()
        });
        assert_eq!(captured(text, path), expected, "{text} for {path}");
    }
}

#[test]
fn g2_captures_take_their_grammar_and_nothing_else() {
    let (w64, w65) = ("w".repeat(64), "w".repeat(65));
    let (d19, d20) = ("9".repeat(19), "9".repeat(20));
    let upper = UUID.to_uppercase();
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "/p/{v}",
            &["a", "A-z_0", "-", "_", "007", UUID, &w64],
            &[
                "", &w65, ".", "..", "a.b", "a b", "a%20b", "%61", "a%2Fb", "a:b", "a@b", "é",
                "a\0", "a\n", "*", "a,b", "a;b", "a?b", "a#b", "a\\b", "{v}", "#a", "$a", "a|b",
            ],
        ),
        (
            "/p/{v:int}",
            &["0", "7", "10", &d19],
            &[
                "", &d20, "00", "007", "-1", "+1", "1.0", "1e3", "0x1", "1_000", " 1", "1 ", "a1",
                "1a", "%31", "١", "-0",
            ],
        ),
        (
            "/p/{v:uuid}",
            &[UUID, "00000000-0000-0000-0000-000000000000"],
            &[
                "",
                &upper,
                &UUID[..35],
                &UUID.replace('-', ""),
                &UUID.replace('-', "_"),
                &format!("{UUID}0"),
                &format!("{{{UUID}}}"),
                &format!("urn:uuid:{UUID}"),
                "6f1c9ad0-c4b8-4f0f-9a2e-4d6a1b2c3d4g",
                "6f1c9ad0c-4b8-4f0f-9a2e-4d6a1b2c3d4e",
                "6f1c9ad0-c4b8-4f0f-9a2e-4d6a1b2c3dé",
            ],
        ),
    ];
    for (text, taken, refused) in cases {
        for behind in ["", "/", "/more"] {
            let text = format!("{text}{behind}");
            for value in *taken {
                let pairs = captured(&text, &format!("/p/{value}{behind}"));
                assert_eq!(
                    pairs,
                    Some(vec![("v".to_owned(), (*value).to_owned())]),
                    "{text}"
                );
            }
            for value in *refused {
                assert_eq!(
                    captured(&text, &format!("/p/{value}{behind}")),
                    None,
                    "{text}: {value}"
                );
            }
        }
    }
}

#[test]
fn faults_are_told_with_their_place() {
    let nine: String = (0..9).map(|n| format!("/{{c{n}}}")).collect();
    let long_name = format!("/{{{}}}", "n".repeat(33));
    let long = format!("/{}", "a".repeat(512));
    let cases = [
        ("", 1, "begins with `/`"),
        ("ws", 1, "begins with `/`"),
        ("wss://a/b", 1, "begins with `/`"),
        ("//", 2, "empty segment"),
        ("//a", 2, "empty segment"),
        ("/a//b", 4, "empty segment"),
        ("/a//", 4, "empty segment"),
        ("/a/./b", 4, "dot segment"),
        ("/a/..", 4, "dot segment"),
        ("/a/x{b}", 5, "whole segment"),
        ("/a/{b}x", 7, "whole segment"),
        ("/a/{b}{c}", 7, "whole segment"),
        ("/a/b}", 5, "whole segment"),
        ("/a/{b", 4, "not closed"),
        ("/a/{b/c}", 4, "not closed"),
        ("/a/{}", 5, "begins with a letter"),
        ("/a/{:int}", 5, "begins with a letter"),
        ("/a/{1b}", 5, "begins with a letter"),
        ("/a/{é}", 5, "begins with a letter"),
        ("/é/{b}", 2, "no place in a path"),
        ("/a/{b c}", 6, "letters, digits"),
        ("/a/{{b}}", 8, "whole segment"),
        ("/a/{b:}", 7, "`word`, `int` or `uuid`"),
        ("/a/{b:Int}", 7, "`word`, `int` or `uuid`"),
        ("/a/{b:int:x}", 7, "`word`, `int` or `uuid`"),
        ("/{a}/{b}/{a:int}", 11, "taken"),
        (&nine, 42, "more than 8"),
        (&long_name, 3, "longer than 32"),
        (&long, 513, "longer than 512"),
        ("/a/:id/b", 4, "`{name}`"),
        ("/a/<int:id>", 4, "`{name:int}`"),
        ("/a/*", 4, "wildcards"),
        ("/a/%20", 4, "percent"),
        ("/a?token", 3, "query"),
        ("/a#b", 3, "query"),
        ("/a/b;c", 5, "no place"),
        ("/a b", 3, "no place"),
        ("/a\\b", 3, "no place"),
        ("/a\n", 3, "no place"),
    ];
    for (text, column, message) in cases {
        let error = Template::parse(text).expect_err(text);
        assert_eq!(error.column(), column, "{text}: {error}");
        assert!(error.message().contains(message), "{text}: {error}");
    }
    assert!(Template::parse(&nine[..nine.len() - 5]).is_ok());
    assert!(Template::parse(&long[..512]).is_ok());
}

#[test]
fn a_caret_stands_under_the_spot() {
    let error = Template::parse("/ws/<int:id>/").unwrap_err();
    assert_eq!(
        error.to_string(),
        "column 5: write a capture as `{name}` or `{name:int}`\n  /ws/<int:id>/\n      ^"
    );
    let long = format!("/{}/{{x y}}", "a".repeat(300));
    for text in [&*long, "/a\n\t", "/ü", "", "/a/{b"] {
        let error = Template::parse(text).unwrap_err();
        let printed = error.to_string();
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines.len(), 3, "{printed}");
        let caret = lines[2].chars().count() - 1;
        assert!(lines[2].ends_with('^') && caret < 100);
        let under = text.chars().nth(error.column() - 1);
        let shown = lines[1].chars().nth(caret);
        assert_eq!(
            shown,
            under.map(|c| if c.is_control() { ' ' } else { c }),
            "{printed}"
        );
    }
}

#[test]
fn what_was_written_can_be_read_back() {
    for text in [
        "/",
        "/ws/projects/{project_id}/",
        "/{a:int}/{b:uuid}/{c:word}",
    ] {
        let template: Template = text.parse().unwrap();
        assert_eq!((template.as_str(), &*template.to_string()), (text, text));
    }
    let template = template("/{a:int}/x/{b}/");
    assert_eq!(template.names().collect::<Vec<_>>(), ["a", "b"]);
    let captures = template.matches("/1/x/y/").unwrap();
    assert_eq!(format!("{captures:?}"), r#"{"a": "1", "b": "y"}"#);
}

#[test]
fn the_more_specific_template_serves_whatever_the_order() {
    let uuid = format!("/ws/{UUID}/");
    let templates = [
        "/ws/{any}/",
        "/ws/{id:int}/",
        "/ws/{id:uuid}/",
        "/ws/42/",
        "/ws/lobby/",
        "/{app}/lobby/",
        "/{app}/{room}",
    ];
    let cases = [
        ("/ws/42/", Some("/ws/42/")),
        ("/ws/43/", Some("/ws/{id:int}/")),
        ("/ws/043/", Some("/ws/{any}/")),
        (&uuid, Some("/ws/{id:uuid}/")),
        ("/ws/lobby/", Some("/ws/lobby/")),
        ("/ws/hall/", Some("/ws/{any}/")),
        ("/x/lobby/", Some("/{app}/lobby/")),
        ("/x/hall/", None),
        ("/ws/lobby", Some("/{app}/{room}")),
        ("/", None),
    ];
    for rotation in 0..templates.len() {
        let mut templates = templates;
        templates.rotate_left(rotation);
        let parsed: Vec<_> = templates.iter().map(|text| template(text)).collect();
        for (path, expected) in cases {
            let found = find(parsed.iter().enumerate(), path).map(|(index, _)| templates[index]);
            assert_eq!(found, expected, "{path}, rotated by {rotation}");
        }
    }
    // The first segment that differs decides.
    let parsed = ["/{y}/b", "/a/{x}"].map(template);
    let (index, captures) = find(parsed.iter().enumerate(), "/a/b").unwrap();
    assert_eq!((index, captures.get("x")), (1, Some("b")));
}

#[test]
fn overlaps_are_what_no_reader_could_tell() {
    let cases = [
        ("/a", "/a", true),
        ("/a", "/b", false),
        ("/a", "/a/", false),
        ("/{x}", "/{y}", true),
        ("/{x}", "/a", false),
        ("/{x:int}", "/{y}", false),
        ("/{x:uuid}", "/{y}", false),
        ("/{x:int}", "/{y:int}", true),
        ("/{x:int}", "/{y:uuid}", false),
        ("/{x:int}", "/7", false),
        ("/{x:int}", "/a", false),
        ("/{x}", "/a.b", false),
        ("/a/{x}", "/{y}/b", true),
        ("/a/{x}", "/b/{y}", false),
        ("/a/{x:int}", "/{y}/b", false),
        ("/a/{x:int}", "/{y}/7", true),
        ("/{x:int}/{y}", "/{x}/{y:int}", true),
        ("/{x:int}/{y:int}", "/{x}/{y}", false),
        ("/{x}/", "/{x}", false),
    ];
    for (one, other, expected) in cases {
        let (a, b) = (template(one), template(other));
        assert_eq!(
            (a.overlaps(&b), b.overlaps(&a)),
            (expected, expected),
            "{one} and {other}"
        );
    }
}

/// Segments of every kind: literals, some of which a capture takes too, and captures.
fn segments() -> impl Strategy<Value = Vec<&'static str>> {
    let segment = prop::sample::select(vec!["a", "7", "a.b", UUID, "{}", "{:int}", "{:uuid}"]);
    (prop::collection::vec(segment, 0..3), any::<bool>()).prop_map(|(mut segments, is_open)| {
        if is_open || segments.is_empty() {
            segments.push("");
        }
        segments
    })
}

/// The template of these segments, with a name for each capture.
fn join(segments: &[&str]) -> Template {
    let named = segments.iter().enumerate().map(|(at, segment)| {
        segment
            .strip_prefix('{')
            .map_or_else(|| format!("/{segment}"), |kind| format!("/{{c{at}{kind}"))
    });
    template(&named.collect::<String>())
}

/// Values of segments, enough of them to tell any two kinds apart.
const VALUES: &[&str] = &[
    "a",
    "b",
    "7",
    "8",
    "a.b",
    "07",
    "",
    UUID,
    "00000000-0000-0000-0000-000000000000",
];

fn naive_takes(segment: &str, value: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match segment {
        "{}" => !value.is_empty() && value.len() <= 64 && value.chars().all(is_word),
        "{:int}" => value
            .parse::<u64>()
            .is_ok_and(|n| n.to_string() == value && value.len() <= 19),
        "{:uuid}" => {
            let digits = value.replace('-', "");
            u128::from_str_radix(&digits, 16).is_ok_and(|number| {
                let plain = format!("{number:032x}");
                let parts = [
                    &plain[..8],
                    &plain[8..12],
                    &plain[12..16],
                    &plain[16..20],
                    &plain[20..],
                ];
                parts.join("-") == value
            })
        }
        literal => literal == value,
    }
}

fn naive_matches(segments: &[&str], path: &str) -> bool {
    let values: Vec<_> = path.split('/').skip(1).collect();
    path.starts_with('/')
        && segments.len() == values.len()
        && segments
            .iter()
            .zip(values)
            .all(|(segment, value)| naive_takes(segment, value))
}

/// All paths of `count` segments out of [`VALUES`].
fn paths(count: usize) -> Vec<String> {
    (0..count).fold(vec![String::new()], |paths, _| {
        paths
            .iter()
            .flat_map(|path| VALUES.iter().map(move |value| format!("{path}/{value}")))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any text against any template: the same answer as splitting and comparing, the captures in their
    /// segments, and put back into the template they give the path again.
    #[test]
    fn g2_matching_agrees_with_a_naive_matcher(
        segments in segments(),
        path in prop_oneof![
            prop::collection::vec(prop::sample::select(VALUES), 0..5)
                .prop_map(|values| values.iter().map(|value| format!("/{value}")).collect()),
            "(/[a7.%-]{0,3}){0,4}",
            "\\PC{0,20}",
        ],
    ) {
        let template = join(&segments);
        let found = template.matches(&path);
        prop_assert_eq!(found.is_some(), naive_matches(&segments, &path), "{} for {}", template, path);
        if let Some(captures) = found {
            prop_assert_eq!(captures.iter().len(), template.names().len());
            let mut written = template.as_str().to_owned();
            for (name, value) in captures.iter() {
                let begin = written.find(&format!("{{{name}")).unwrap();
                let end = begin + written[begin..].find('}').unwrap();
                written.replace_range(begin..=end, value);
                let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                prop_assert!(!value.is_empty() && value.chars().all(is_safe));
            }
            prop_assert_eq!(written, path);
        }
    }

    /// Sets of paths say the same as `overlaps`: they meet, and neither lies within the other.
    #[test]
    fn overlaps_agrees_with_sets_of_paths(one in segments(), other in segments()) {
        let (mut both, mut only_one, mut only_other) = (false, false, false);
        if one.len() == other.len() {
            for path in paths(one.len()) {
                match (naive_matches(&one, &path), naive_matches(&other, &path)) {
                    (true, true) => both = true,
                    (true, false) => only_one = true,
                    (false, true) => only_other = true,
                    (false, false) => {}
                }
            }
        }
        prop_assert_eq!(join(&one).overlaps(&join(&other)), both && only_one == only_other);
    }

    /// What is found matches; nothing that matches goes before it; and where no two overlap, every
    /// order of the templates gives the same one, which is for fewer paths than each other that matches.
    #[test]
    fn g2_find_agrees_with_trying_all(
        (routes, shuffled) in prop::collection::vec(segments(), 0..8)
            .prop_flat_map(|routes| (Just(routes.clone()), Just(routes).prop_shuffle())),
        values in prop::collection::vec(prop::sample::select(VALUES), 1..5),
    ) {
        let path: String = values.iter().map(|value| format!("/{value}")).collect();
        let ranks = |segments: &Vec<&str>| -> Vec<u8> {
            segments.iter().map(|segment| match *segment {
                "{}" => 2,
                "{:int}" | "{:uuid}" => 1,
                _ => 0,
            }).collect()
        };
        let best = routes.iter().filter(|route| naive_matches(route, &path)).min_by_key(|route| ranks(route));
        for order in [&routes, &shuffled] {
            let templates: Vec<_> = order.iter().map(|segments| join(segments)).collect();
            let found = find(templates.iter().enumerate(), &path);
            prop_assert_eq!(found.map(|(index, _)| ranks(&order[index])), best.map(ranks));
            let Some((index, captures)) = found else { continue };
            prop_assert_eq!(templates[index].matches(&path), Some(captures));
            let is_clear = |one: &Template| templates.iter().filter(|other| one.overlaps(other)).count() == 1;
            if templates.iter().all(is_clear) {
                prop_assert_eq!(Some(&order[index]), best);
                for route in order.iter().filter(|route| naive_matches(route, &path)) {
                    for path in paths(route.len()) {
                        prop_assert!(
                            !naive_matches(&order[index], &path) || naive_matches(route, &path)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn parsing_any_text_is_total(text in "(/|[{}:a-z0-9%.*]|\\PC){0,30}") {
        match Template::parse(&text) {
            Ok(template) => prop_assert_eq!(template.to_string(), text),
            Err(error) => {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.column()));
                prop_assert_eq!(error.to_string().lines().count(), 3);
            }
        }
    }
}
