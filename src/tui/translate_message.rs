//! Translates the proxy's English messages into the user's language. The patterns of frequent
//! messages are in `assets/texts/said.toml`; other messages are shown unchanged.

use std::{borrow::Cow, sync::OnceLock};

use crate::tui::{
    format::FrameContext,
    strings::{Lang, fill},
};

/// Longer texts match no pattern.
const MAX_TEXT_BYTES: usize = 2_000;
/// Upper bound for nested messages.
const MAX_DEPTH: usize = 6;
/// Digits of an id shown in its short form.
const SHORT_ID_DIGITS: usize = 4;
/// Digits of an id.
const ID_DIGITS: usize = 20;

/// A message pattern: literal texts and named placeholders.
#[derive(Debug)]
struct MessagePattern {
    prefix: String,
    /// Each placeholder with the literal text after it.
    placeholders: Vec<(String, String)>,
    translation: String,
}

impl MessagePattern {
    fn parse(from: &str, to: String) -> Option<Self> {
        let (begin, mut rest) = from.split_once('{').unwrap_or((from, ""));
        let mut blanks = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('}')?;
            let (text, next) = after.split_once('{').unwrap_or((after, ""));
            blanks.push((name.to_owned(), text.to_owned()));
            rest = next;
        }
        Some(Self { prefix: begin.to_owned(), placeholders: blanks, translation: to })
    }

    /// Length of the literal text. If two patterns match, the one with more literal text is more
    /// specific.
    fn literal_len(&self) -> usize {
        self.prefix.len() + self.placeholders.iter().map(|(_, text)| text.len()).sum::<usize>()
    }

    /// The values of the placeholders, if the text matches.
    fn matches<'t>(&self, text: &'t str) -> Option<Vec<(&str, &'t str)>> {
        let mut rest = text.strip_prefix(&*self.prefix)?;
        let mut found = Vec::with_capacity(self.placeholders.len());
        for (at, (name, after)) in self.placeholders.iter().enumerate() {
            let end = match (at + 1 == self.placeholders.len(), after.is_empty()) {
                (true, true) => rest.len(),
                (true, false) => rest.strip_suffix(&**after)?.len(),
                (false, _) => rest.find(&**after)?,
            };
            let value = &rest[..end];
            if value.is_empty() || (!takes_any_text(name) && value.contains(char::is_whitespace)) {
                return None;
            }
            found.push((&**name, value));
            rest = &rest[end + after.len()..];
        }
        rest.is_empty().then_some(found)
    }
}

/// Whether a placeholder matches any text.
fn takes_any_text(name: &str) -> bool {
    name.starts_with("what")
}

fn patterns() -> &'static [MessagePattern] {
    static SHAPES: OnceLock<Vec<MessagePattern>> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let mut shapes: Vec<MessagePattern> = pattern_table()
            .into_iter()
            .filter_map(|(from, to)| MessagePattern::parse(&from, to))
            .collect();
        shapes.sort_by_key(|shape| std::cmp::Reverse(shape.literal_len()));
        shapes
    })
}

/// The patterns and translations from the file.
fn pattern_table() -> Vec<(String, String)> {
    let file: toml::Table =
        include_str!("../../assets/texts/said.toml").parse().expect("a test reads the file");
    let Some(toml::Value::Table(lines)) = file.into_iter().next().map(|(_, lines)| lines) else {
        return Vec::new();
    };
    lines.into_iter().filter_map(|(from, to)| Some((from, to.as_str()?.to_owned()))).collect()
}

/// Translates a message of the proxy for this user.
#[must_use]
pub fn translate_message<'t>(text: &'t str, now: FrameContext) -> Cow<'t, str> {
    if std::ptr::eq(now.text, Lang::Chinese.texts()) {
        translate(text, MAX_DEPTH)
    } else {
        Cow::Borrowed(text)
    }
}

fn translate(text: &str, depth: usize) -> Cow<'_, str> {
    if depth == 0 || text.len() > MAX_TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let Some((shape, found)) =
        patterns().iter().find_map(|shape| Some((shape, shape.matches(text)?)))
    else {
        return Cow::Borrowed(text);
    };
    let values: Vec<(&str, Cow<'_, str>)> = found
        .into_iter()
        .map(|(name, value)| {
            (
                name,
                if takes_any_text(name) {
                    translate(value, depth - 1)
                } else {
                    Cow::Borrowed(value)
                },
            )
        })
        .collect();
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, &**value)).collect();
    Cow::Owned(fill(&shape.translation, &values))
}

