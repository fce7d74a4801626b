//! Turns HTML into readable Markdown. Tolerant of any input, and linear in its length.

use std::fmt::Write as _;

/// Elements whose content is not read.
const SKIPPED: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "head", "nav", "iframe", "object", "select",
];

/// Returns the text of a page as Markdown; links become absolute.
#[must_use]
pub(super) fn to_markdown(page: &str, base: &reqwest::Url) -> String {
    let title = title(page);
    let mut writer = MarkdownWriter::new(base);
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        writer.text(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let begins = rest[1..]
            .starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        let end = begins.then(|| tag_end(rest)).flatten();
        let Some(end) = end else {
            writer.text("<");
            rest = &rest[1..];
            continue;
        };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        if !tag.starts_with('/') && SKIPPED.contains(&name.as_str()) && !tag.ends_with('/') {
            rest = skip_element(rest, &name);
            continue;
        }
        writer.tag(&name, tag);
    }
    writer.text(rest);
    let body = tidy(&writer.out);
    match title {
        Some(title) if !body.starts_with("# ") => format!("# {title}\n\n{body}"),
        _ => body,
    }
}

/// Returns the position of the `>` that ends a tag, outside quotes.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, b) in text.bytes().enumerate().skip(1) {
        match (quote, b) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') if text.as_bytes()[at - 1] == b'=' => quote = Some(b),
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
    }
    None
}

fn skip_element<'a>(rest: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(at) = rest[from..].find("</") {
        let start = from + at + 2;
        let found = rest.get(start..start + name.len());
        if found.is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return rest[start..].split_once('>').map_or("", |(_, after)| after);
        }
        from = start;
    }
    ""
}

fn title(page: &str) -> Option<String> {
    let at = page.find("<title").or_else(|| page.find("<TITLE"))?;
    let (_, rest) = page[at..].split_once('>')?;
    let text = rest.split('<').next().unwrap_or_default();
    let text = decode(text).split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

struct MarkdownWriter<'a> {
    out: String,
    base: &'a reqwest::Url,
    /// Targets of open links; `None` for anchors without one.
    links: Vec<Option<String>>,
    /// Open lists: `Some` counts the items of an ordered one.
    lists: Vec<Option<usize>>,
    preformatted: usize,
    row_cells: usize,
    rows: usize,
}

impl<'a> MarkdownWriter<'a> {
    fn new(base: &'a reqwest::Url) -> Self {
        Self {
            out: String::new(),
            base,
            links: Vec::new(),
            lists: Vec::new(),
            preformatted: 0,
            row_cells: 0,
            rows: 0,
        }
    }

    fn text(&mut self, text: &str) {
        let text = decode(text);
        if self.preformatted > 0 {
            self.out.push_str(&text);
            return;
        }
        let mut pending_space = text.starts_with(char::is_whitespace);
        for word in text.split_whitespace() {
            if pending_space && !self.out.ends_with(['\n', ' ']) && !self.out.is_empty() {
                self.out.push(' ');
            }
            self.out.push_str(word);
            pending_space = true;
        }
        if text.ends_with(char::is_whitespace) && !self.out.ends_with(['\n', ' ']) {
            self.out.push(' ');
        }
    }

    fn block(&mut self) {
        if !self.out.is_empty() {
            self.out.push_str("\n\n");
        }
    }

