//! Name patterns: exact, glob, `re:` regex, `!` exclusion.

use std::fmt;

/// One pattern over model or upstream names. Globs support `*` and `?`; `re:` is an anchored
/// regular expression.
#[derive(Clone)]
pub enum Pattern {
    Exact(String),
    Glob(String),
    Regex(String, regex::Regex),
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// The message of the regex engine, if a `re:` pattern does not compile.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(source) = text.strip_prefix("re:") {
            let regex =
                regex::RegexBuilder::new(&format!("^(?:{source})$")).size_limit(1 << 20).build();
            return regex.map(|regex| Self::Regex(text.to_owned(), regex)).map_err(|e| {
                e.to_string().lines().last().unwrap_or("bad regex").trim().to_owned()
            });
        }
        Ok(if text.contains(['*', '?']) {
            Self::Glob(text.to_owned())
        } else {
            Self::Exact(text.to_owned())
        })
    }

    /// Returns the pattern as written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Glob(text) | Self::Regex(text, _) => text,
        }
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => text == name,
            Self::Glob(text) => glob_matches(text.as_bytes(), name.as_bytes()),
            Self::Regex(_, regex) => regex.is_match(name),
        }
    }

    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Whether this is the bare `*`.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Glob(text) if text == "*")
    }
}

/// Patterns with exclusions: a name matches if some plain pattern matches and no `!pattern` does. A
/// list of only exclusions means "all but these".
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    pub include: Vec<Pattern>,
    pub exclude: Vec<Pattern>,
}

impl Patterns {
    /// `["*"]`
    #[must_use]
    pub fn any() -> Self {
        Self { include: vec![Pattern::Glob("*".to_owned())], exclude: Vec::new() }
    }

    /// Parses a list.
    ///
    /// # Errors
    ///
    /// The index of the invalid entry, and the message.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, String)> {
        let mut out = Self::default();
        for (index, text) in texts.into_iter().enumerate() {
            let (list, text) = text
                .strip_prefix('!')
                .map_or((&mut out.include, text), |rest| (&mut out.exclude, rest));
            list.push(Pattern::parse(text).map_err(|e| (index, e))?);
        }
        Ok(out)
    }

    /// Whether every name matches.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.exclude.is_empty() && self.include.iter().any(Pattern::is_any)
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let yes = self.include.is_empty() && !self.exclude.is_empty()
            || self.include.iter().any(|p| p.matches(name));
        yes && !self.exclude.iter().any(|p| p.matches(name))
    }
}

/// Matches `*` as any run and `?` as any one byte; linear in the text for each star.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        let list = Patterns::parse(["deepseek-ai/*", "re:^minimaxai/.*", "gpt-?o", "!*-beta"])
            .expect("good patterns");
        for (name, want) in [
            ("deepseek-ai/r1", true),
            ("deepseek-ai/r1-beta", false),
            ("minimaxai/m2", true),
            ("gpt-4o", true),
            ("gpt-44o", false),
            ("other", false),
        ] {
            assert_eq!(list.matches(name), want, "{name}");
        }
        assert!(Pattern::parse("re:(").is_err());
        assert!(Patterns::parse(["!x"]).expect("only exclusions").matches("y"));
        assert!(Pattern::parse("a*b*c").expect("glob").matches("a--b--b-c"));
    }
}
