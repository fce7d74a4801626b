//! Draws tables. Columns have fixed positions for a given width and are hidden in a fixed order if
//! space is short.

use std::ops::RangeInclusive;

use ratatui::layout::Rect;

use crate::tui::{
    format::FrameContext,
    strings::TextFn,
    theme::ThemeRole,
    widgets::canvas::{Canvas, StyledSpan, spans_width},
};

/// Columns before the first table column, for the mark of the selected row.
const MARK_WIDTH: u16 = 3;
/// Additional indentation of detail lines, in columns.
const DETAIL_INDENT: u16 = 2;

/// The content of a cell, in at most that many columns.
pub type CellFn<R> = fn(&R, FrameContext, usize) -> Vec<StyledSpan>;

/// The column `id` for rows of type `R`.
pub struct Column<C, R> {
    pub id: C,
    title: TextFn,
    min: u16,
    max: u16,
    align_right: bool,
    hide_order: u8,
    cell: CellFn<R>,
    pub sort: Option<ColumnSort<R>>,
}

/// The order of rows that a column offers.
pub struct ColumnSort<R> {
    pub label: TextFn,
    /// Sorts rows that are in the default order of their list.
    pub sort: fn(&mut [R]),
}

impl<C, R> Column<C, R> {
    /// A column for text, with its minimum and maximum width. Its cells are empty.
    #[must_use]
    pub fn left(id: C, title: TextFn, width: RangeInclusive<u16>) -> Self {
        let (min, max) = width.into_inner();
        let cell: CellFn<R> = |_, _, _| Vec::new();
        Self { id, title, min, max, align_right: false, hide_order: 0, cell, sort: None }
    }

    /// A column for numbers, with its minimum and maximum width. Its cells are empty.
    #[must_use]
    pub fn right(id: C, title: TextFn, width: RangeInclusive<u16>) -> Self {
        Self { align_right: true, ..Self::left(id, title, width) }
    }

    /// Sets the content of the cells.
    #[must_use]
    pub fn cell(self, cell: CellFn<R>) -> Self {
        Self { cell, ..self }
    }

    /// Hides the column if space is short: the column with the lowest number first. A column
    /// without a number always stays.
    #[must_use]
    pub fn hidden(self, hide_order: u8) -> Self {
        Self { hide_order, ..self }
    }

    /// Lets the user sort the rows by this column.
    #[must_use]
    pub fn sortable(self, label: TextFn, sort: fn(&mut [R])) -> Self {
        Self { sort: Some(ColumnSort { label, sort }), ..self }
    }
}

/// The rows to draw, starting with the first visible one.
pub struct TableRows<'a, C, R> {
    pub rows: &'a [R],
    /// Index of the selected row among them.
    pub selected: Option<usize>,
    /// Whether the mark is at the first row only because no row is selected.
    pub following: bool,
    /// The detail lines of a row.
    pub details: fn(&R, FrameContext, &RowDetail<C>) -> Vec<Vec<StyledSpan>>,
    /// The column that the rows are sorted by.
    pub sorted: Option<C>,
}

/// The area of a row's detail lines.
pub struct RowDetail<C> {
    /// The columns that are not hidden, with their positions and widths.
    placed: Vec<(C, u16, u16)>,
}

impl<C: Copy + PartialEq> RowDetail<C> {
    /// The position of a table column within a detail line, and its width; `None` if the column is
    /// hidden.
    #[must_use]
    pub fn column(&self, column: C) -> Option<(usize, usize)> {
        let (_, x, width) = self.placed.iter().find(|(shown, ..)| *shown == column)?;
        Some((usize::from(x.saturating_sub(MARK_WIDTH + DETAIL_INDENT)), usize::from(*width)))
    }
}

