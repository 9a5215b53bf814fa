//! What is kept of a token for as long as its connection lives: the few claims that rules and
//! channel templates ask for, in a form that is small and cannot be nested.

use std::fmt;
use std::sync::Arc;

/// Where in a token's claims a value stands: a top-level name, or names that lead into objects, such
/// as `realm_access.roles`. A name may itself hold dots (`https://example.com/roles`), so a path is
/// a list of names and not a text to split.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimPath {
    names: Box<[Box<str>]>,
}

impl ClaimPath {
    /// The claim of this name at the top level.
    #[must_use]
    pub fn top_level(name: &str) -> Self {
        Self {
            names: Box::new([name.into()]),
        }
    }

    /// The claim that `names` lead to, the top level first; `None` if there is no name at all.
    #[must_use]
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let names: Box<[Box<str>]> = names.into_iter().map(Box::from).collect();
        (!names.is_empty()).then_some(Self { names })
    }

    /// Reads a path as a rule writes it; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = match rest.chars().next()? {
                quote @ ('"' | '\'') => rest[1..]
                    .split_once(quote)
                    .filter(|(name, _)| !name.is_empty())?,
                _ => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    let (name, after) = rest.split_at(end);
                    (is_bare(name).then_some(name)?, after)
                }
            };
            names.push(name);
            if after.is_empty() {
                return Self::new(names);
            }
            rest = after.strip_prefix('.')?;
        }
    }

    /// The names, the top level first; at least one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// The top-level claim the path begins with.
    #[must_use]
    pub fn first(&self) -> &str {
        self.names.first().map_or("", AsRef::as_ref)
    }

    /// The name the path ends with.
    #[must_use]
    pub fn last(&self) -> &str {
        self.names.last().map_or("", AsRef::as_ref)
    }
}

/// Can `name` stand in a path or a rule without quotes?
pub(super) fn is_bare(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Does `word` mean something in a rule, so that as a claim it needs quotes?
pub(super) fn is_reserved(word: &str) -> bool {
    matches!(
        word,
        "any" | "and" | "or" | "not" | "in" | "contains" | "true" | "false"
    )
}

impl fmt::Display for ClaimPath {
    /// As a rule writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            if is_bare(name) && !is_reserved(name) {
                f.write_str(name)?;
            } else {
                let quote = if name.contains('"') { '\'' } else { '"' };
                write!(f, "{quote}{name}{quote}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimPath({self})")
    }
}

/// A single value: what a rule can compare with. Fractions, nulls and objects are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A text.
    Text(Box<str>),
    /// An integer that fits 64 bits with a sign. Larger ones are no scalars: two that differ could
    /// look alike.
    Integer(i64),
    /// `true` or `false`.
    Bool(bool),
}

impl Scalar {
    /// Is this what `text` says, as in a path parameter? An integer is compared in decimal without
    /// leading zeros, so `42` is 42 and `042` is not; a truth value equals no text.
    #[must_use]
    pub fn is_written_as(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => **own == *text,
            Self::Integer(own) => {
                // `parse` also takes `+42` and `042`, which are other spellings.
                let is_canonical = text == "0"
                    || text
                        .strip_prefix('-')
                        .unwrap_or(text)
                        .starts_with(|first: char| matches!(first, '1'..='9'));
                is_canonical && text.parse() == Ok(*own)
            }
            Self::Bool(_) => false,
        }
    }
}

/// The value of a claim that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// One value.
    One(Scalar),
    /// A list. Members that are no scalars were left out.
    Many(Box<[Scalar]>),
}

/// The claims kept of one token. Two pointers wide, plus the values; the paths are shared by all
/// tokens of an issuer. Looking one up is O(claims kept), which are a handful.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Claims {
    paths: Option<Arc<[ClaimPath]>>,
    values: Box<[Option<ClaimValue>]>,
}

