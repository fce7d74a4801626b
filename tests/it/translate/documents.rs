//! Checks that `docs/translation.md` matches the code.

use std::{fs, path::Path};

use aiproxy::dialect::losses;

#[test]
fn losses_in_the_docs_match_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/translation.md");
    let text = fs::read_to_string(&path).expect("the docs are there");
    let (begin, end) = ("<!-- losses: written by a test -->\n", "<!-- end of losses -->");
    let (before, rest) = text.split_once(begin).expect("where the losses begin");
    let (_, after) = rest.split_once(end).expect("where the losses end");
    let wanted = format!("{before}{begin}\n{}\n{end}{after}", losses::to_markdown());
    if std::env::var_os("WRITE_EXPECTED").is_some() {
        fs::write(&path, &wanted).expect("written");
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|now| now == wanted),
        "docs/translation.md is old; WRITE_EXPECTED=1 writes it"
    );
}
