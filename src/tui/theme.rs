//! Themes map roles to styles. They are data, and no other file names a colour.

use ratatui::style::{Color, Modifier, Style};
use toml_edit::{Document, Item, TableLike, Value};

/// The role of a piece of text. A word or a glyph always shows the state as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThemeRole {
    Accent,
    Error,
    Dim,
    Ok,
    Text,
    Warn,
}

/// One style per role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    accent: Style,
    error: Style,
    dim: Style,
    ok: Style,
    select: Style,
    text: Style,
    warn: Style,
}

const BUILT_IN: [(&str, &str); 4] = [
    ("dark", include_str!("../../assets/themes/dark.toml")),
    ("light", include_str!("../../assets/themes/light.toml")),
    ("contrast", include_str!("../../assets/themes/contrast.toml")),
    ("mono", include_str!("../../assets/themes/mono.toml")),
];

impl Theme {
    /// A built-in theme: `dark`, `light`, `contrast` or `mono`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Self::parse(text)
    }

    /// Parses a theme from a file of roles; `None` if it is invalid. An absent role uses the
    /// terminal's text style.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let document = Document::parse(text).ok()?;
        let role = |name: &str| {
            document.get(name).and_then(Item::as_table_like).map_or(Some(Style::new()), style)
        };
        Some(Self {
            accent: role("accent")?,
            error: role("bad")?,
            dim: role("dim")?,
            ok: role("ok")?,
            select: role("select")?,
            text: role("text")?,
            warn: role("warn")?,
        })
    }

    #[must_use]
    pub fn style(&self, role: ThemeRole) -> Style {
        match role {
            ThemeRole::Accent => self.accent,
            ThemeRole::Error => self.error,
            ThemeRole::Dim => self.dim,
            ThemeRole::Ok => self.ok,
            ThemeRole::Text => self.text,
            ThemeRole::Warn => self.warn,
        }
    }

    /// The overlay style of the selected row.
    #[must_use]
    pub fn select(&self) -> Style {
        self.select
    }
}

fn style(table: &dyn TableLike) -> Option<Style> {
    let mut style = Style::new();
    for (name, value) in table.iter() {
        let value = value.as_value()?;
        let modifier = match name {
            "fg" => {
                style = style.fg(parse_color(value)?);
                continue;
            }
            "bg" => {
                style = style.bg(parse_color(value)?);
                continue;
            }
            "bold" => Modifier::BOLD,
            "dim" => Modifier::DIM,
            "italic" => Modifier::ITALIC,
            "reverse" => Modifier::REVERSED,
            "underline" => Modifier::UNDERLINED,
            _ => return None,
        };
        if value.as_bool()? {
            style = style.add_modifier(modifier);
        }
    }
    Some(style)
}

fn parse_color(value: &Value) -> Option<Color> {
    if let Some(index) = value.as_integer() {
        return u8::try_from(index).ok().map(Color::Indexed);
    }
    let digits = value.as_str()?.strip_prefix('#').filter(|digits| digits.len() == 6)?;
    u32::from_str_radix(digits, 16).ok().map(Color::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_theme_is_valid_and_mono_has_no_colour() {
        for (name, _) in BUILT_IN {
            assert!(Theme::named(name).is_some(), "{name}");
        }
        let mono = Theme::named("mono").unwrap();
        for style in [mono.accent, mono.error, mono.dim, mono.ok, mono.select, mono.text, mono.warn]
        {
            assert_eq!((style.fg, style.bg), (None, None));
        }
        assert_eq!(Theme::named("solarized"), None);
    }

    #[test]
    fn theme_file_sets_colours_and_attributes() {
        let theme =
            Theme::parse("ok = { fg = 114, bold = true }\nbad = { fg = '#ff0000' }").unwrap();
        assert_eq!(
            theme.style(ThemeRole::Ok),
            Style::new().fg(Color::Indexed(114)).add_modifier(Modifier::BOLD)
        );
        assert_eq!(theme.style(ThemeRole::Error).fg, Some(Color::Rgb(255, 0, 0)));
        assert_eq!(Theme::parse("ok = { fg = 300 }"), None);
        assert_eq!(Theme::parse("ok = { colour = 3 }"), None);
        assert_eq!(Theme::parse("not toml"), None);
    }
}
