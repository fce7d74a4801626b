//! `additional_tools` items: tools that a client adds in the middle of a conversation. Other
//! dialects get them among the tools; this one gets the items back where they stood, so that what
//! the provider cached before them stays valid.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    dialect::responses::items_read::{DIALECT, item_type},
    ir::{extras::Extras, tool::Tool},
};

pub(in crate::dialect::responses) const ADDITIONAL_TOOLS: &str = "additional_tools";

/// The extra of a request that has the items, each with the number of items after it.
const ITEMS_NOTE: &str = "additional_tools_items";

/// Remembers the items of an input.
pub(in crate::dialect::responses) fn remember(extras: &mut Extras, input: Option<JsonRef<'_>>) {
    let is_one = |item: &JsonRef<'_>| item_type(*item) == ADDITIONAL_TOOLS;
    let Some(input) = input.filter(|input| input.items().any(|item| is_one(&item))) else { return };
    let count = input.items().count();
    let note = writer::object(|o| {
        o.array("items", |a| {
            for (at, item) in input.items().enumerate().filter(|(_, item)| is_one(item)) {
                a.object(|o| {
                    o.num("after", (count - 1 - at) as u64).json("item", item);
                });
            }
        });
    });
    if let Some(note) = RawJson::parse(&note) {
        extras.push_dialect_only(DIALECT, ITEMS_NOTE, note);
    }
}

/// Puts the items back among those of an input.
pub(in crate::dialect::responses) fn put_back(extras: &Extras, items: Vec<String>) -> Vec<String> {
    let Some(note) = extras.get(DIALECT, ITEMS_NOTE) else { return items };
    let mut own: Vec<(usize, String)> = note
        .json()
        .get("items")
        .into_iter()
        .flat_map(JsonRef::items)
        .filter_map(|row| {
            let after = usize::try_from(row.get("after")?.u64()?).ok()?;
            Some((after, row.get("item")?.text().to_owned()))
        })
        .collect();
    own.reverse();
    let mut out = Vec::with_capacity(items.len() + own.len());
    // From the end, because the first items may have become instructions.
    let mut others = items.into_iter().rev();
    for (after, item) in own {
        while out.len() < after {
            let Some(other) = others.next() else { break };
            out.push(other);
        }
        out.push(item);
    }
    out.extend(others);
    out.reverse();
    out
}

/// Whether an item that is put back has the tool.
pub(in crate::dialect::responses) fn has(extras: &Extras, tool: &Tool) -> bool {
    tool.is_from_input() && extras.get(DIALECT, ITEMS_NOTE).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_restored_at_their_positions() {
        let input = r#"[{"role":"system"},{"role":"user"},{"type":"additional_tools","tools":[1]},{"role":"assistant"},{"type":"additional_tools","tools":[2]},{"type":"additional_tools","tools":[3]}]"#;
        let input = RawJson::parse(input).expect("JSON");
        let mut extras = Extras::default();
        remember(&mut extras, Some(input.json()));

        let written = put_back(&extras, vec!["user".to_owned(), "assistant".to_owned()]);

        let added = |n: u8| format!(r#"{{"type":"additional_tools","tools":[{n}]}}"#);
        assert_eq!(
            written,
            ["user".to_owned(), added(1), "assistant".to_owned(), added(2), added(3)]
        );
        assert_eq!(put_back(&extras, Vec::new()), [added(1), added(2), added(3)]);
        assert_eq!(put_back(&Extras::default(), vec!["a".to_owned()]), ["a"]);
    }
}
