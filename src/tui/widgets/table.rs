//! Tables whose columns have fixed places for a width, and leave in a fixed order when there is no
//! room.

use ratatui::layout::Rect;

use super::canvas::{Canvas, Span, spans_width};
use crate::tui::{format::Now, text::Word, theme::Role};

/// Columns before the first one, for the mark of the selected row.
const MARK: u16 = 3;
/// Columns that lines under a row stand further in.
const BELOW: u16 = 2;

/// A column of rows of type `R`.
pub struct Column<R> {
    pub title: Word,
    pub min: u16,
    pub max: u16,
    pub right: bool,
    /// 0 stays; else the lowest leaves first.
    pub leaves: u8,
    /// What stands there, in at most that many columns.
    pub cell: fn(&R, Now, usize) -> Vec<Span>,
}

/// The rows to draw: those from the first one shown.
pub struct Rows<'a, R> {
    pub rows: &'a [&'a R],
    /// Place of the selected one among them.
    pub selected: Option<usize>,
    /// Whether the mark stands at the first row only because none is selected.
    pub following: bool,
    /// Lines under a row.
    pub below: fn(&R, Now, &Under<'_, R>) -> Vec<Vec<Span>>,
    /// The column that the order goes by, by its place.
    pub sorted: Option<usize>,
}

/// The room of lines under a row.
pub struct Under<'a, R> {
    /// Columns they have.
    pub room: usize,
    places: &'a [(&'a Column<R>, u16, u16)],
    columns: &'a [Column<R>],
}

impl<R> Under<'_, R> {
    /// Where a column of the table begins, counted from the beginning of such a line; `None` where
    /// it left.
    #[must_use]
    pub fn begins(&self, column: usize) -> Option<usize> {
        let column = self.columns.get(column)?;
        let (_, x, _) = self.places.iter().find(|(kept, ..)| std::ptr::eq(*kept, column))?;
        Some(usize::from(x.saturating_sub(MARK + BELOW)))
    }
}

/// No lines under rows.
pub fn nothing_below<R>(_: &R, _: Now, _: &Under<'_, R>) -> Vec<Vec<Span>> {
    Vec::new()
}

/// Draws head and rows.
pub fn draw<R>(
    canvas: &mut Canvas<'_>,
    area: Rect,
    columns: &[Column<R>],
    rows: &Rows<'_, R>,
    now: Now,
) {
    if area.height == 0 {
        return;
    }
    let places = fit(columns, area.width);
    let sorted = rows.sorted.and_then(|at| columns.get(at));
    for (column, x, wide) in &places {
        let role = if sorted.is_some_and(|sorted| std::ptr::eq(sorted, *column)) {
            Role::Accent
        } else {
            Role::Dim
        };
        let title = [((column.title)(now.text).to_owned(), role)];
        cell(canvas, area.x + x, area.y, *wide, column.right, &title);
    }
    let mut y = area.y + 1;
    for (at, row) in rows.rows.iter().enumerate() {
        if y >= area.bottom() {
            break;
        }
        let selected = rows.selected == Some(at);
        let from = y;
        if selected {
            canvas.put(area.x + 1, y, 1, "▸", Role::Accent);
        } else if rows.following && at == 0 {
            canvas.put(area.x + 1, y, 1, "▸", Role::Dim);
        }
        for (column, x, wide) in &places {
            cell(
                canvas,
                area.x + x,
                y,
                *wide,
                column.right,
                &(column.cell)(row, now, usize::from(*wide)),
            );
        }
        y += 1;
        let room = area.width.saturating_sub(MARK + BELOW + 1);
        for line in
            (rows.below)(row, now, &Under { room: usize::from(room), places: &places, columns })
        {
            if y < area.bottom() {
                canvas.spans(area.x + MARK + BELOW, y, room, &line);
                y += 1;
            }
        }
        if selected {
            canvas.select(Rect { y: from, height: y - from, ..area });
        }
    }
}

fn cell(canvas: &mut Canvas<'_>, x: u16, y: u16, wide: u16, right: bool, spans: &[Span]) {
    let indent = if right { wide.saturating_sub(spans_width(spans)) } else { 0 };
    canvas.spans(x + indent, y, wide - indent, spans);
}

/// The columns that there is room for, with their place and width.
fn fit<R>(columns: &[Column<R>], width: u16) -> Vec<(&Column<R>, u16, u16)> {
    let gap = if width >= 130 { 2 } else { 1 };
    let room = width.saturating_sub(MARK + 1);
    let mut kept: Vec<&Column<R>> = columns.iter().collect();
    let need = |kept: &[&Column<R>]| {
        kept.iter().map(|c| c.min).sum::<u16>() + gap * (kept.len() as u16).saturating_sub(1)
    };
    while need(&kept) > room {
        let Some(leaver) = kept
            .iter()
            .enumerate()
            .filter(|(_, c)| c.leaves > 0)
            .min_by_key(|(_, c)| c.leaves)
            .map(|(at, _)| at)
        else {
            break;
        };
        kept.remove(leaver);
    }
    let mut widths: Vec<u16> = kept.iter().map(|c| c.min).collect();
    let total =
        |widths: &[u16]| widths.iter().sum::<u16>() + gap * (widths.len() as u16).saturating_sub(1);
    // What is missing is taken from the widest; what is left goes round, more of it to those that
    // can use more.
    while total(&widths) > room {
        let Some(widest) = widths.iter_mut().max().filter(|wide| **wide > 1) else { break };
        *widest -= 1;
    }
    let mut left = room.saturating_sub(total(&widths));
    let mut grew = true;
    while grew && left > 0 {
        grew = false;
        for (wide, column) in widths.iter_mut().zip(&kept) {
            let more = (1 + (column.max - column.min) / 16)
                .min(column.max.saturating_sub(*wide))
                .min(left);
            *wide += more;
            left -= more;
            grew |= more > 0;
        }
    }
    let mut x = MARK;
    kept.into_iter()
        .zip(widths)
        .map(|(column, wide)| {
            let place = (column, x, wide);
            x += wide + gap;
            place
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(min: u16, max: u16, leaves: u8) -> Column<()> {
        Column {
            title: |text| &text.col.model,
            min,
            max,
            right: false,
            leaves,
            cell: |(), _, _| Vec::new(),
        }
    }

    #[test]
    fn columns_leave_in_their_order_and_grow_up_to_their_most() {
        let columns = [column(10, 20, 0), column(10, 10, 1), column(10, 10, 2)];
        let at = |width| {
            fit(&columns, width).into_iter().map(|(c, x, w)| (c.leaves, x, w)).collect::<Vec<_>>()
        };

        assert_eq!(at(60), [(0, 3, 20), (1, 24, 10), (2, 35, 10)]);
        assert_eq!(at(36), [(0, 3, 10), (1, 14, 10), (2, 25, 10)]);
        assert_eq!(at(35), [(0, 3, 20), (2, 24, 10)]);
        assert_eq!(at(12), [(0, 3, 8)]);
    }
}
