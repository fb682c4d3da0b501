//! The patterns of `--include` and `--exclude`: which paths of a tree a command is about.
//!
//! The language is the part of gitignore that people know by heart, read from the command line:
//!
//! | Pattern | Matches |
//! |---|---|
//! | `*` `?` `[a-z]` `[!a-z]` | any run, any one character, one of a set, one outside it; never a `/` |
//! | `name` | a file or folder of that name at any depth, and all that is inside |
//! | `/name`, `a/b` | the same, from the root of the tree: a slash anchors |
//! | `name/` | folders only |
//! | `**` | any number of folders, as a whole component: `a/**/b`, `**/b`, `a/**` |
//! | `\*` | the character itself |
//!
//! There is no negation: `--include` and `--exclude` say which is meant. Case counts, on every system. Matching takes
//! time proportional to pattern times path and can't blow up: components are matched by following all positions of the
//! pattern at once, characters by going back to the last `*` only.

use std::str::{Chars, FromStr};

/// Why a text is not a pattern. The user must write another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePatternError {
    /// Nothing is left to match.
    #[error("the pattern is empty")]
    Empty,
    /// Two slashes follow each other.
    #[error("pattern {0:?} has an empty component: two slashes follow each other")]
    EmptyComponent(String),
    /// `.` and `..` name no path of a tree.
    #[error("pattern {0:?} holds `.` or `..`, which no path in a dataset has")]
    DotComponent(String),
    /// A `[` has no `]`.
    #[error("pattern {0:?} has a `[` without its `]`; write `\\[` for the character")]
    OpenSet(String),
    /// A range such as `z-a`.
    #[error("pattern {0:?} has a range that runs backwards")]
    BackwardRange(String),
    /// The last character is a lone backslash.
    #[error("pattern {0:?} ends in a lone backslash")]
    LoneBackslash(String),
    /// gitignore's `!pattern`.
    #[error("pattern {0:?} starts with `!`: use --include or --exclude, or write `\\!` for the character")]
    Negated(String),
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A folder.
    Folder,
    /// A file or a symlink.
    Other,
}

