//! The language, its errors, and that evaluation agrees with a plain one.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn text(text: &str) -> ClaimValue {
    ClaimValue::One(Scalar::Text(text.into()))
}

fn list(values: &[&str]) -> ClaimValue {
    ClaimValue::Many(
        values
            .iter()
            .map(|&value| Scalar::Text(value.into()))
            .collect(),
    )
}

/// Claims as a token would give them: everything the rule asks for is kept.
fn claims_for(rule: &Rule, have: &[(&str, ClaimValue)]) -> Claims {
    let paths: Arc<[ClaimPath]> = rule.claims().into_iter().cloned().collect();
    Claims::new(&paths, |path| {
        let mut have = have.iter();
        have.find(|(name, _)| *name == path.to_string())
            .map(|(_, value)| value.clone())
    })
}

fn allows(rule: &str, have: &[(&str, ClaimValue)], parameters: &[(&str, &str)]) -> bool {
    let rule = Rule::parse(rule).unwrap_or_else(|error| panic!("{error}"));
    let parameter = |name: &str| {
        let mut parameters = parameters.iter();
        parameters
            .find(|(own, _)| *own == name)
            .map(|(_, value)| *value)
    };
    rule.allows(&claims_for(&rule, have), &parameter)
}

#[test]
fn forms_mean_what_they_say() {
    let integer = |number| ClaimValue::One(Scalar::Integer(number));
    let have = [
        ("role", text("Admin")),
        ("level", integer(3)),
        ("staff", ClaimValue::One(Scalar::Bool(true))),
        (
            "projects",
            ClaimValue::Many(Box::new([Scalar::Integer(42), Scalar::Text("x7".into())])),
        ),
        ("realm_access.roles", list(&["user", "editor"])),
        ("\"https://example.com/groups\"", list(&["blue"])),
        ("scope", text("read ws:connect")),
        ("name", text("Jane admin")),
        ("quote", text("it's")),
        ("empty", list(&[])),
        ("\"any\"", text("x")),
    ];
    let parameters = [
        ("project_id", "42"),
        ("room", "x7"),
        ("padded", "042"),
        ("word", "read"),
    ];
    for (rule, expected) in [
        ("any", true),
        ("not any", false),
        (r#"role = "Admin""#, true),
        ("role = 'Admin'", true),
        (r#"role = "admin""#, false),
        (r#"role = "Admin ""#, false),
        (r#"quote = "it's""#, true),
        ("level = 3", true),
        ("level = -3", false),
        // A text and a number differ.
        (r#"level = "3""#, false),
        ("staff = true", true),
        ("staff = false", false),
        (r#"staff = "true""#, false),
        (r#"role in ["User", "Admin"]"#, true),
        (r#"role in ["User"]"#, false),
        ("level in [1, 2, 3]", true),
        // A list is not a single value, and a single value is not a list.
        (r#"realm_access.roles = "editor""#, false),
        (r#"realm_access.roles in ["editor"]"#, false),
        (r#"role contains "Admin""#, false),
        (r#"realm_access.roles contains "editor""#, true),
        (r#"realm_access.roles contains "edit""#, false),
        (r#""https://example.com/groups" contains "blue""#, true),
        (r#"empty contains "x""#, false),
        (r#"empty contains """#, false),
        // Parameters are text and equal the number they spell.
        ("projects contains {project_id}", true),
        ("projects contains {room}", true),
        ("projects contains {padded}", false),
        ("projects contains {missing}", false),
        ("projects contains 42", true),
        ("level = {project_id}", false),
        // The words of a scope, and of nothing else.
        (r#"scope contains "ws:connect""#, true),
        (r#"scope contains "ws""#, false),
        ("scope contains {word}", true),
        ("scope contains 3", false),
        (r#"name contains "admin""#, false),
        // What is missing is false, and `not` makes it true.
        (r#"missing = "x""#, false),
        (r#"missing in ["x"]"#, false),
        (r#"missing contains "x""#, false),
        (r#"not missing = "x""#, true),
        (r#"role.name = "Admin""#, false),
        // Precedence: not, and, or.
        ("any or any and not any", true),
        ("(any or any) and not any", false),
        ("not any or any", true),
        ("not (any or any)", false),
        ("not not any", true),
        (r#"role = "x" or role = "y" or role = "Admin""#, true),
        (r#"role = "Admin" and level = 3 and staff = false"#, false),
        ("\n any\tor\r\n any ", true),
        // Words of the language can be claims, in quotes.
        (r#""any" = "x""#, true),
        (r#"anybody = "x""#, false),
    ] {
        assert_eq!(allows(rule, &have, &parameters), expected, "{rule}");
    }
}

#[test]
fn the_original_routes_are_expressible() {
    let health = r#"role in ["Admin", "DepartmentAdmin"]"#;
    let project = r#"role in ["Admin", "DepartmentAdmin"]
        or projects contains {project_id}
        or advises contains {project_id}"#;
    let member = [("role", text("Student")), ("projects", list(&["7"]))];
    let advisor = [("advises", ClaimValue::Many(Box::new([Scalar::Integer(7)])))];
    let admin = [("role", text("DepartmentAdmin"))];
    for (rule, have, project_id, expected) in [
        (health, &admin[..], "7", true),
        (health, &member, "7", false),
        (health, &[], "7", false),
        (project, &member, "7", true),
        (project, &member, "8", false),
        (project, &advisor, "7", true),
        (project, &advisor, "70", false),
        (project, &admin, "8", true),
        (project, &[], "7", false),
    ] {
        assert_eq!(
            allows(rule, have, &[("project_id", project_id)]),
            expected,
            "{rule} {have:?}"
        );
    }
}

#[test]
fn claims_and_parameters_are_listed() {
    let rule =
        Rule::parse(r#"not a = {p} and (b.c in [{q}, "x", {p}] or "d e" contains {r}) or any"#)
            .unwrap();
    let claims: Vec<_> = rule.claims().iter().map(ToString::to_string).collect();
    assert_eq!(claims, ["a", "b.c", "\"d e\""]);
    assert_eq!(rule.parameters(), ["p", "q", "p", "r"]);
}

#[test]
fn faults_have_a_place() {
    for (rule, line, column, message) in [
        ("", 1, 1, "expected a claim, `any`, `not` or `(`"),
        ("  ", 1, 3, "expected a claim, `any`, `not` or `(`"),
        (
            "role",
            1,
            5,
            "expected `=`, `in` or `contains` after the claim",
        ),
        (
            "role is 'x'",
            1,
            6,
            "expected `=`, `in` or `contains` after the claim",
        ),
        ("role = Admin", 1, 8, "a text stands in quotes"),
        ("role == 'x'", 1, 7, "write a single ="),
        (
            "role = ",
            1,
            8,
            "expected a value: \"text\", 42, true, false or {parameter}",
        ),
        ("role = 'x", 1, 8, "this quote is not closed"),
        ("role = 'x\n'", 1, 8, "this quote is not closed"),
        ("role = {id", 1, 8, "this brace is not closed"),
        (
            "role = {}",
            1,
            8,
            "expected the name of a path parameter between { and }",
        ),
        (
            "role = {a b}",
            1,
            8,
            "expected the name of a path parameter between { and }",
        ),
        ("role != 'x'", 1, 6, "write `not` in front of the test"),
        ("any && any", 1, 5, "write `and` or `or`"),
        (
            "any any",
            1,
            5,
            "expected `and`, `or` or the end of the rule",
        ),
        ("any)", 1, 4, "this closes nothing"),
        ("(any", 1, 5, "expected `)`"),
        (
            "any or\n  or any",
            2,
            3,
            "a word of the language; a claim of this name stands in quotes",
        ),
        ("not", 1, 4, "expected a claim, `any`, `not` or `(`"),
        ("role in 'x'", 1, 9, "expected `[` and a list of values"),
        (
            "role in []",
            1,
            10,
            "expected a value: \"text\", 42, true, false or {parameter}",
        ),
        ("role in ['x' 'y']", 1, 14, "expected `,` or `]`"),
        (
            "role in ['x',]",
            1,
            14,
            "expected a value: \"text\", 42, true, false or {parameter}",
        ),
        (
            "n = 9223372036854775808",
            1,
            5,
            "not a 64-bit integer without leading zeros",
        ),
        (
            "n = 1.5",
            1,
            5,
            "not a 64-bit integer without leading zeros",
        ),
        (
            "n = 007",
            1,
            5,
            "not a 64-bit integer without leading zeros",
        ),
        ("n = -", 1, 5, "not a 64-bit integer without leading zeros"),
        ("a. = 1", 1, 4, "expected the name of a claim"),
        ("'' = 1", 1, 1, "expected the name of a claim"),
        (
            "rôle = 1",
            1,
            2,
            "this character has no meaning outside of quotes",
        ),
        ("é", 1, 1, "this character has no meaning outside of quotes"),
        (
            "'é' = é",
            1,
            7,
            "this character has no meaning outside of quotes",
        ),
    ] {
        let error = Rule::parse(rule).expect_err(rule);
        let found = (error.line(), error.column(), error.message());
        assert_eq!(found, (line, column, message), "{rule:?}");
    }
}

#[test]
fn a_caret_stands_under_the_spot() {
    let error = Rule::parse("any or\n\t(role is 'x')").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2, column 8: expected `=`, `in` or `contains` after the claim\n  \
         \t(role is 'x')\n  \t      ^"
    );
    let end = Rule::parse("role in [1").unwrap_err().to_string();
    assert!(end.ends_with("\n  role in [1\n            ^"), "{end}");
    // Far to the right, a window of the line is shown.
    let long = format!("{}role is 'x'", "any or ".repeat(100));
    let printed = Rule::parse(&long).unwrap_err().to_string();
    let lines: Vec<_> = printed.lines().collect();
    let caret = lines[2].find('^').unwrap();
    assert!(
        lines[1][caret..].starts_with("is 'x'") && caret < 100,
        "{printed}"
    );
}

#[test]
fn size_and_depth_are_bounded() {
    let depth = Rule::DEPTH_MAX;
    let nested = |depth| format!("{}any{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Rule::parse(&nested(depth)).is_ok());
    let error = Rule::parse(&nested(depth + 1)).unwrap_err();
    assert_eq!(error.message(), "nested more than 16 deep");
    assert!(Rule::parse(&format!("{}any", "not ".repeat(depth))).is_ok());
    assert!(Rule::parse(&format!("{}any", "not ".repeat(depth + 1))).is_err());
    assert!(Rule::parse(&"(".repeat(Rule::BYTES_MAX)).is_err());

    let wide = format!("any{}", " or any".repeat((Rule::BYTES_MAX - 3) / 7));
    assert!(Rule::parse(&wide).is_ok());
    let error = Rule::parse(&format!("{wide}{}", " ".repeat(8))).unwrap_err();
    assert_eq!(error.message(), "the rule is longer than 4 KiB");
}

/// A rule, and what it says of a set of claims that all are one text.
fn rule_and_oracle() -> impl Strategy<Value = (String, bool)> {
    // Claim `a` is "1", claim `b` is the list of "1", claim `c` is missing.
    let leaf = prop_oneof![
        Just(("any".to_owned(), true)),
        (0..3_u8).prop_map(|n| (format!("a = \"{n}\""), n == 1)),
        (0..3_u8).prop_map(|n| (format!("a in [0, '{n}']"), n == 1)),
        (0..3_u8).prop_map(|n| (format!("b contains '{n}'"), n == 1)),
        (0..3_u8).prop_map(|n| (format!("c = '{n}'"), false)),
        Just(("a = {p}".to_owned(), true)),
        Just(("b contains {q}".to_owned(), false)),
    ];
    leaf.prop_recursive(6, 24, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|(rule, is)| (format!("not ({rule})"), !is)),
            (inner.clone(), inner.clone())
                .prop_map(|(r, s)| (format!("({} and {})", r.0, s.0), r.1 && s.1)),
            (inner.clone(), inner.clone())
                .prop_map(|(r, s)| (format!("({} or {})", r.0, s.0), r.1 || s.1)),
        ]
    })
}

proptest! {
    #[test]
    fn evaluation_agrees_with_a_plain_one((rule, expected) in rule_and_oracle()) {
        let have = [("a", text("1")), ("b", list(&["1"]))];
        prop_assert_eq!(allows(&rule, &have, &[("p", "1"), ("q", "2")]), expected);
    }

    /// Whatever the text, it parses or has a fault within it, and neither panics.
    #[test]
    fn any_text_parses_or_has_a_fault(rule in "[a-z(){}\\[\\]=.,'\" \n\t0-9é!-]{0,60}") {
        match Rule::parse(&rule) {
            Ok(parsed) => {
                let _ = parsed.allows(&Claims::default(), &|_| None);
            }
            Err(error) => {
                let line = rule.split('\n').nth(error.line() - 1).unwrap();
                prop_assert!(error.column() <= line.chars().count() + 1);
                prop_assert!(error.to_string().ends_with('^'));
            }
        }
    }

    #[test]
    fn any_words_parse_or_have_a_fault(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "any", "not", "and", "or", "in", "contains", "=", "(", ")", "[", "]", ",", "'x'",
                "{p}", "42", "role", ".", "true",
            ]),
            0..16,
        ),
    ) {
        if let Err(error) = Rule::parse(&words.join(" ")) {
            prop_assert_eq!(error.line(), 1);
        }
    }
}
