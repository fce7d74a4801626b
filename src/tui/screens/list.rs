//! The mechanism that all lists of the dashboard share: the rows that pass the filter, their order,
//! the part that is visible, and the table.

use ratatui::layout::Rect;

use crate::tui::{
    app::{App, ListRow, RowId},
    format::FrameContext,
    strings::TextFn,
    theme::ThemeRole,
    widgets::{
        canvas::{Canvas, StyledSpan},
        table::{self, Column, RowDetail, TableRows},
    },
};

/// One list of the dashboard.
pub(super) trait List: Sized {
    /// The names of the columns.
    type Column: Copy + PartialEq;
    type Row<'a>;

    /// The label of the default order, and the column that shows it.
    const DEFAULT_ORDER: (TextFn, Option<Self::Column>);

    /// The columns in display order. Those that can be sorted are always among them.
    fn columns<'a>(app: &App) -> Vec<ListColumn<'a, Self>>;

    /// The rows that pass the filter, in the default order.
    fn rows(app: &App) -> Vec<Self::Row<'_>>;

    /// The identity of a row.
    fn id(row: &Self::Row<'_>) -> RowId;

    /// The number of lines that `details` returns.
    fn detail_count(_: &Self::Row<'_>) -> usize {
        0
    }

    /// The lines under a row.
    fn details(
        _: &Self::Row<'_>,
        _: FrameContext,
        _: &RowDetail<Self::Column>,
    ) -> Vec<Vec<StyledSpan>> {
        Vec::new()
    }

    /// The text of a list without rows.
    fn empty_text(app: &App, now: FrameContext) -> String;
}

/// A column of a list.
pub(super) type ListColumn<'a, L> = Column<<L as List>::Column, <L as List>::Row<'a>>;

/// The labels of the orders that `s` cycles through: the default, then one per sortable column.
pub(super) fn orders<L: List>(app: &App) -> Vec<TextFn> {
    let sorts = L::columns(app).into_iter().filter_map(|column| column.sort);
    std::iter::once(L::DEFAULT_ORDER.0).chain(sorts.map(|sort| sort.label)).collect()
}

/// The column that the user sorts by; `None` is the default order.
fn chosen_column<'c, C, R>(app: &App, columns: &'c [Column<C, R>]) -> Option<&'c Column<C, R>> {
    let nth = app.list_state().sort.checked_sub(1)?;
    columns.iter().filter(|column| column.sort.is_some()).nth(nth)
}

/// The rows in display order.
pub(super) fn sorted_rows<L: List>(app: &App) -> Vec<L::Row<'_>> {
    let mut rows = L::rows(app);
    let columns = L::columns(app);
    if let Some(sort) = chosen_column(app, &columns).and_then(|column| column.sort.as_ref()) {
        (sort.sort)(&mut rows);
    }
    rows
}

/// The identities and heights of the rows, in display order.
pub(super) fn list_rows<L: List>(app: &App) -> Vec<ListRow> {
    let height = |row: &L::Row<'_>| u16::try_from(1 + L::detail_count(row)).unwrap_or(u16::MAX);
    let rows = sorted_rows::<L>(app);
    rows.iter().map(|row| ListRow { id: L::id(row), height: height(row) }).collect()
}

/// The text of an empty list: whether a filter hides all rows or there are none.
pub(super) fn empty_text(app: &App, empty: &str, no_match: &str) -> String {
    if app.list_state().filter.is_empty() { empty.to_owned() } else { no_match.to_owned() }
}

/// Draws the list of the current screen.
pub(super) fn draw<L: List>(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = sorted_rows::<L>(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = L::empty_text(app, now);
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), &text, ThemeRole::Dim);
        return;
    }
    let list = app.list_state();
    let visible = rows.get(list.offset..).unwrap_or_default();
    let selected =
        list.selected.as_ref().and_then(|id| visible.iter().position(|row| L::id(row) == *id));
    let columns = L::columns(app);
    let sorted = chosen_column(app, &columns).map_or(L::DEFAULT_ORDER.1, |column| Some(column.id));
    let table = TableRows {
        rows: visible,
        selected,
        following: list.selected.is_none() && list.offset == 0,
        details: L::details,
        sorted,
    };
    table::draw(canvas, area, &columns, &table, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{
        screen::Screen,
        screens::{self, keys::KeyList, live::LiveList},
        tests::sample,
    };

    #[test]
    fn every_sort_order_shows_the_same_rows() {
        for screen in Screen::ALL {
            let mut app = sample::app();
            app.screen = screen;
            let ids = |app: &App| {
                let rows = screens::list_rows(app).into_iter().map(|row| format!("{:?}", row.id));
                let mut ids: Vec<_> = rows.collect();
                ids.sort();
                ids
            };
            let default = ids(&app);
            for order in 1..screens::orders(&app).len() {
                app.list_state_mut().sort = order;
                assert_eq!(ids(&app), default, "{screen:?} in order {order}");
            }
        }
    }

    #[test]
    fn sorting_is_stable_and_keeps_running_requests_on_top() {
        let mut app = sample::app();
        let running = app.live().unwrap().running.len();
        app.list_state_mut().sort = 1;
        let rows = sorted_rows::<LiveList>(&app);
        assert!(rows[..running].iter().all(|r| r.is_running()));
        assert!(rows[running..].is_sorted_by_key(|r| std::cmp::Reverse(r.duration_ms)));

        app.screen = Screen::Keys;
        let keys = |app: &App| -> Vec<RowId> {
            sorted_rows::<KeyList>(app).iter().map(KeyList::id).collect()
        };
        let default = keys(&app);
        app.list_state_mut().sort = 1;
        let key = |name: &str| RowId::Name(name.to_owned());
        assert_eq!(keys(&app)[0], key("limited/LIMITED_KEY"), "the worst state first");
        assert_eq!(default[0], key("healthy/work"));
    }
}
