//! The line of account after a run: what the requests of its project used since it began.

use std::time::Duration;

use crate::{
    base::{clock::UnixMillis, id::RequestId},
    cli::{context::CommandContext, error::CliError, ledger_source::LedgerSource},
    control::history::{HistoryQuery, MAX_PAGE},
    events::record::{AttemptRole, RequestRecord},
    ir::cost::Precision,
    ledger::totals::Totals,
};

/// How often and at which interval the account waits for requests that are ending.
const MAX_WAITS: u32 = 10;
const WAIT_INTERVAL: Duration = Duration::from_millis(100);
/// No run makes more pages of requests than this; it bounds a ledger that answers nonsense.
const MAX_PAGES: usize = 1_000;

/// What a run used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    totals: Totals,
    /// Attempts with another key or at another upstream than the one before.
    failovers: u64,
}

/// Reads what a project used since a time.
///
/// # Errors
///
/// Neither the proxy nor the ledger answers.
pub(super) async fn read(
    ctx: &CommandContext,
    project: &str,
    since: UnixMillis,
) -> Result<Account, CliError> {
    let source = LedgerSource::open(ctx).await?;
    wait_for_running(&source, project, since).await?;
    let mut account = Account::default();
    let mut before_id: Option<RequestId> = None;
    for _ in 0..MAX_PAGES {
        let page = source
            .history(&HistoryQuery {
                filter: format!("project:{project}"),
                since: Some(since.to_string()),
                until: None,
                before_id,
                limit: MAX_PAGE,
            })
            .await?;
        // The filter finds names that contain the project's, too.
        page.requests.iter().filter(|r| *r.project == *project).for_each(|r| account.add(r));
        before_id = page.next;
        if before_id.is_none() {
            break;
        }
    }
    Ok(account)
}

/// Waits a moment for the requests that the end of the program interrupted.
async fn wait_for_running(
    source: &LedgerSource,
    project: &str,
    since: UnixMillis,
) -> Result<(), CliError> {
    let Some(proxy) = source.proxy() else { return Ok(()) };
    for _ in 0..MAX_WAITS {
        let running = proxy.client.snapshot().await?.live.running;
        if !running.iter().any(|r| *r.project == *project && r.at >= since) {
            break;
        }
        tokio::time::sleep(WAIT_INTERVAL).await;
    }
    Ok(())
}

impl Account {
    fn add(&mut self, record: &RequestRecord) {
        if !record.op.generates() {
            return;
        }
        let cost = record.cost.unwrap_or_default();
        let counts = |precision| u64::from(cost.usd.is_some() && cost.precision == precision);
        self.totals.add(&Totals {
            requests: 1,
            usage: record.usage.unwrap_or_default(),
            cost: cost.usd.unwrap_or_default(),
            unpriced: u64::from(cost.usd.is_none()),
            estimated: counts(Precision::Estimate),
            at_least: counts(Precision::AtLeast),
            ..Totals::default()
        });
        let attempts: Vec<_> =
            record.attempts.iter().filter(|attempt| attempt.role != AttemptRole::Hedge).collect();
        let moved = attempts.windows(2).filter(|pair| {
            let place = |at: usize| (&pair[at].upstream, &pair[at].key, &pair[at].model);
            place(0) != place(1)
        });
        self.failovers = self.failovers.saturating_add(moved.count() as u64);
    }

    /// Returns the line: `codex: 3 requests, 1,204 tokens, $0.012, cache 40 %, 0 failovers`.
    pub(super) fn line(&self, tool: &str) -> String {
        let usage = &self.totals.usage;
        let (input, output) = (usage.input_total(), usage.output_total());
        let cost = self.totals.displayed_cost();
        let cost = if cost.usd.is_some() { cost.to_string() } else { "price unknown".to_owned() };
        let share = usage.cache_read.saturating_mul(100) / input.max(1);
        let number = |count: u64, what: &str| {
            format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
        };
        format!(
            "{tool}: {}, {}, {cost}, cache {share} %, {}",
            number(self.totals.requests, "request"),
            number(input.saturating_add(output), "token"),
            number(self.failovers, "failover"),
        )
    }
}

/// `1,234,567`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::money::NanoUsd, ir::usage::Usage};

    #[test]
    fn the_line_names_all_five() {
        let usage = Usage { input: 600, cache_read: 400, output: 204, ..Usage::default() };
        let totals = Totals { requests: 3, usage, cost: NanoUsd(12_000_000), ..Totals::default() };
        assert_eq!(
            Account { totals, failovers: 1 }.line("codex"),
            "codex: 3 requests, 1,204 tokens, $0.012, cache 40 %, 1 failover"
        );
        let unpriced = Totals { requests: 1, unpriced: 1, ..Totals::default() };
        assert_eq!(
            Account { totals: unpriced, failovers: 0 }.line("llm"),
            "llm: 1 request, 0 tokens, price unknown, cache 0 %, 0 failovers"
        );
        assert_eq!(
            Account::default().line("llm"),
            "llm: 0 requests, 0 tokens, $0, cache 0 %, 0 failovers"
        );
    }

    #[test]
    fn digits_are_grouped() {
        for (count, want) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), want);
        }
    }
}
