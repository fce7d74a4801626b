//! `aiproxy tui`: the dashboard of the running proxy, or of one started for it.
