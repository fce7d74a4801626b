//! Reads the ledger for commands: through the running proxy, or from its file if no proxy is
//! running.

use crate::{
    base::{
        clock::{Clock, SystemClock},
        timezone::timezone_by_name,
    },
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
    },
    control::history::{ControlQueryError, HistoryPage, HistoryQuery, UsageQuery},
    ledger::{
        LedgerReader,
        query::{QueryError, RequestDetail},
        totals::UsageReport,
    },
};

/// The source of ledger queries.
pub(super) enum LedgerSource {
    File(Box<LedgerReader>),
    Proxy(Box<RunningProxy>),
}

impl LedgerSource {
    /// Opens the running proxy, or else the file.
    ///
    /// # Errors
    ///
    /// Neither is available.
    pub(super) async fn open(ctx: &CommandContext) -> Result<Self, CliError> {
        if let Some(proxy) = RunningProxy::try_connect(ctx)? {
            return Ok(Self::Proxy(Box::new(proxy)));
        }
        let file = edit_file::load_or_empty(ctx)?;
        let path = file.paths.data.join(&file.settings.ledger.path);
        match LedgerReader::open(&path, timezone_by_name(&file.settings.ledger.tz)) {
            Ok(reader) => Ok(Self::File(Box::new(reader))),
            Err(QueryError::Missing) => Err(attach::not_running_error(ctx).await),
            Err(error) => Err(CliError::failed(format!("{}: {error}", path.display()))),
        }
    }

    /// The proxy, if it is the source.
    pub(super) fn proxy(&self) -> Option<&RunningProxy> {
        match self {
            Self::File(_) => None,
            Self::Proxy(proxy) => Some(proxy),
        }
    }

    pub(super) async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, CliError> {
        match self {
            Self::File(reader) => {
                query.run(reader, SystemClock.unix()).map_err(|e| query_error(&e))
            }
            Self::Proxy(proxy) => Ok(proxy.client.get_json(&query.path()).await?),
        }
    }

    pub(super) async fn usage(&self, query: &UsageQuery) -> Result<UsageReport, CliError> {
        match self {
            Self::File(reader) => {
                query.run(reader, SystemClock.unix()).map_err(|e| query_error(&e))
            }
            Self::Proxy(proxy) => Ok(proxy.client.get_json(&query.path()).await?),
        }
    }

    /// Fetches one request by its id, a unique prefix of it, or `last`.
    pub(super) async fn request_detail(&self, id: &str) -> Result<RequestDetail, CliError> {
        let known = id == "last" || (!id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()));
        if !known {
            return Err(query_error(&QueryError::Unknown(id.to_owned()).into()));
        }
        match self {
            Self::File(reader) => {
                reader.request_detail(id).map_err(|error| query_error(&error.into()))
            }
            Self::Proxy(proxy) => {
                Ok(proxy.client.get_json(&format!("/aiproxy/v1/requests/{id}/full")).await?)
            }
        }
    }
}

fn query_error(error: &ControlQueryError) -> CliError {
    let text = error.to_string();
    match error {
        ControlQueryError::BadQuery(_) => {
            CliError { exit: ExitStatus::Usage, ..CliError::failed(text) }
        }
        ControlQueryError::Ledger(QueryError::Ambiguous(_) | QueryError::Unknown(_)) => {
            CliError::failed(text)
                .hint("`aiproxy log` lists the ids; `last` is the newest finished request")
        }
        ControlQueryError::Ledger(_) => CliError::failed(text),
    }
}
