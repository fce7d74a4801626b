//! Finds the worst current problem, its one-line text and the key that addresses it.

use crate::{
    base::clock::UnixMillis,
    control::{
        action::Action,
        snapshot::{KeyStatus, KeyView, Snapshot, UpstreamState, UpstreamView},
    },
    events::{
        alert::{Alert, AlertKind},
        event::Severity,
    },
    ir::reason::failure::FailureReason,
    tui::{
        app::App,
        format::{self, FrameContext},
        reason_words::ReasonWords,
        screen::Screen,
        strings::fill,
        theme::ThemeRole,
    },
};

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusProblem {
    /// Higher is worse.
    rank: u8,
    pub role: ThemeRole,
    pub text: String,
    /// The screen with more details.
    pub screen: Screen,
    /// The action that `w` performs.
    pub action: Option<Action>,
    /// The number of other problems.
    pub more: usize,
}

impl StatusProblem {
    fn error(rank: u8, text: String, screen: Screen) -> Self {
        Self { rank, role: ThemeRole::Error, text, screen, action: None, more: 0 }
    }

    fn warning(rank: u8, text: String, screen: Screen) -> Self {
        Self { role: ThemeRole::Warn, ..Self::error(rank, text, screen) }
    }

    fn with_action(self, action: Action) -> Self {
        Self { action: Some(action), ..self }
    }
}

/// From this rank on a problem is shown on every screen.
const ALWAYS_SHOWN_RANK: u8 = 9;

/// The worst problem of the current screen, or else of all screens.
#[must_use]
pub fn worst_problem(app: &App, now: FrameContext) -> Option<StatusProblem> {
    let all = all_problems(app.snapshot.as_deref()?, now);
    let more = all.len().checked_sub(1)?;
    let weight = |problem: &StatusProblem| {
        (problem.rank >= ALWAYS_SHOWN_RANK, problem.screen == app.screen, problem.rank)
    };
    // Take the first of equal rank, so that the line does not alternate.
    let mut worst = all
        .into_iter()
        .reduce(|worst, next| if weight(&next) > weight(&worst) { next } else { worst })?;
    worst.more = more;
    Some(worst)
}

/// All problems, worst first.
#[must_use]
pub fn ranked_problems(app: &App, now: FrameContext) -> Vec<StatusProblem> {
    let mut all =
        app.snapshot.as_deref().map_or_else(Vec::new, |snapshot| all_problems(snapshot, now));
    all.sort_by_key(|problem| std::cmp::Reverse(problem.rank));
    all
}

/// All problems in the order in which they are shown if they are equally bad.
fn all_problems(snapshot: &Snapshot, now: FrameContext) -> Vec<StatusProblem> {
    let mut found = proxy_problems(snapshot, now);
    found.extend(snapshot.alerts.iter().filter_map(|active| alert_problem(&active.alert, now)));
    for upstream in &snapshot.upstreams {
        upstream_problems(snapshot, upstream, now, &mut found);
    }
    found
}

/// The problems of the proxy itself: its network, its config file and its ledger.
fn proxy_problems(snapshot: &Snapshot, now: FrameContext) -> Vec<StatusProblem> {
    let text = &now.text.wrong;
    let mut found = Vec::new();
    if snapshot.offline {
        let text = text.offline.clone();
        found.push(StatusProblem::error(ALWAYS_SHOWN_RANK, text, Screen::Upstreams));
    }
    if let Some(first) = snapshot.config.problems.first() {
        let text = fill(&text.not_applied, &[("what", first)]);
        found.push(StatusProblem::error(7, text, Screen::Config));
    } else if snapshot.config.needs_restart {
        found.push(StatusProblem::warning(1, text.restart.clone(), Screen::Config));
    }
    if let Some(error) = snapshot.ledger.as_ref().and_then(|ledger| ledger.problem.as_ref()) {
        let text = fill(&text.ledger, &[("what", error)]);
        found.push(StatusProblem::warning(4, text, Screen::Config));
    }
    found
}