/// One piece of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    AnyChar,
    AnyRun,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`: any number of components, also none.
    AnyDepth,
    Name(Vec<Token>),
}

/// A checked pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    components: Vec<Component>,
    folders_only: bool,
}

/// What a pattern says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The path or a folder above it matches.
    Matched,
    /// It doesn't, but something inside it may.
    MayMatchInside,
    /// Neither it nor anything inside it matches.
    Unmatched,
}

impl FromStr for Pattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Pattern, ParsePatternError> {
        if text.starts_with('!') {
            return Err(ParsePatternError::Negated(text.to_owned()));
        }
        let rooted = text.strip_prefix('/');
        let body = rooted.unwrap_or(text);
        let (body, folders_only) = match body.strip_suffix('/') {
            Some(rest) => (rest, true),
            None => (body, false),
        };
        if body.is_empty() {
            return Err(ParsePatternError::Empty);
        }
        let names: Vec<&str> = body.split('/').collect();
        let mut components = Vec::with_capacity(names.len() + 1);
        if rooted.is_none() && names.len() == 1 {
            components.push(Component::AnyDepth);
        }
        for name in &names {
            match *name {
                "" => return Err(ParsePatternError::EmptyComponent(text.to_owned())),
                "." | ".." => return Err(ParsePatternError::DotComponent(text.to_owned())),
                "**" if components.last() == Some(&Component::AnyDepth) => {}
                "**" => components.push(Component::AnyDepth),
                name => components.push(Component::Name(parse_name(name, text)?)),
            }
        }
        if components.last() == Some(&Component::AnyDepth) {
            // `a/**` is what is inside `a`, not `a` itself.
            components.push(Component::Name(vec![Token::AnyRun]));
        }
        Ok(Pattern { components, folders_only })
    }
}

fn parse_name(name: &str, pattern: &str) -> Result<Vec<Token>, ParsePatternError> {
    let mut tokens = Vec::new();
    let mut chars = name.chars();
    while let Some(char) = chars.next() {
        let token = match char {
            '*' if tokens.last() == Some(&Token::AnyRun) => continue,
            '*' => Token::AnyRun,
            '?' => Token::AnyChar,
            '[' => parse_set(&mut chars, pattern)?,
            '\\' => {
                Token::Char(chars.next().ok_or_else(|| ParsePatternError::LoneBackslash(pattern.to_owned()))?)
            }
            char => Token::Char(char),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

/// Reads a set after its `[`. As everywhere, a `]` that comes first is an ordinary character.
fn parse_set(chars: &mut Chars<'_>, pattern: &str) -> Result<Token, ParsePatternError> {
    let open = || ParsePatternError::OpenSet(pattern.to_owned());
    let negated = chars.as_str().starts_with(['!', '^']);
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next().ok_or_else(open)? {
            ']' if !ranges.is_empty() => return Ok(Token::Set { negated, ranges }),
            '\\' => chars.next().ok_or_else(open)?,
            char => char,
        };
        let rest = chars.as_str();
        let last = if rest.starts_with('-') && !rest.starts_with("-]") {
            chars.next();
            match chars.next().ok_or_else(open)? {
                '\\' => chars.next().ok_or_else(open)?,
                char => char,
            }
        } else {
            first
        };
        if last < first {
            return Err(ParsePatternError::BackwardRange(pattern.to_owned()));
        }
        ranges.push((first, last));
    }
}

impl Pattern {
    /// Follows all positions in the pattern at once along the path's components.
    fn judge(&self, path: &str, kind: PathKind) -> Verdict {
        let end = self.components.len();
        // `reached[i]`: the components so far can be matched by the first `i` of the pattern.
        let mut reached = vec![false; end + 1];
        reached[0] = true;
        self.skip_any_depth(&mut reached);
        let mut rest = Some(path);
        while let Some(text) = rest {
            let (name, deeper) = match text.split_once('/') {
                Some((name, deeper)) => (name, Some(deeper)),
                None => (text, None),
            };
            let mut next = vec![false; end + 1];
            for (index, component) in self.components.iter().enumerate() {
                if !reached[index] {
                    continue;
                }
                match component {
                    Component::AnyDepth => next[index] = true,
                    Component::Name(tokens) => next[index + 1] |= name_matches(tokens, name),
                }
            }
            self.skip_any_depth(&mut next);
            let is_folder = deeper.is_some() || kind == PathKind::Folder;
            if next[end] && (is_folder || !self.folders_only) {
                return Verdict::Matched;
            }
            // A match that was refused because this is not a folder leads nowhere.
            next[end] = false;
            if next.iter().all(|is_reached| !is_reached) {
                return Verdict::Unmatched;
            }
            reached = next;
            rest = deeper;
        }
        Verdict::MayMatchInside
    }

    /// `**` also matches no component at all.
    fn skip_any_depth(&self, reached: &mut [bool]) {
        for (index, component) in self.components.iter().enumerate() {
            if reached[index] && *component == Component::AnyDepth {
                reached[index + 1] = true;
            }
        }
    }

    /// The literal start that every match has.
    fn literal_prefix(&self) -> String {
        let mut prefix = String::new();
        for component in &self.components {
            let Component::Name(tokens) = component else {
                return prefix;
            };
            if !prefix.is_empty() {
                prefix.push('/');
            }
            for token in tokens {
                let Token::Char(char) = token else {
                    return prefix;
                };
                prefix.push(*char);
            }
        }
        prefix
    }
}

fn name_matches(tokens: &[Token], name: &str) -> bool {
    let mut chars = name.chars();
    let mut at = 0;
    // Where to go on when a token fails: after the last `*`, one character further than last time.
    let mut retry: Option<(usize, Chars<'_>)> = None;
    loop {
        if tokens.get(at) == Some(&Token::AnyRun) {
            at += 1;
            retry = Some((at, chars.clone()));
            continue;
        }
        let mut ahead = chars.clone();
        match (tokens.get(at), ahead.next()) {
            (None, None) => return true,
            (Some(token), Some(char)) if token.matches(char) => {
                at += 1;
                chars = ahead;
            }
            (Some(_), None) => return false,
            _ => match &mut retry {
                Some((after_run, from)) => {
                    if from.next().is_none() {
                        return false;
                    }
                    at = *after_run;
                    chars = from.clone();
                }
                None => return false,
            },
        }
    }
}

impl Token {
    fn matches(&self, char: char) -> bool {
        match self {
            Token::Char(expected) => *expected == char,
            Token::AnyChar => true,
            Token::AnyRun => false,
            Token::Set { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != *negated
            }
        }
    }
}

/// The includes and excludes of one command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    includes: Vec<Pattern>,
    excludes: Vec<Pattern>,
}

impl Filter {
    /// A filter that keeps what one of `includes` matches (everything, if there are none) and none of `excludes` does.
    #[must_use]
    pub fn new(includes: Vec<Pattern>, excludes: Vec<Pattern>) -> Filter {
        Filter { includes, excludes }
    }

    /// A filter from patterns as they were typed.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn parse<S: AsRef<str>>(includes: &[S], excludes: &[S]) -> Result<Filter, ParsePatternError> {
        let parse = |texts: &[S]| -> Result<Vec<Pattern>, ParsePatternError> {
            texts.iter().map(|text| text.as_ref().parse()).collect()
        };
        Ok(Filter { includes: parse(includes)?, excludes: parse(excludes)? })
    }

    /// Whether there are no patterns, so that every path is kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    /// Whether the command is about this path. Patterns that match a folder above it count.
    #[must_use]
    pub fn keeps(&self, path: &str, kind: PathKind) -> bool {
        let included = self.includes.is_empty()
            || self.includes.iter().any(|pattern| pattern.judge(path, kind) == Verdict::Matched);
        included && !self.excludes(path, kind)
    }

    /// Whether an exclude matches this path or a folder above it: then nothing inside it is kept either.
    #[must_use]
    pub fn excludes(&self, path: &str, kind: PathKind) -> bool {
        self.excludes.iter().any(|pattern| pattern.judge(path, kind) == Verdict::Matched)
    }

    /// Whether anything inside this folder may be kept; if not, it need not be walked.
    #[must_use]
    pub fn enters(&self, folder: &str) -> bool {
        let may_include = self.includes.is_empty()
            || self
                .includes
                .iter()
                .any(|pattern| pattern.judge(folder, PathKind::Folder) != Verdict::Unmatched);
        may_include && !self.excludes(folder, PathKind::Folder)
    }

    /// The bytes that every kept path starts with, so that a reader of a sorted tree can go straight there.
    #[must_use]
    pub fn literal_prefix(&self) -> String {
        let mut prefixes = self.includes.iter().map(Pattern::literal_prefix);
        let Some(first) = prefixes.next() else {
            return String::new();
        };
        prefixes.fold(first, |shared, other| {
            let same = shared.chars().zip(other.chars()).take_while(|(left, right)| left == right);
            same.map(|(char, _)| char).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::{any, proptest};

    use super::{Filter, ParsePatternError, PathKind, Pattern, Verdict, name_matches, parse_name};

    fn matches(pattern: &str, path: &str) -> bool {
        let (path, kind) = match path.strip_suffix('/') {
            Some(folder) => (folder, PathKind::Folder),
            None => (path, PathKind::Other),
        };
        pattern.parse::<Pattern>().unwrap().judge(path, kind) == Verdict::Matched
    }

    #[test]
    fn pattern_without_a_slash_matches_at_any_depth() {
        assert!(matches("*.csv", "a.csv"));
        assert!(matches("*.csv", "deep/er/a.csv"));
        assert!(!matches("*.csv", "a.csv.gz"));
        assert!(matches("raw", "x/raw/y/z.bin"));
        assert!(!matches("raw", "x/rawest"));
    }

    #[test]
    fn slash_anchors_at_the_root() {
        assert!(matches("/a.csv", "a.csv"));
        assert!(!matches("/a.csv", "x/a.csv"));
        assert!(matches("x/a.csv", "x/a.csv"));
        assert!(!matches("x/a.csv", "y/x/a.csv"));
        assert!(matches("x/*", "x/a/b/c"));
        assert!(!matches("x/*", "x"));
    }

    #[test]
    fn trailing_slash_matches_folders_only() {
        assert!(matches("cache/", "cache/"));
        assert!(matches("cache/", "a/cache/b"));
        assert!(!matches("cache/", "a/cache"));
    }

    #[test]
    fn two_stars_match_any_number_of_folders() {
        for path in ["a/b", "a/x/b", "a/x/y/b", "a/x/y/b/z"] {
            assert!(matches("a/**/b", path), "{path}");
        }
        assert!(!matches("a/**/b", "x/a/b"));
        assert!(matches("**/b", "b"));
        assert!(matches("**/a/b", "x/y/a/b"));
        assert!(matches("a/**", "a/x"));
        assert!(!matches("a/**", "a/"));
        assert!(matches("**", "anything"));
        assert!(matches("a/**/**/b", "a/b"));
        assert!(matches("a**b", "axxb"));
        assert!(!matches("/a**b", "a/b"));
    }

    #[test]
    fn question_marks_sets_and_escapes_match_one_character() {
        assert!(matches("part-?.bin", "part-é.bin"));
        assert!(!matches("part-?.bin", "part-10.bin"));
        assert!(matches("[a-cx]1", "b1") && matches("[a-cx]1", "x1") && !matches("[a-cx]1", "d1"));
        assert!(matches("[!a-c]1", "d1") && !matches("[^a-c]1", "a1"));
        assert!(matches("[]-]", "]") && matches("[]-]", "-") && matches("[\\]a]", "]"));
        assert!(matches("\\*", "*") && !matches("\\*", "x"));
        assert!(matches("\\!a", "!a"));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        let parse = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert_eq!(parse(""), ParsePatternError::Empty);
        assert_eq!(parse("/"), ParsePatternError::Empty);
        assert_eq!(parse("a//b"), ParsePatternError::EmptyComponent("a//b".to_owned()));
        assert_eq!(parse("./a"), ParsePatternError::DotComponent("./a".to_owned()));
        assert_eq!(parse("[ab"), ParsePatternError::OpenSet("[ab".to_owned()));
        assert_eq!(parse("[z-a]"), ParsePatternError::BackwardRange("[z-a]".to_owned()));
        assert_eq!(parse("a\\"), ParsePatternError::LoneBackslash("a\\".to_owned()));
        assert_eq!(parse("!a"), ParsePatternError::Negated("!a".to_owned()));
    }

    #[test]
    fn filter_keeps_what_is_included_and_not_excluded() {
        let filter = Filter::parse(&["data/**/*.csv"], &["tmp/"]).unwrap();
        assert!(filter.keeps("data/a.csv", PathKind::Other));
        assert!(!filter.keeps("data/a.txt", PathKind::Other));
        assert!(!filter.keeps("data/tmp/a.csv", PathKind::Other));
        assert!(Filter::default().keeps("anything", PathKind::Other));
    }

    #[test]
    fn folders_that_can_hold_nothing_kept_are_not_entered() {
        let filter = Filter::parse(&["data/train/*.csv", "/notes"], &["tmp/"]).unwrap();
        assert!(filter.enters("data") && filter.enters("data/train") && filter.enters("notes/old"));
        assert!(!filter.enters("other") && !filter.enters("data/test") && !filter.enters("data/tmp"));
        assert!(Filter::parse(&["*.csv"], &[]).unwrap().enters("any/where"));
    }

    #[test]
    fn literal_prefix_is_shared_by_everything_kept() {
        let prefix = |includes: &[&str]| Filter::parse(includes, &[]).unwrap().literal_prefix();
        assert_eq!(prefix(&[]), "");
        assert_eq!(prefix(&["*.csv"]), "");
        assert_eq!(prefix(&["/data/tr*"]), "data/tr");
        assert_eq!(prefix(&["/data/train/", "data/tests/x"]), "data/t");
        assert_eq!(prefix(&["a/**/b"]), "a");
    }

    #[test]
    fn hostile_patterns_do_not_blow_up() {
        let started = Instant::now();
        assert!(!matches(&"*a".repeat(500), &"a".repeat(5_000).replace("aaaaa", "aaaab")));
        let pattern = "**/a/".repeat(200) + "c";
        assert!(!matches(&pattern, &"a/".repeat(2_000)));
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    /// The definition, exponential and obvious.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
            (Some(('?', rest)), Some((_, text))) => naive(rest, text),
            (Some((char, rest)), Some((first, text))) => char == first && naive(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn names_match_as_the_naive_definition_says(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            let tokens = parse_name(&pattern, &pattern).unwrap();
            let pattern: Vec<char> = pattern.chars().collect();
            let text: Vec<char> = name.chars().collect();
            assert_eq!(name_matches(&tokens, &name), naive(&pattern, &text));
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in any::<String>(), path in "[a-c/*.]{1,12}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                pattern.judge(&path, PathKind::Other);
            }
        }
    }
}
