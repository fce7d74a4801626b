//! README.md and its Chinese translation have the same structure.

use std::{fs, path::Path};

const CHINESE: &str = "docs/README.zh-CN.md";

/// What a translation keeps: everything but the prose.
#[derive(Default)]
struct Outline {
    /// Level of each heading, in order.
    headings: Vec<usize>,
    /// Each code block, with its fences.
    blocks: Vec<String>,
    /// Targets of links and images, from the root of the repository, in order.
    links: Vec<String>,
    /// Each table row as the code spans of its first two cells and its number of bars.
    rows: Vec<String>,
}

fn outline(page: &str) -> Outline {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut found = Outline::default();
    let mut open_block: Option<String> = None;
    for line in text.lines() {
        if let Some(mut block) = open_block.take() {
            block.push_str(line);
            block.push('\n');
            if line == "```" {
                found.blocks.push(block);
            } else {
                open_block = Some(block);
            }
            continue;
        }
        if line.starts_with("```") {
            open_block = Some(format!("{line}\n"));
        } else if line.starts_with('#') {
            found.headings.push(line.bytes().take_while(|byte| *byte == b'#').count());
        } else if line.starts_with('|') {
            found.rows.push(row(line));
        }
        found.links.extend(links(line, page));
    }
    assert!(open_block.is_none(), "{page}: the last code block is not closed");
    found
}

fn row(line: &str) -> String {
    let cells: Vec<&str> = line.split('|').collect();
    let code = cells.iter().take(3).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    format!("{} bars, {:?}", cells.len() - 1, code.collect::<Vec<_>>())
}

/// The targets in `line`, without the links of the two pages to each other.
fn links(line: &str, page: &str) -> Vec<String> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let from_root = targets.map(|target| match target.strip_prefix("../") {
        Some(outside) if page == CHINESE => outside.to_owned(),
        None if page == CHINESE => format!("docs/{target}"),
        _ => target.to_owned(),
    });
    from_root.filter(|target| target != CHINESE && target != "README.md").collect()
}

#[test]
fn the_chinese_readme_follows_the_english_one() {
    let (english, chinese) = (outline("README.md"), outline(CHINESE));
    let parts = [
        ("code blocks", &english.blocks, &chinese.blocks),
        ("links", &english.links, &chinese.links),
        ("table rows", &english.rows, &chinese.rows),
    ];
    for (what, wanted, found) in parts {
        assert!(!wanted.is_empty(), "README.md: no {what} found");
        let first = wanted.iter().zip(found).find(|(left, right)| left != right);
        if let Some((left, right)) = first {
            panic!(
                "{what}: README.md has\n{left}\nwhere {CHINESE} has\n{right}\nTranslate it there"
            );
        }
        assert_eq!(
            wanted.len(),
            found.len(),
            "{what}: README.md and {CHINESE} have different numbers; make the same change in both"
        );
    }
    assert_eq!(
        english.headings, chinese.headings,
        "the headings of README.md and {CHINESE} differ; make the same change in both"
    );
}
