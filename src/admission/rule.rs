//! Who may use a route: a rule over the claims of a token and the parameters of the path, such as
//!
//! ```text
//! role in ["Admin", "DepartmentAdmin"] or projects contains {project_id}
//! ```
//!
//! | form | is true if |
//! | --- | --- |
//! | `any` | always: whoever has a valid token |
//! | `claim = value` | the claim is this one value |
//! | `claim in [value, …]` | the claim is one of these values |
//! | `claim contains value` | the claim is a list with this value in it, or a `scope` with this word |
//! | `not r`, `r and s`, `r or s`, `( r )` | as usual; `not` binds closest, then `and` |
//!
//! A claim is a name, or names with dots between them that lead into objects (`realm_access.roles`); a
//! name of other characters stands in quotes (`"https://example.com/roles"`). A value is a text in
//! single or double quotes, an integer, `true`, `false`, or a path parameter in braces. Texts are
//! compared with case, and a text is never equal to a number: `level = 3` and `level = "3"` differ. A
//! path parameter is the exception, since a path is all text: `{id}` equals the text and the number it
//! spells.
//!
//! Evaluation is total: a claim that is missing, or of another kind than the form asks about, makes the
//! form false; so does a missing parameter. `not` turns that into true like any other false:
//! `not role = "guest"` lets in who has no role at all.

use std::fmt;

use super::claim::{self, ClaimPath, ClaimValue, Claims, Scalar};

/// A rule, parsed. [`Rule::any`] unless configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    root: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Any,
    Test(ClaimPath, Test),
    Not(Box<Self>),
    /// Two or more.
    And(Box<[Self]>),
    /// Two or more.
    Or(Box<[Self]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Is(Operand),
    In(Box<[Operand]>),
    Contains(Operand),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Value(Scalar),
    Parameter(Box<str>),
}

impl Rule {
    /// Longest rule in bytes.
    pub const BYTES_MAX: usize = 4 * 1024;
    /// Deepest nesting of parentheses and `not`.
    pub const DEPTH_MAX: usize = 16;

    /// The rule that lets in whoever has a valid token.
    #[must_use]
    pub const fn any() -> Self {
        Self { root: Node::Any }
    }

    /// Parses a rule. Linear in its length.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        if text.len() > Self::BYTES_MAX {
            return Err(RuleError::at(text, 0, "the rule is longer than 4 KiB"));
        }
        let mut parser = Parser::new(text)?;
        let root = parser.or(0)?;
        match parser.token {
            Lexeme::End => Ok(Self { root }),
            Lexeme::Close => Err(parser.fault("this closes nothing")),
            _ => Err(parser.fault("expected `and`, `or` or the end of the rule")),
        }
    }

    /// Does the rule let in who has these claims, on a path with these parameters? Never fails and
    /// never panics. Costs a few nanoseconds for each test; allocates nothing.
    #[must_use]
    pub fn allows<'p>(&self, claims: &Claims, parameter: &dyn Fn(&str) -> Option<&'p str>) -> bool {
        self.root.allows(claims, parameter)
    }

    /// The claims the rule looks at, so that they are kept of a token. One may come several times.
    #[must_use]
    pub fn claims(&self) -> Vec<&ClaimPath> {
        let mut claims = Vec::new();
        self.root.visit(&mut |claim, _| claims.push(claim));
        claims
    }

    /// The path parameters the rule looks at: a route that has not all of them is a mistake. One may
    /// come several times.
    #[must_use]
    pub fn parameters(&self) -> Vec<&str> {
        let mut parameters = Vec::new();
        self.root.visit(&mut |_, test| {
            parameters.extend(test.operands().iter().filter_map(|operand| match operand {
                Operand::Parameter(name) => Some(name.as_ref()),
                Operand::Value(_) => None,
            }));
        });
        parameters
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self::any()
    }
}

impl std::str::FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::parse(text)
    }
}