impl Claims {
    /// Pairs each path with what the token has there.
    #[must_use]
    pub fn new(
        paths: &Arc<[ClaimPath]>,
        value_at: impl FnMut(&ClaimPath) -> Option<ClaimValue>,
    ) -> Self {
        if paths.is_empty() {
            return Self::default();
        }
        Self {
            values: paths.iter().map(value_at).collect(),
            paths: Some(Arc::clone(paths)),
        }
    }

    /// The values there are, each with its path.
    pub fn iter(&self) -> impl Iterator<Item = (&ClaimPath, &ClaimValue)> {
        let paths = self.paths.as_deref().unwrap_or_default();
        let pairs = paths.iter().zip(&self.values);
        pairs.filter_map(|(path, value)| Some((path, value.as_ref()?)))
    }

    /// The value at `path`. `None` if the token has none, or one that is no scalar and no list, or if
    /// the path was not among those to keep.
    #[must_use]
    pub fn get(&self, path: &ClaimPath) -> Option<&ClaimValue> {
        let paths = self.paths.as_deref()?;
        let index = paths.iter().position(|kept| kept == path)?;
        self.values.get(index)?.as_ref()
    }
}

impl fmt::Debug for Claims {
    /// Without the values: they are somebody's personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("kept", &self.paths.as_deref().unwrap_or_default())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_one_way() {
        for (scalar, text, expected) in [
            (Scalar::Integer(42), "42", true),
            (Scalar::Integer(42), "042", false),
            (Scalar::Integer(42), "+42", false),
            (Scalar::Integer(42), " 42", false),
            (Scalar::Integer(42), "42.0", false),
            (Scalar::Integer(42), "４２", false),
            (Scalar::Integer(0), "0", true),
            (Scalar::Integer(0), "-0", false),
            (Scalar::Integer(0), "", false),
            (Scalar::Integer(-7), "-7", true),
            (Scalar::Integer(-7), "--7", false),
            (Scalar::Text("042".into()), "042", true),
            (Scalar::Text("Admin".into()), "admin", false),
            (Scalar::Text("".into()), "", true),
            (Scalar::Bool(true), "true", false),
        ] {
            assert_eq!(scalar.is_written_as(text), expected, "{scalar:?} {text:?}");
        }
    }

    #[test]
    fn paths_print_as_rules_write_them() {
        for (names, expected) in [
            (&["role"][..], "role"),
            (&["realm_access", "roles"], "realm_access.roles"),
            (&["in"], "\"in\""),
            (&["a\"b"], "'a\"b'"),
            (
                &["https://example.com/roles", "a b"],
                "\"https://example.com/roles\".\"a b\"",
            ),
        ] {
            let path = ClaimPath::new(names.iter().copied()).unwrap();
            assert_eq!(path.to_string(), expected);
        }
        assert_eq!(ClaimPath::new([]), None);
    }

    #[test]
    fn claims_are_written_as_in_rules() {
        for (text, expected) in [
            ("role", Some("role")),
            ("realm_access.roles", Some("realm_access.roles")),
            (
                "'https://example.com/roles'",
                Some("\"https://example.com/roles\""),
            ),
            ("\"a b\".c", Some("\"a b\".c")),
            ("", None),
            (".", None),
            ("a.", None),
            (".a", None),
            ("a..b", None),
            ("a b", None),
            ("7up", None),
            ("''", None),
            ("'a", None),
            ("'a'b", None),
            ("größe", None),
        ] {
            let found = ClaimPath::parse(text).map(|path| path.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn only_kept_claims_are_found_and_none_is_printed() {
        let paths: Arc<[ClaimPath]> =
            Arc::new([ClaimPath::top_level("role"), ClaimPath::top_level("absent")]);
        let claims = Claims::new(&paths, |path| {
            (path.first() == "role").then(|| ClaimValue::One(Scalar::Text("canary-7f3a".into())))
        });
        assert!(claims.get(&paths[0]).is_some());
        assert_eq!(claims.iter().count(), 1);
        assert_eq!(claims.get(&paths[1]), None);
        assert_eq!(claims.get(&ClaimPath::top_level("other")), None);
        assert!(!format!("{claims:?}").contains("canary"));
        assert_eq!(Claims::default().get(&paths[0]), None);
    }
}
