//! The only way to write to the screen: sanitizes every text, clips it to its width, and uses theme
//! roles for colour.

use ratatui::{buffer::Buffer, layout::Rect, style::Modifier};

use crate::{
    base::sanitize::{clean, display_width, truncate_end},
    tui::theme::{Theme, ThemeRole},
};

/// A piece of text and its role.
pub type StyledSpan = (String, ThemeRole);

/// A piece of text and its role.
#[must_use]
pub fn span(text: impl Into<String>, role: ThemeRole) -> StyledSpan {
    (text.into(), role)
}

/// The width of a row of spans.
#[must_use]
pub fn spans_width(spans: &[StyledSpan]) -> u16 {
    spans.iter().fold(0, |sum, (text, _)| sum.saturating_add(columns(&clean(text))))
}

fn columns(text: &str) -> u16 {
    u16::try_from(display_width(text)).unwrap_or(u16::MAX)
}

/// A frame being drawn.
pub struct Canvas<'a> {
    pub buffer: &'a mut Buffer,
    pub theme: &'a Theme,
}

impl Canvas<'_> {
    /// Writes a text in at most `max_width` columns and returns the column where it ended.
    pub fn put(&mut self, x: u16, y: u16, max_width: u16, text: &str, role: ThemeRole) -> u16 {
        let area = self.buffer.area;
        if x >= area.right() || y >= area.bottom() || x < area.left() || y < area.top() {
            return x;
        }
        let max_width = max_width.min(area.right() - x);
        // Truncate long text early: no more than this could ever be visible.
        let text = match text.char_indices().nth(1_000) {
            Some((end, _)) => &text[..end],
            None => text,
        };
        let text = clean(text);
        let text = truncate_end(&text, usize::from(max_width));
        self.buffer.set_stringn(x, y, &text, usize::from(max_width), self.theme.style(role)).0
    }

    /// Writes spans one after the other.
    pub fn spans(&mut self, x: u16, y: u16, max_width: u16, spans: &[StyledSpan]) -> u16 {
        let end = x.saturating_add(max_width);
        spans.iter().fold(x, |x, (text, role)| self.put(x, y, end.saturating_sub(x), text, *role))
    }

    /// Writes spans so that they end before column `end` and returns where they begin.
    pub fn spans_right(&mut self, from: u16, end: u16, y: u16, spans: &[StyledSpan]) -> u16 {
        let x = end.saturating_sub(spans_width(spans)).max(from);
        self.spans(x, y, end.saturating_sub(x), spans);
        x
    }

    /// A thin line over a row of an area.
    pub fn rule(&mut self, area: Rect, y: u16) {
        if y < area.bottom() {
            self.put(area.x, y, area.width, &"─".repeat(usize::from(area.width)), ThemeRole::Dim);
        }
    }

    /// A thin line with a title.
    pub fn titled_rule(&mut self, area: Rect, y: u16, title: &str) {
        self.rule(area, y);
        self.put(
            area.x.saturating_add(1),
            y,
            area.width.saturating_sub(1),
            &format!(" {title} "),
            ThemeRole::Accent,
        );
    }

    /// Highlights rows of the screen as selected.
    pub fn highlight(&mut self, area: Rect) {
        self.buffer.set_style(area.intersection(self.buffer.area), self.theme.select());
    }

    /// Dims an area to mark it as outdated.
    pub fn fade(&mut self, area: Rect) {
        let style = self.theme.style(ThemeRole::Dim).add_modifier(Modifier::DIM);
        self.buffer.set_style(area.intersection(self.buffer.area), style);
    }

    /// Replaces every glyph that a terminal without UTF-8 cannot show.
    pub fn replace_non_ascii(&mut self) {
        for cell in &mut self.buffer.content {
            if !cell.symbol().is_ascii() {
                let c = cell.symbol().chars().next().map_or(' ', ascii_glyph);
                cell.set_char(c);
            }
        }
    }
}

fn ascii_glyph(glyph: char) -> char {
    match glyph {
        '●' => '*',
        '○' => 'o',
        '▲' => '^',
        '✕' => 'x',
        '▸' | '→' => '>',
        '▾' => 'v',
        '▁' | '▂' | '·' => '.',
        '▃' | '▄' | '▅' => ':',
        '▆' | '▇' | '│' => '|',
        '█' | '▉' | '▊' | '▋' | '▌' => '#',
        '▍' | '▎' | '▏' => '-',
        '≥' => '>',
        '┌' | '└' => '+',
        '▒' => '=',
        '…' => '~',
        '–' | '—' | '─' | '░' | '◐'..='◓' => '-',
        _ => '?',
    }
}
