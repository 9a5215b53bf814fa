//! Templates filled: what each hole takes, whose a name is, and the caps at −1, 0 and +1.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::admission::claim::ClaimPath;

use super::*;

/// Somebody of whom this is known.
#[derive(Default)]
pub(in crate::routes) struct Somebody {
    pub(in crate::routes) user: Option<String>,
    pub(in crate::routes) claims: BTreeMap<String, ClaimValue>,
    pub(in crate::routes) captures: BTreeMap<String, String>,
}

impl Facts for Somebody {
    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn claim(&self, path: &ClaimPath) -> Option<&ClaimValue> {
        self.claims.get(&path.to_string())
    }

    fn capture(&self, name: &str) -> Option<&str> {
        self.captures.get(name).map(String::as_str)
    }
}

fn text(text: &str) -> Scalar {
    Scalar::Text(text.into())
}

fn somebody(user: &str) -> Somebody {
    Somebody {
        user: Some(user.into()),
        claims: [
            ("role", ClaimValue::One(text("Admin"))),
            ("level", ClaimValue::One(Scalar::Integer(-3))),
            ("staff", ClaimValue::One(Scalar::Bool(true))),
            ("odd", ClaimValue::One(text("a b"))),
            ("none", ClaimValue::Many([].into())),
            (
                "groups",
                ClaimValue::Many([text("x"), Scalar::Integer(7), text("x")].into()),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        captures: [("room".to_owned(), "r1".to_owned())].into(),
    }
}

fn templates(texts: &[&str]) -> ChannelTemplates {
    let own: Vec<_> = (texts.iter())
        .map(|text| ChannelTemplate::parse(text).unwrap())
        .collect();
    let names = Arc::new(Names::new(&own));
    ChannelTemplates::new(own, names)
}

fn names_of(texts: &[&str], who: &Somebody) -> Result<Vec<String>, String> {
    let channels = templates(texts).of(who);
    channels
        .map(|all| all.iter().map(ToString::to_string).collect())
        .map_err(|unresolved| unresolved.to_string())
}

#[test]
fn holes_take_the_user_claims_and_captures() {
    let who = somebody("42");
    for (template, expected) in [
        ("n_all", &["n_all"][..]),
        ("n_{user}", &["n_42"]),
        ("n_role_{claims.role}", &["n_role_Admin"]),
        ("n_{claims.level}", &["n_-3"]),
        ("n_{claims.groups}", &["n_x", "n_7"]),
        ("c_{room}", &["c_r1"]),
        (
            "c:{room}/{user}/{claims.groups}",
            &["c:r1/42/x", "c:r1/42/7"],
        ),
        ("n_{claims.absent?}", &[]),
        ("n_{claims.odd?}", &[]),
        ("n_{claims.none?}", &[]),
    ] {
        assert_eq!(names_of(&[template], &who).unwrap(), expected, "{template}");
    }
    let all = ["n_{user}", "n_role_{claims.role}", "n_all", "n_{user}"];
    let expected = ["n_42", "n_role_Admin", "n_all"];
    assert_eq!(names_of(&all, &who).unwrap(), expected);
}

#[test]
fn what_cannot_be_filled_is_told_without_a_value() {
    let who = somebody("canary 7f3a");
    for (template, expected) in [
        ("n_{claims.absent}", "no channel: claims.absent is missing"),
        ("n_{claims.none}", "no channel: claims.none is missing"),
        (
            "n_{claims.odd}",
            "no channel: claims.odd is unfit for a name",
        ),
        (
            "n_{claims.staff}",
            "no channel: claims.staff is unfit for a name",
        ),
        ("n_{user}", "no channel: user is unfit for a name"),
    ] {
        assert_eq!(names_of(&[template], &who).unwrap_err(), expected);
    }
    let nobody = Somebody::default();
    let missing = names_of(&["n_{user}"], &nobody).unwrap_err();
    assert_eq!(missing, "no channel: user is missing");
}

#[test]
fn g2_a_name_belongs_to_one_template() {
    let original = [
        "notifications_{user}",
        "notifications_role_{claims.role?}",
        "notifications_all",
    ];
    let foreign = Unresolved::Foreign.to_string();
    for user in ["all", "role_Admin", "role_x"] {
        assert_eq!(names_of(&original, &somebody(user)), Err(foreign.clone()));
    }
    // Nothing is in a role without a name.
    for user in ["ALL", "role", "role_", "al", "alll", "1"] {
        let names = names_of(&original, &somebody(user)).unwrap();
        assert_eq!(names.len(), 3, "{user}");
    }
    // Templates of other routes count as well.
    let rooms = ChannelTemplate::parse("collaboration_{room}").unwrap();
    let lobby = ChannelTemplate::parse("collaboration_lobby").unwrap();
    let names = Arc::new(Names::new([&rooms, &lobby]));
    let rooms = ChannelTemplates::new(vec![rooms], names);
    let mut who = somebody("1");
    assert!(rooms.of(&who).is_ok());
    who.captures.insert("room".into(), "lobby".into());
    assert_eq!(rooms.of(&who), Err(Unresolved::Foreign));
    let [lobby, other] =
        ["collaboration_lobby", "collaboration_x"].map(|n| Channel::new(n).unwrap());
    assert_eq!((rooms.covers(&lobby), rooms.covers(&other)), (false, true));
}

#[test]
fn g2_faults_of_templates_are_told_with_their_place() {
    for (template, column) in [
        ("{user}", 1),
        ("a b", 2),
        ("größe", 3),
        ("n_{time}", 4),
        ("n_{connection}", 4),
        ("n_{user}{room}", 9),
        ("n_{user}_{room}", 10),
        ("n_{user}.@{room}", 11),
        ("n_{user}:{room}_{x}", 17),
    ] {
        let error = ChannelTemplate::parse(template).unwrap_err();
        assert_eq!(error.column(), column, "{template}: {error}");
    }
    for separator in SEPARATORS {
        let template = format!("n_{{user}}{separator}{{room}}");
        assert!(ChannelTemplate::parse(&template).is_ok(), "{template}");
    }
    for (length, is_good) in [(127, true), (128, true), (129, false)] {
        let plain = ChannelTemplate::parse(&"n".repeat(length));
        assert_eq!(plain.is_ok(), is_good, "{length}");
        let holed = ChannelTemplate::parse(&format!("{}{{user}}", "n".repeat(length - 1)));
        assert_eq!(holed.is_ok(), is_good, "{length}");
    }
}

#[test]
fn g3_values_lists_and_channels_are_capped() {
    for (length, is_good) in [(63, true), (64, true), (65, false)] {
        let who = somebody(&"u".repeat(length));
        assert_eq!(names_of(&["n_{user}"], &who).is_ok(), is_good, "{length}");
    }
    let long = format!("{}{{user}}", "n".repeat(100));
    for (length, is_good) in [(27, true), (28, true), (29, false)] {
        let who = somebody(&"u".repeat(length));
        assert_eq!(names_of(&[&long], &who).is_ok(), is_good, "{length}");
    }
    let numbers = |count: i64| ClaimValue::Many((0..count).map(Scalar::Integer).collect());
    for (count, is_good) in [(63, true), (64, true), (65, false)] {
        let mut who = somebody("1");
        who.claims.insert("groups".into(), numbers(count));
        let names = names_of(&["n_{claims.groups}"], &who);
        assert_eq!(names.is_ok(), is_good, "{count}");
    }
    for (count, is_good) in [(63, true), (64, true)] {
        let mut who = somebody("1");
        who.claims.insert("groups".into(), numbers(count));
        who.claims.insert("two".into(), numbers(2));
        let product = names_of(&["n_{claims.two}:{claims.groups}"], &who);
        assert_eq!(product.is_ok(), is_good, "{count}");
        who.claims.insert("two".into(), numbers(3));
        let product = names_of(&["n_{claims.two}:{claims.groups}"], &who);
        assert!(product.is_err());
        // 64 and 64, and one more or not.
        let all = ["a_{claims.groups}", "b_{claims.groups}", "c"];
        let count_of_all = 2 * count + 1;
        let names = names_of(&all, &who);
        assert_eq!(names.is_ok(), count_of_all <= 128, "{count_of_all}");
        assert!(names_of(&all[..2], &who).is_ok());
    }
}

proptest! {
    /// Whatever the values are, two templates never make one name, unless they make the same ones.
    #[test]
    fn g2_no_value_reaches_a_channel_of_another_template(
        values in prop::collection::vec("[a-zA-Z0-9_.@-]{1,6}|all|role_x|x_all", 3),
        others in prop::collection::vec("[a-zA-Z0-9_.@-]{1,6}|all|role_x|x_all", 3),
    ) {
        let texts = [
            "n_{user}", "n_role_{claims.role}", "n_all", "n_{user}_all", "n_{user}:{room}",
            "n_{claims.role}:all", "n_role_{user}:{room}", "n_{user}/{room}:x",
        ];
        let own: Vec<_> = texts.iter().map(|text| ChannelTemplate::parse(text).unwrap()).collect();
        let names = Arc::new(Names::new(&own));
        let who = |values: &[String]| Somebody {
            user: Some(values[0].clone()),
            claims: [("role".to_owned(), ClaimValue::One(text(&values[1])))].into(),
            captures: [("room".to_owned(), values[2].clone())].into(),
        };
        let of = |template: &ChannelTemplate, values: &[String]| {
            let one = ChannelTemplates::new(vec![template.clone()], Arc::clone(&names));
            one.of(&who(values)).ok().map(|channels| channels[0].to_string())
        };
        for template in &own {
            let name = of(template, &values);
            if let Some(name) = &name {
                prop_assert!(template.could_make(name));
                let one = ChannelTemplates::new(vec![template.clone()], Arc::clone(&names));
                prop_assert!(one.covers(&Channel::new(name).unwrap()));
            }
            for other in own.iter().filter(|other| !other.makes_the_names_of(template)) {
                let theirs = of(other, &others);
                prop_assert!(name.is_none() || name != theirs, "{:?} by {} and {}", name, template.as_str(), other.as_str());
            }
            // One's own values and nobody else's: equal names mean equal values where they count.
            if name.is_some() && name == of(template, &others) {
                for (hole, at) in [("{user}", 0), ("{claims.role}", 1), ("{room}", 2)] {
                    prop_assert!(!template.as_str().contains(hole) || values[at] == others[at]);
                }
            }
        }
    }
}