impl Node {
    fn allows<'p>(&self, claims: &Claims, parameter: &dyn Fn(&str) -> Option<&'p str>) -> bool {
        match self {
            Self::Any => true,
            Self::Test(claim, test) => claims
                .get(claim)
                .is_some_and(|value| test.passes(claim, value, parameter)),
            Self::Not(inner) => !inner.allows(claims, parameter),
            Self::And(all) => all.iter().all(|node| node.allows(claims, parameter)),
            Self::Or(some) => some.iter().any(|node| node.allows(claims, parameter)),
        }
    }

    fn visit<'n>(&'n self, each: &mut impl FnMut(&'n ClaimPath, &'n Test)) {
        match self {
            Self::Any => {}
            Self::Test(claim, test) => each(claim, test),
            Self::Not(inner) => inner.visit(each),
            Self::And(nodes) | Self::Or(nodes) => {
                for node in nodes {
                    node.visit(each);
                }
            }
        }
    }
}

impl Test {
    fn passes<'p>(
        &self,
        claim: &ClaimPath,
        value: &ClaimValue,
        parameter: &dyn Fn(&str) -> Option<&'p str>,
    ) -> bool {
        match (self, value) {
            (Self::Is(operand), ClaimValue::One(own)) => operand.equals(own, parameter),
            (Self::In(operands), ClaimValue::One(own)) => operands
                .iter()
                .any(|operand| operand.equals(own, parameter)),
            (Self::Contains(operand), ClaimValue::Many(members)) => members
                .iter()
                .any(|member| operand.equals(member, parameter)),
            // The one claim that is a list written as a text (RFC 8693 §4.2). Not every text is: a
            // user who may choose a display name must not become `admin` by a space.
            (Self::Contains(operand), ClaimValue::One(Scalar::Text(words)))
                if claim.last() == SCOPE =>
            {
                words
                    .split(' ')
                    .any(|word| operand.is_word(word, parameter))
            }
            _ => false,
        }
    }

    fn operands(&self) -> &[Operand] {
        match self {
            Self::Is(operand) | Self::Contains(operand) => std::slice::from_ref(operand),
            Self::In(operands) => operands,
        }
    }
}

impl Operand {
    fn equals<'p>(&self, own: &Scalar, parameter: &dyn Fn(&str) -> Option<&'p str>) -> bool {
        match self {
            Self::Value(value) => value == own,
            Self::Parameter(name) => parameter(name).is_some_and(|text| own.is_written_as(text)),
        }
    }

    fn is_word<'p>(&self, word: &str, parameter: &dyn Fn(&str) -> Option<&'p str>) -> bool {
        match self {
            Self::Value(Scalar::Text(text)) => **text == *word,
            Self::Value(_) => false,
            Self::Parameter(name) => parameter(name) == Some(word),
        }
    }
}

/// The claim whose text is a list of words.
const SCOPE: &str = "scope";

