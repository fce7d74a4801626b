//! The selected row of a list and the scroll position that keeps it visible.

use crate::tui::{
    app::{App, ListRow, RowId},
    format::FrameContext,
    layout::Layout,
    screens,
};

/// The row that keys act on: the selected one, or else the first.
pub(super) fn current_row(app: &App) -> Option<RowId> {
    app.list_state()
        .selected
        .clone()
        .or_else(|| screens::list_rows(app).into_iter().next().map(|entry| entry.id))
}

/// Moves the selection by rows. If the list follows the top, the first row counts as selected
/// because the mark is there.
pub(super) fn move_selection(app: &mut App, by: isize) {
    let entries = screens::list_rows(app);
    let Some(last) = entries.len().checked_sub(1) else { return };
    let list = app.list_state_mut();
    let at = match row_index(&entries, list.selected.as_ref()) {
        Some(at) => at.saturating_add_signed(by).min(last),
        None if by > 0 => by.unsigned_abs().min(last),
        None => 0,
    };
    list.index = at;
    list.selected = entries.into_iter().nth(at).map(|entry| entry.id);
}

/// Clamps the selection and scroll position to the existing rows, before each frame.
pub(super) fn clamp_selection(app: &mut App, now: FrameContext) {
    let entries = screens::list_rows(app);
    let (columns, rows) = app.size;
    let body = Layout::compute(app, columns, rows, now).body;
    let max_height = screens::list_area(app, body).height;
    let list = app.list_state_mut();
    if list.selected.is_some() {
        match row_index(&entries, list.selected.as_ref()) {
            Some(at) => list.index = at,
            None => {
                list.index = list.index.min(entries.len().saturating_sub(1));
                list.selected = entries.get(list.index).map(|entry| entry.id.clone());
            }
        }
    }
    let selected_index = if list.selected.is_some() { list.index } else { 0 };
    list.offset = list.offset.min(selected_index).min(entries.len().saturating_sub(1));
    while list.offset < selected_index
        && total_height(&entries[list.offset..=selected_index]) > max_height
    {
        list.offset += 1;
    }
    // Leave no empty lines at the end while rows are hidden above.
    while list.offset > 0 && total_height(&entries[list.offset - 1..]) <= max_height {
        list.offset -= 1;
    }
}

fn row_index(entries: &[ListRow], id: Option<&RowId>) -> Option<usize> {
    entries.iter().position(|entry| Some(&entry.id) == id)
}

fn total_height(entries: &[ListRow]) -> u16 {
    entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.height))
}