/// Draws the header and the rows.
pub fn draw<C: Copy + PartialEq, R>(
    canvas: &mut Canvas<'_>,
    area: Rect,
    columns: &[Column<C, R>],
    rows: &TableRows<'_, C, R>,
    now: FrameContext,
) {
    if area.height == 0 {
        return;
    }
    let placed = fit_columns(columns, area.width);
    for (column, x, wide) in &placed {
        let is_sorted = rows.sorted == Some(column.id);
        let role = if is_sorted { ThemeRole::Accent } else { ThemeRole::Dim };
        let title = [((column.title)(now.text).to_owned(), role)];
        draw_cell(canvas, area.x + x, area.y, *wide, column.align_right, &title);
    }
    let detail_width = area.width.saturating_sub(MARK_WIDTH + DETAIL_INDENT + 1);
    let detail =
        RowDetail { placed: placed.iter().map(|(c, x, width)| (c.id, *x, *width)).collect() };
    let mut y = area.y + 1;
    for (at, row) in rows.rows.iter().enumerate() {
        if y >= area.bottom() {
            break;
        }
        let selected = rows.selected == Some(at);
        let from = y;
        if selected {
            canvas.put(area.x + 1, y, 1, "▸", ThemeRole::Accent);
        } else if rows.following && at == 0 {
            canvas.put(area.x + 1, y, 1, "▸", ThemeRole::Dim);
        }
        for (column, x, wide) in &placed {
            let cell = (column.cell)(row, now, usize::from(*wide));
            draw_cell(canvas, area.x + x, y, *wide, column.align_right, &cell);
        }
        y += 1;
        for line in (rows.details)(row, now, &detail) {
            if y < area.bottom() {
                canvas.spans(area.x + MARK_WIDTH + DETAIL_INDENT, y, detail_width, &line);
                y += 1;
            }
        }
        if selected {
            canvas.highlight(Rect { y: from, height: y - from, ..area });
        }
    }
}

fn draw_cell(
    canvas: &mut Canvas<'_>,
    x: u16,
    y: u16,
    wide: u16,
    right: bool,
    spans: &[StyledSpan],
) {
    let indent = if right { wide.saturating_sub(spans_width(spans)) } else { 0 };
    canvas.spans(x + indent, y, wide - indent, spans);
}

/// The columns that fit, with their position and width.
fn fit_columns<C, R>(columns: &[Column<C, R>], width: u16) -> Vec<(&Column<C, R>, u16, u16)> {
    let gap = if width >= 130 { 2 } else { 1 };
    let max_width = width.saturating_sub(MARK_WIDTH + 1);
    let mut shown: Vec<&Column<C, R>> = columns.iter().collect();
    let need = |shown: &[&Column<C, R>]| {
        shown.iter().map(|c| c.min).sum::<u16>() + gap * (shown.len() as u16).saturating_sub(1)
    };
    while need(&shown) > max_width {
        let Some(leaver) = shown
            .iter()
            .enumerate()
            .filter(|(_, c)| c.hide_order > 0)
            .min_by_key(|(_, c)| c.hide_order)
            .map(|(at, _)| at)
        else {
            break;
        };
        shown.remove(leaver);
    }
    let mut widths: Vec<u16> = shown.iter().map(|c| c.min).collect();
    let total =
        |widths: &[u16]| widths.iter().sum::<u16>() + gap * (widths.len() as u16).saturating_sub(1);
    // If space is short, shrink the widest columns first. Otherwise distribute the rest, with more
    // to the columns that can use more.
    while total(&widths) > max_width {
        let Some(widest) = widths.iter_mut().max().filter(|wide| **wide > 1) else { break };
        *widest -= 1;
    }
    let mut left = max_width.saturating_sub(total(&widths));
    let mut grew = true;
    while grew && left > 0 {
        grew = false;
        for (wide, column) in widths.iter_mut().zip(&shown) {
            let more = (1 + (column.max - column.min) / 16)
                .min(column.max.saturating_sub(*wide))
                .min(left);
            *wide += more;
            left -= more;
            grew |= more > 0;
        }
    }
    let mut x = MARK_WIDTH;
    shown
        .into_iter()
        .zip(widths)
        .map(|(column, wide)| {
            let placed = (column, x, wide);
            x += wide + gap;
            placed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(min: u16, max: u16, hide_order: u8) -> Column<(), ()> {
        Column::left((), |text| &text.col.model, min..=max).hidden(hide_order)
    }

    #[test]
    fn columns_hide_in_order_and_grow_to_their_maximum() {
        let columns = [column(10, 20, 0), column(10, 10, 1), column(10, 10, 2)];
        let at = |width| {
            fit_columns(&columns, width)
                .into_iter()
                .map(|(c, x, w)| (c.hide_order, x, w))
                .collect::<Vec<_>>()
        };

        assert_eq!(at(60), [(0, 3, 20), (1, 24, 10), (2, 35, 10)]);
        assert_eq!(at(36), [(0, 3, 10), (1, 14, 10), (2, 25, 10)]);
        assert_eq!(at(35), [(0, 3, 20), (2, 24, 10)]);
        assert_eq!(at(12), [(0, 3, 8)]);
    }
}