/// Shortens request ids in the text to their title form: `…4e69`.
#[must_use]
pub fn shorten_ids(text: &str) -> String {
    let id = |word: &str| {
        word.len() == ID_DIGITS
            && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let short = |word: &str| {
        if id(word) {
            format!("…{}", &word[ID_DIGITS - SHORT_ID_DIGITS..])
        } else {
            word.to_owned()
        }
    };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chinese(text: &str) -> String {
        translate_message(
            text,
            FrameContext { text: Lang::Chinese.texts(), ..FrameContext::default() },
        )
        .into_owned()
    }

    #[test]
    fn frequent_shapes_are_said_in_chinese_and_others_as_they_came() {
        for (text, want) in [
            ("openai/work is disabled", "openai/work 已停用"),
            (
                "config applied (requested): 3 upstreams, 2 projects",
                "配置已生效（手动）：3 个上游，2 个项目",
            ),
            ("logical model; the only candidate ready", "逻辑模型；唯一可用的候选"),
            (
                "try 2: logical model; priority 10, the only candidate ready; translated to openai; passed over: a/b (disabled)",
                "第 2 次：逻辑模型；优先级 10，唯一可用的候选；转换为 openai 协议；跳过：a/b (disabled)",
            ),
            (
                "smart → gpt-4o; priority 10, one of 3 ready",
                "smart → gpt-4o；优先级 10，3 个可用者之一",
            ),
            (
                "served by that name; the only candidate ready; translated to openai",
                "上游以此名提供；唯一可用的候选；转换为 openai 协议",
            ),
            ("env:K_NONE: the variable is not set", "env:K_NONE：变量未设置"),
            (
                "`env:K_NONE`: the variable is not set; `aiproxy key add`",
                "`env:K_NONE`：变量未设置；`aiproxy key add`",
            ),
            (
                "ide m: 3 of 9 tokens came from the prompt cache: the client changed the tools, which cost $0.035 more",
                "ide m：9 个词元中有 3 个来自提示缓存：客户端改了工具，因此多花 $0.035",
            ),
            ("openai/personal works again", "openai/personal 恢复正常"),
            (
                "attempt 1 of gpt-4o at openai/work: connection refused (127.0.0.1:9)",
                "gpt-4o 的第 1 次尝试（openai/work）：连接被拒绝（127.0.0.1:9）",
            ),
            ("openai/work cools for 41s: 429 for gpt-4o", "openai/work 冷却 41s：429（gpt-4o）"),
            ("ide gpt-4o 200 by openai/work in 812 ms", "ide gpt-4o 200，openai/work，812 毫秒"),
            ("nothing anybody knows", "nothing anybody knows"),
            ("two words is disabled", "two words is disabled"),
            ("", ""),
        ] {
            assert_eq!(chinese(text), want, "{text}");
            assert_eq!(
                translate_message(text, FrameContext::default()),
                text,
                "English goes through as it came"
            );
        }
    }

    #[test]
    fn every_line_of_the_file_is_found_by_its_own_shape_and_uses_its_blanks() {
        assert!(pattern_table().len() > 40);
        for (from, to) in pattern_table() {
            let shape = MessagePattern::parse(&from, to.clone()).unwrap();
            let values: Vec<(&str, &str)> =
                shape.placeholders.iter().map(|(name, _)| (&**name, "x7")).collect();
            for (name, _) in &values {
                assert!(to.contains(&format!("{{{name}}}")), "{from}: {name} is lost");
            }
            assert_eq!(chinese(&fill(&from, &values)), fill(&to, &values), "{from}");
        }
    }

    #[test]
    fn ids_are_as_short_as_in_titles() {
        let text = "request 018bcfe5680000000008 goes out again as 018bcfe56800000000aa";
        assert_eq!(shorten_ids(text), "request …0008 goes out again as …00aa");
        assert_eq!(shorten_ids("no id, 018bcfe568"), "no id, 018bcfe568");
    }

    proptest! {
        #[test]
        fn any_text_comes_through(text in ".{0,60}", what in "[a-z:; ]{0,30}") {
            drop(chinese(&text));
            let cools = chinese(&format!("a cools for 3s: {what}"));
            prop_assert!(!cools.is_empty());
            drop(shorten_ids(&text));
        }
    }
}