/// The problem of an alert, unless the state of a key or an upstream covers it in more detail.
fn alert_problem(alert: &Alert, now: FrameContext) -> Option<StatusProblem> {
    let text = &now.text.wrong;
    let (rank, words) = match alert.kind {
        AlertKind::BalanceLow => (4, &text.balance),
        AlertKind::BudgetNear => (2, &text.budget_near),
        AlertKind::BudgetSpent => (6, &text.budget_spent),
        AlertKind::ErrorRate => (4, &text.error_rate),
        AlertKind::UsageSpike => (2, &text.spike),
        _ => return None,
    };
    let screen = if alert.kind == AlertKind::ErrorRate { Screen::Upstreams } else { Screen::Usage };
    let text = fill(words, &[("what", &alert.text)]);
    Some(match alert.level {
        Severity::Error => StatusProblem::error(rank, text, screen),
        _ => StatusProblem::warning(rank, text, screen),
    })
}

/// The problems of one upstream and its keys.
fn upstream_problems(
    snapshot: &Snapshot,
    upstream: &UpstreamView,
    now: FrameContext,
    found: &mut Vec<StatusProblem>,
) {
    let (text, name) = (&now.text.wrong, &upstream.name);
    let keys: Vec<&KeyView> = snapshot.keys.iter().filter(|key| key.upstream == *name).collect();
    let warm = Action::WarmUpstream { upstream: name.clone() };
    if upstream.state == UpstreamState::Open {
        let cause = upstream.cause.as_ref().map_or_else(String::new, |cause| {
            fill(&text.cause, &[("what", &cause.words(now.text))])
        });
        let next = wait_text(upstream.until, now, &text.down_next);
        let text = fill(&text.down, &[("name", name), ("next", &next), ("cause", &cause)]);
        found.push(StatusProblem::error(5, text, Screen::Upstreams).with_action(warm));
    } else if keys.len() > 1 && keys.iter().all(|key| key.state == KeyStatus::Cooling) {
        let first = keys.iter().filter_map(|key| key.until).min();
        let back = wait_text(first, now, &text.first_back);
        let count = keys.len().to_string();
        let text = fill(&text.all_cooling, &[("n", &count), ("name", name), ("back", &back)]);
        found.push(StatusProblem::error(6, text, Screen::Keys).with_action(warm));
        return;
    } else if upstream.state == UpstreamState::Cooling {
        let span = wait_text(upstream.until, now, &text.for_span);
        let blanks = [("name", name.as_str()), ("for", &span), ("because", ""), ("instead", "")];
        let text = fill(&text.cooling, &blanks);
        found.push(StatusProblem::warning(3, text, Screen::Upstreams).with_action(warm));
    }
    for key in &keys {
        let warm = Action::Warm { key: Some(key_name(key)), model: None };
        found.extend(key_problem(key, &keys, now).map(|problem| problem.with_action(warm)));
    }
}

fn key_problem(key: &KeyView, siblings: &[&KeyView], now: FrameContext) -> Option<StatusProblem> {
    let (text, name) = (&now.text.wrong, key_name(key));
    let because = |cause: Option<&FailureReason>| {
        cause.map_or_else(String::new, |cause| {
            fill(&text.because, &[("what", &cause.words(now.text))])
        })
    };
    let warning = |rank, text| StatusProblem::warning(rank, text, Screen::Keys);
    Some(match key.state {
        KeyStatus::Rejected => {
            // If other keys of its upstream still serve, it is only for information.
            let serves =
                |other: &&KeyView| matches!(other.state, KeyStatus::Ok | KeyStatus::Partly);
            let rank = if siblings.iter().any(serves) { 4 } else { 8 };
            let because = because(key.cause.as_deref());
            let text = fill(&text.rejected, &[("name", &name), ("because", &because)]);
            StatusProblem::error(rank, text, Screen::Keys)
        }
        KeyStatus::Missing => {
            let blanks = [("name", name.as_str()), ("reference", &key.reference)];
            warning(4, fill(&text.missing, &blanks))
        }
        KeyStatus::Cooling => {
            let instead = siblings
                .iter()
                .find(|other| other.state == KeyStatus::Ok)
                .map_or_else(String::new, |other| {
                    fill(&text.instead, &[("name", &key_name(other))])
                });
            let span = wait_text(key.until, now, &text.for_span);
            let because = because(key.cause.as_deref());
            let blanks = [
                ("name", name.as_str()),
                ("for", &span),
                ("because", &because),
                ("instead", &instead),
            ];
            warning(2, fill(&text.cooling, &blanks))
        }
        KeyStatus::Partly => {
            let scope =
                key.scopes.iter().find(|scope| scope.until.is_none_or(|until| until > now.at))?;
            let span = wait_text(scope.until, now, &text.for_span);
            let cause = scope.cause.as_deref().map(|cause| cause.without_model(&scope.model));
            let because = because(cause.as_deref());
            let blanks = [
                ("name", name.as_str()),
                ("model", &scope.model),
                ("for", &span),
                ("because", &because),
            ];
            warning(2, fill(&text.partly, &blanks))
        }
        KeyStatus::Disabled | KeyStatus::Ok | KeyStatus::Probing | KeyStatus::Waiting => {
            return None;
        }
    })
}