    fn tag(&mut self, name: &str, tag: &str) {
        let closes = tag.starts_with('/');
        match name {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.block();
                if !closes {
                    let level = usize::from(name.as_bytes()[1] - b'0');
                    self.out.push_str(&"#".repeat(level));
                    self.out.push(' ');
                }
            }
            "b" | "strong" => self.out.push_str("**"),
            "i" | "em" => self.out.push('*'),
            "code" if self.preformatted == 0 => self.out.push('`'),
            "pre" => {
                self.preformatted = if closes {
                    self.preformatted.saturating_sub(1)
                } else {
                    self.preformatted + 1
                };
                self.out.push_str("\n```\n");
            }
            "br" => self.out.push('\n'),
            "hr" => self.out.push_str("\n\n---\n\n"),
            "a" => self.link(tag, closes),
            "img" if !closes => {
                if let (Some(source), Some(alt)) = (attribute(tag, "src"), attribute(tag, "alt"))
                    && !alt.is_empty()
                    && !source.starts_with("data:")
                {
                    let source = self.absolute(&source);
                    // Writing to a `String` cannot fail.
                    write!(self.out, "![{alt}]({source})").unwrap_or_default();
                }
            }
            "ul" | "ol" => {
                if closes {
                    self.lists.pop();
                } else if self.lists.len() < 16 {
                    self.lists.push((name == "ol").then_some(0));
                }
                self.block();
            }
            "li" if !closes => self.item(),
            "tr" => self.row(closes),
            "td" | "th" if !closes => {
                self.out.push_str("| ");
                self.row_cells += 1;
            }
            "td" | "th" => self.out.push(' '),
            "table" => {
                self.rows = 0;
                self.block();
            }
            "blockquote" if !closes => {
                self.block();
                self.out.push_str("> ");
            }
            "p" | "div" | "section" | "article" | "main" | "header" | "footer" | "aside"
            | "form" | "figure" | "dl" | "dt" | "dd" | "blockquote" | "body" | "details"
            | "summary" => {
                self.block();
            }
            _ => {}
        }
    }

    fn item(&mut self) {
        let depth = self.lists.len().saturating_sub(1);
        self.out.push('\n');
        self.out.push_str(&"  ".repeat(depth));
        match self.lists.last_mut() {
            Some(Some(count)) => {
                *count += 1;
                write!(self.out, "{count}. ").unwrap_or_default();
            }
            _ => self.out.push_str("- "),
        }
    }

    fn row(&mut self, closes: bool) {
        if !closes {
            self.out.push('\n');
            self.row_cells = 0;
            return;
        }
        self.out.push('|');
        self.rows += 1;
        if self.rows == 1 && self.row_cells > 0 {
            self.out.push('\n');
            self.out.push_str(&"| --- ".repeat(self.row_cells.min(64)));
            self.out.push('|');
        }
    }

    fn link(&mut self, tag: &str, closes: bool) {
        if closes {
            if let Some(Some(target)) = self.links.pop() {
                write!(self.out, "]({target})").unwrap_or_default();
            }
            return;
        }
        let target = attribute(tag, "href").filter(|target| {
            !target.is_empty() && !target.starts_with('#') && !target.starts_with("javascript:")
        });
        let target = target.map(|target| self.absolute(&target));
        if target.is_some() {
            self.out.push('[');
        }
        if self.links.len() < 64 {
            self.links.push(target);
        }
    }

    fn absolute(&self, target: &str) -> String {
        self.base.join(target).map_or_else(|_| target.to_owned(), |url| url.to_string())
    }
}

/// Returns the value of an attribute.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut from = 0;
    loop {
        let at = from + tag[from..].find(name)?;
        let before = tag[..at].chars().next_back();
        let rest = tag[at + name.len()..].trim_start();
        from = at + name.len();
        let Some(value) = rest.strip_prefix('=') else { continue };
        if !before.is_some_and(char::is_whitespace) {
            continue;
        }
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
            _ => value.split([' ', '\t', '\n', '>']).next().unwrap_or_default(),
        };
        return Some(decode(value).trim().to_owned());
    }
}

/// Replaces character references.
fn decode(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|b| b == b';');
        let found = end.and_then(|end| Some((reference(&rest[1..end])?, end)));
        match found {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn reference(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "copy" => '©',
        "laquo" => '«',
        "raquo" => '»',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "bull" => '•',
        "middot" => '·',
        "euro" => '€',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "eacute" => 'é',
        _ => return None,
    })
}

/// Removes spaces at the ends of lines and empty lines in a row.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line = line.trim_end();
        if line.trim().is_empty() {
            empty += 1;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        out.push_str(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_readable() {
        let base = reqwest::Url::parse("https://a.example/dir/page").expect("a URL");
        let page = "<html><head><title>T &amp; U</title><script>evil('</p>')</script></head><body>\
            <nav>menu</nav><article><h1>Head</h1><p>Some <b>bold</b> text with a \
            <a href='/x'>link</a>.</p><ul><li>one<li>two</ul><table><tr><th>a<th>b</tr>\
            <tr><td>1<td>2</tr></table><pre>x\n  y</pre></article></body></html>";
        let text = to_markdown(page, &base);
        for part in ["# Head", "**bold**", "[link](https://a.example/x)", "- one", "- two", "```"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for gone in ["evil", "menu", "<p>", "<html"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(page in "[<>a-z/&;#\"'= !-]{0,300}") {
            let base = reqwest::Url::parse("https://a.example/").expect("a URL");
            let text = to_markdown(&page, &base);
            proptest::prop_assert!(text.len() <= page.len() * 40 + 100);
        }
    }
}
