//! Writes the Prometheus text format (version 0.0.4).

use std::fmt::{Display, Write};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes a page of metrics.
#[derive(Debug, Default)]
pub struct TextEncoder {
    out: String,
    /// The family that the next samples belong to.
    family_name: &'static str,
}

impl TextEncoder {
    /// Starts a family; its samples follow.
    pub fn begin_family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family_name = name;
        self.write_text(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Writes one sample of the family.
    pub fn write_sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.write_line("", labels, None, value);
    }

    /// Writes a family with a single sample.
    pub fn write_single(
        &mut self,
        name: &'static str,
        kind: &str,
        help: &str,
        value: impl Display,
    ) {
        self.begin_family(name, kind, help);
        self.write_sample(&[], value);
    }

    /// Writes a histogram of the family from non-cumulative bucket counts; there is one count more
    /// than there are bounds.
    pub fn write_histogram(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        let mut total = 0;
        for (at, count) in counts.iter().enumerate() {
            total += count;
            let bound = bounds.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            self.write_line("_bucket", labels, Some(&bound), total);
        }
        self.write_line("_sum", labels, None, sum);
        self.write_line("_count", labels, None, total);
    }

    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn write_line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) {
        let name = self.family_name;
        self.write_text(format_args!("{name}{suffix}"));
        let mut open = '{';
        for (label, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.write_text(format_args!("{open}{label}=\""));
            escape_label(value, &mut self.out);
            self.out.push('"');
            open = ',';
        }
        if open == ',' {
            self.out.push('}');
        }
        self.write_text(format_args!(" {value}\n"));
    }

    fn write_text(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        self.out.write_fmt(text).unwrap_or_default();
    }
}

fn escape_label(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_histograms_follow_the_text_format() {
        let mut page = TextEncoder::default();
        page.begin_family("a_total", "counter", "How many");
        page.write_sample(&[("model", "we\"ird\\\nname\u{1b}")], 3);
        page.begin_family("b_seconds", "histogram", "How long");
        page.write_histogram(&[("x", "y")], &[0.5, 1.0], &[1, 0, 2], 7.25);
        page.write_single("c", "gauge", "Now", 1.5);

        assert_eq!(
            page.finish(),
            "# HELP a_total How many\n# TYPE a_total counter\na_total{model=\"we\\\"ird\\\\\\nname\u{fffd}\"} 3\n\
             # HELP b_seconds How long\n# TYPE b_seconds histogram\n\
             b_seconds_bucket{x=\"y\",le=\"0.5\"} 1\nb_seconds_bucket{x=\"y\",le=\"1\"} 1\nb_seconds_bucket{x=\"y\",le=\"+Inf\"} 3\n\
             b_seconds_sum{x=\"y\"} 7.25\nb_seconds_count{x=\"y\"} 3\n\
             # HELP c Now\n# TYPE c gauge\nc 1.5\n"
        );
    }
}