fn wait_text(until: Option<UnixMillis>, now: FrameContext, text: &str) -> String {
    until.filter(|until| until.0 > now.at.0).map_or_else(String::new, |until| {
        fill(text, &[("span", &format::remaining(now.until(until)))])
    })
}

/// The name of a key in commands: `UPSTREAM/LABEL`.
#[must_use]
pub fn key_name(key: &KeyView) -> String {
    if key.label.is_empty() {
        key.upstream.clone()
    } else {
        format!("{}/{}", key.upstream, key.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::snapshot::AlertView, events::alert::Alert, tui::tests::sample};

    fn worst_of(change: impl FnOnce(&mut Snapshot)) -> Option<StatusProblem> {
        let mut app = sample::app();
        change(app.snapshot.as_mut().unwrap());
        worst_problem(&app, sample::frame_context())
    }

    #[test]
    fn worst_problem_is_first_and_the_others_are_counted() {
        let found = worst_of(|_| {}).unwrap();
        assert_eq!(found.text, "dead is down, next try in 12s: connection refused (127.0.0.1:9)");
        assert_eq!(found.action, Some(Action::WarmUpstream { upstream: "dead".to_owned() }));
        assert_eq!(found.more, 1);

        let rejected = worst_of(|s| s.keys[0].state = KeyStatus::Rejected).unwrap();
        assert!(rejected.text.starts_with("healthy/work was rejected"), "{}", rejected.text);
        assert_eq!(worst_of(|s| s.offline = true).unwrap().action, None);
    }

    #[test]
    fn rejected_key_with_working_siblings_is_not_the_worst_problem() {
        let spare = |s: &mut Snapshot| {
            s.keys[0].state = KeyStatus::Rejected;
            let mut sibling = s.keys[2].clone();
            (sibling.upstream, sibling.label) = ("healthy".to_owned(), "spare".to_owned());
            s.keys.push(sibling);
        };
        assert!(worst_of(spare).unwrap().text.starts_with("dead is down"));
        let reported = worst_of(|s| {
            spare(s);
            s.config.problems = vec!["config.toml:3:1: no such key".to_owned()];
        });
        assert!(reported.unwrap().text.starts_with("the config file was not applied"));
    }

    #[test]
    fn screen_shows_its_own_problems_first() {
        let mut app = sample::app();
        app.screen = Screen::Keys;
        let found = worst_problem(&app, sample::frame_context()).unwrap();
        assert!(
            found.text.starts_with("limited/LIMITED_KEY is cooling") && found.more == 1,
            "{}",
            found.text
        );
        let all: Vec<_> = ranked_problems(&app, sample::frame_context())
            .into_iter()
            .map(|problem| problem.screen)
            .collect();
        assert_eq!(
            all,
            [Screen::Upstreams, Screen::Keys],
            "the worst first, wherever the reader is"
        );
    }

    #[test]
    fn alert_shows_problems_without_a_state() {
        let spent = worst_of(|s| {
            let alert = Alert {
                kind: AlertKind::BudgetSpent,
                subject: "project ide".into(),
                text: "project ide spent $5".into(),
                level: Severity::Error,
            };
            s.alerts.push(AlertView { since: sample::frame_context().at, alert });
        });
        let spent = spent.unwrap();
        assert_eq!(
            (spent.text.as_str(), spent.screen, spent.more),
            ("project ide spent $5", Screen::Usage, 2)
        );
    }

    #[test]
    fn problem_line_is_empty_without_problems() {
        let quiet = |s: &mut Snapshot| {
            s.upstreams.iter_mut().for_each(|u| u.state = UpstreamState::Healthy);
            s.keys.iter_mut().for_each(|k| k.state = KeyStatus::Ok);
        };
        assert_eq!(worst_of(quiet), None);
    }
}
