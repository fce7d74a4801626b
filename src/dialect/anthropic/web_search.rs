//! Searches that another provider ran, in the form of this API's own searches: a
//! `server_tool_use` block and its `web_search_tool_result` (Anthropic's page of the web search
//! tool). The common form of a search between dialects is the item `web_search_call` of Responses.

use crate::{
    base::json::{reader::JsonRef, writer},
    dialect::anthropic::blocks_read::PLACEHOLDER_SIGNATURE,
    ir::{block::Citation, op::Dialect},
};

/// A search by another provider.
pub(super) struct ForeignSearch {
    query: String,
    /// Address and title of each page that it found, if the provider names them.
    sources: Vec<(String, String)>,
}

impl ForeignSearch {
    /// Reads a block of another dialect; `None` if it is no search.
    pub(super) fn read(dialect: Dialect, body: JsonRef<'_>) -> Option<Self> {
        let is_search = dialect == Dialect::Responses
            && body.string_at("type").as_deref() == Some("web_search_call");
        if !is_search {
            return None;
        }
        let action = body.get("action");
        let query = action.and_then(|action| {
            action
                .non_empty_at("query")
                .or_else(|| action.get("queries")?.strings().into_iter().next())
        });
        let sources = action.and_then(|action| action.get("sources"));
        Some(Self {
            query: query.unwrap_or_default(),
            sources: sources
                .into_iter()
                .flat_map(JsonRef::items)
                .filter_map(|source| {
                    let url = source.non_empty_at("url")?;
                    Some((url, source.string_at("title").unwrap_or_default()))
                })
                .collect(),
        })
    }

    /// Takes the pages that the answer cites for those that were found, if none are named.
    pub(super) fn add_cited<'c>(&mut self, citations: impl Iterator<Item = &'c Citation>) {
        if !self.sources.is_empty() {
            return;
        }
        for citation in citations {
            let Some(url) = &citation.url else { continue };
            if self.sources.iter().all(|(known, _)| known != url) {
                self.sources.push((url.clone(), citation.title.clone().unwrap_or_default()));
            }
        }
    }

    /// Writes the two blocks. `number` counts the searches of an answer; `answer` is its id.
    pub(super) fn blocks(&self, answer: &str, number: u32) -> [String; 2] {
        let id = format!("srvtoolu_{PLACEHOLDER_SIGNATURE}_{answer}_{number}");
        let call = writer::object(|o| {
            o.str("type", "server_tool_use").str("id", &id).str("name", "web_search");
            o.object("input", |o| {
                o.str("query", &self.query);
            });
        });
        let result = writer::object(|o| {
            o.str("type", "web_search_tool_result").str("tool_use_id", &id);
            o.array("content", |a| {
                for (url, title) in &self.sources {
                    a.object(|o| {
                        o.str("type", "web_search_result").str("url", url).str("title", title);
                        o.str("encrypted_content", "").null("page_age");
                    });
                }
            });
        });
        [call, result]
    }
}

/// Whether a block of a request is one that [`ForeignSearch`] made: no provider knows it.
pub(super) fn is_made(block: JsonRef<'_>) -> bool {
    let id = block.get("id").or_else(|| block.get("tool_use_id")).and_then(JsonRef::str);
    id.is_some_and(|id| {
        id.strip_prefix("srvtoolu_").is_some_and(|id| id.starts_with(PLACEHOLDER_SIGNATURE))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::raw::RawJson;

    #[test]
    fn web_search_becomes_a_call_and_its_result() {
        let item =
            RawJson::parse(r#"{"type":"web_search_call","action":{"type":"search","query":"q"}}"#)
                .unwrap();
        let mut search = ForeignSearch::read(Dialect::Responses, item.json()).unwrap();
        let cited = Citation { url: Some("https://a".to_owned()), ..Citation::default() };
        search.add_cited([&cited, &cited].into_iter());
        let [call, result] = search.blocks("x", 0);
        assert!(call.contains(r#""name":"web_search","input":{"query":"q"}"#), "{call}");
        assert_eq!(result.matches("https://a").count(), 1, "{result}");
        for block in [call, result] {
            assert!(is_made(RawJson::parse(&block).unwrap().json()), "{block}");
        }
        let other = RawJson::parse(r#"{"type":"server_tool_use","id":"srvtoolu_01"}"#).unwrap();
        assert!(!is_made(other.json()));
        assert!(ForeignSearch::read(Dialect::Anthropic, item.json()).is_none());
    }
}