/// One token ahead of the text.
struct Parser<'r> {
    text: &'r str,
    /// Where the next token is to be looked for.
    next: usize,
    token: Lexeme<'r>,
    /// Where `token` begins.
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lexeme<'r> {
    Word(&'r str),
    Quoted(&'r str),
    Integer(i64),
    Parameter(&'r str),
    Assign,
    Open,
    Close,
    ListOpen,
    ListClose,
    Comma,
    Dot,
    End,
}

impl<'r> Parser<'r> {
    fn new(text: &'r str) -> Result<Self, RuleError> {
        let mut parser = Self {
            text,
            next: 0,
            token: Lexeme::End,
            at: 0,
        };
        parser.advance()?;
        Ok(parser)
    }

    fn or(&mut self, depth: usize) -> Result<Node, RuleError> {
        self.chain(depth, "or", Self::and, Node::Or)
    }

    fn and(&mut self, depth: usize) -> Result<Node, RuleError> {
        self.chain(depth, "and", Self::unary, Node::And)
    }

    /// One or more of `part` with `word` between them.
    fn chain(
        &mut self,
        depth: usize,
        word: &str,
        part: fn(&mut Self, usize) -> Result<Node, RuleError>,
        join: fn(Box<[Node]>) -> Node,
    ) -> Result<Node, RuleError> {
        let first = part(self, depth)?;
        if self.token != Lexeme::Word(word) {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.token == Lexeme::Word(word) {
            self.advance()?;
            nodes.push(part(self, depth)?);
        }
        Ok(join(nodes.into()))
    }

    fn unary(&mut self, depth: usize) -> Result<Node, RuleError> {
        if depth > Rule::DEPTH_MAX {
            return Err(self.fault("nested more than 16 deep"));
        }
        match self.token {
            Lexeme::Word("not") => {
                self.advance()?;
                Ok(Node::Not(Box::new(self.unary(depth + 1)?)))
            }
            Lexeme::Word("any") => {
                self.advance()?;
                Ok(Node::Any)
            }
            Lexeme::Open => {
                self.advance()?;
                let inner = self.or(depth + 1)?;
                self.expect(Lexeme::Close, "expected `)`")?;
                Ok(inner)
            }
            Lexeme::Word(word) if claim::is_reserved(word) => {
                Err(self.fault("a word of the language; a claim of this name stands in quotes"))
            }
            Lexeme::Word(_) | Lexeme::Quoted(_) => {
                let claim = self.claim()?;
                let test = self.test()?;
                Ok(Node::Test(claim, test))
            }
            _ => Err(self.fault("expected a claim, `any`, `not` or `(`")),
        }
    }

    fn claim(&mut self) -> Result<ClaimPath, RuleError> {
        let mut names = Vec::new();
        loop {
            match self.token {
                Lexeme::Word(name) | Lexeme::Quoted(name) if !name.is_empty() => names.push(name),
                _ => return Err(self.fault("expected the name of a claim")),
            }
            self.advance()?;
            if self.token != Lexeme::Dot {
                break;
            }
            self.advance()?;
        }
        ClaimPath::new(names).ok_or_else(|| self.fault("expected the name of a claim"))
    }

    fn test(&mut self) -> Result<Test, RuleError> {
        match self.token {
            Lexeme::Assign => {
                self.advance()?;
                if self.token == Lexeme::Assign {
                    return Err(self.fault("write a single ="));
                }
                Ok(Test::Is(self.operand()?))
            }
            Lexeme::Word("contains") => {
                self.advance()?;
                Ok(Test::Contains(self.operand()?))
            }
            Lexeme::Word("in") => {
                self.advance()?;
                self.expect(Lexeme::ListOpen, "expected `[` and a list of values")?;
                let mut operands = vec![self.operand()?];
                while self.token == Lexeme::Comma {
                    self.advance()?;
                    operands.push(self.operand()?);
                }
                self.expect(Lexeme::ListClose, "expected `,` or `]`")?;
                Ok(Test::In(operands.into()))
            }
            _ => Err(self.fault("expected `=`, `in` or `contains` after the claim")),
        }
    }

    fn operand(&mut self) -> Result<Operand, RuleError> {
        let operand = match self.token {
            Lexeme::Quoted(text) => Operand::Value(Scalar::Text(text.into())),
            Lexeme::Integer(number) => Operand::Value(Scalar::Integer(number)),
            Lexeme::Word("true") => Operand::Value(Scalar::Bool(true)),
            Lexeme::Word("false") => Operand::Value(Scalar::Bool(false)),
            Lexeme::Parameter(name) => Operand::Parameter(name.into()),
            Lexeme::Word(_) => return Err(self.fault("a text stands in quotes")),
            _ => {
                return Err(
                    self.fault("expected a value: \"text\", 42, true, false or {parameter}")
                );
            }
        };
        self.advance()?;
        Ok(operand)
    }

    fn expect(&mut self, token: Lexeme<'_>, message: &'static str) -> Result<(), RuleError> {
        if self.token != token {
            return Err(self.fault(message));
        }
        self.advance()
    }

    fn fault(&self, message: &'static str) -> RuleError {
        RuleError::at(self.text, self.at, message)
    }

    /// Reads the next token.
    fn advance(&mut self) -> Result<(), RuleError> {
        let rest = &self.text[self.next..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at = self.next + blank;
        let rest = &rest[blank..];
        let (token, length) = match rest.chars().next() {
            None => (Lexeme::End, 0),
            Some('=') => (Lexeme::Assign, 1),
            Some('(') => (Lexeme::Open, 1),
            Some(')') => (Lexeme::Close, 1),
            Some('[') => (Lexeme::ListOpen, 1),
            Some(']') => (Lexeme::ListClose, 1),
            Some(',') => (Lexeme::Comma, 1),
            Some('.') => (Lexeme::Dot, 1),
            Some(quote @ ('"' | '\'')) => {
                let inner = self.until(quote, "this quote is not closed")?;
                (Lexeme::Quoted(inner), inner.len() + 2)
            }
            Some('{') => {
                let name = self.until('}', "this brace is not closed")?;
                if !claim::is_bare(name) {
                    return Err(self.fault("expected the name of a path parameter between { and }"));
                }
                (Lexeme::Parameter(name), name.len() + 2)
            }
            Some('-' | '0'..='9') => {
                let is_end = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_');
                let digits = &rest[..rest.find(is_end).unwrap_or(rest.len())];
                let number = digits.parse().ok().map(Scalar::Integer);
                // The same spelling that a path parameter must have, so there is one for each number.
                match number.filter(|number| number.is_written_as(digits)) {
                    Some(Scalar::Integer(number)) => (Lexeme::Integer(number), digits.len()),
                    _ => return Err(self.fault("not a 64-bit integer without leading zeros")),
                }
            }
            Some(first) if first.is_ascii_alphabetic() || first == '_' => {
                let is_end = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-');
                let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
                (Lexeme::Word(word), word.len())
            }
            Some('!') => return Err(self.fault("write `not` in front of the test")),
            Some('&' | '|') => return Err(self.fault("write `and` or `or`")),
            Some(_) => return Err(self.fault("this character has no meaning outside of quotes")),
        };
        self.token = token;
        self.next = self.at + length;
        Ok(())
    }

    /// What stands between the character at `self.at` and the next `end`, on the same line.
    fn until(&self, end: char, unclosed: &'static str) -> Result<&'r str, RuleError> {
        let rest = &self.text[self.at + 1..];
        match rest.find(|c: char| c == end || c.is_control()) {
            Some(length) if rest[length..].starts_with(end) => Ok(&rest[..length]),
            _ => Err(self.fault(unclosed)),
        }
    }
}

/// What is wrong with a rule, and where. Prints three lines: the message, the line of the rule, and a
/// caret under the spot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    line: usize,
    column: usize,
    message: &'static str,
    source: Box<str>,
}

impl RuleError {
    fn at(text: &str, at: usize, message: &'static str) -> Self {
        let before = &text[..at];
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..]
            .find('\n')
            .map_or(text.len(), |length| at + length);
        Self {
            line: before.matches('\n').count() + 1,
            column: text[begin..at].chars().count() + 1,
            message,
            source: text[begin..end].trim_end().into(),
        }
    }

    /// The line within the rule, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The character within the line, from 1.
    #[must_use]
    pub const fn column(&self) -> usize {
        self.column
    }

    /// What is wrong, without the place.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        self.message
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A window of the line, so that a caret far to the right stays on the screen.
        let from = self.column.saturating_sub(WINDOW_BEFORE + 1);
        let window: String = self.source.chars().skip(from).take(WINDOW).collect();
        // Tabs are repeated, so that the caret stands right however wide they are shown.
        let indent: String = self
            .source
            .chars()
            .skip(from)
            .chain(std::iter::repeat(' '))
            .take(self.column - 1 - from)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )?;
        writeln!(f, "  {window}")?;
        write!(f, "  {indent}^")
    }
}

impl std::error::Error for RuleError {}

/// Characters of a line that are shown, and how many of them before the fault.
const WINDOW: usize = 100;
const WINDOW_BEFORE: usize = 70;

#[cfg(test)]
mod tests;
