//! Words why attempts fail.

use crate::{
    ir::{
        cost::Period,
        reason::{
            failure::{BodyProblem, ConnectionProblem, FailureReason, RaceWinner, print_timeout},
            missing_secret::MissingSecret,
        },
    },
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for FailureReason {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.failure;
        let total = |half: bool| if half { &*text.half_of_total } else { &*text.total };
        match self {
            Self::AtProxy { cause } => fill(&text.at_proxy, &[("cause", &cause.words(texts))]),
            Self::Body { upstream, problem } => {
                let blanks =
                    [("upstream", &**upstream), ("problem", problem_text(*problem, texts))];
                fill(&text.body, &blanks)
            }
            Self::BrokeOff { characters, cause } => fill(
                &text.broke_off,
                &[("n", &characters.to_string()), ("cause", &cause.words(texts))],
            ),
            Self::BudgetSpent { spent, limit, per } => fill(
                &text.budget_spent,
                &[
                    ("spent", &spent.format_short()),
                    ("limit", &limit.format_short()),
                    ("period", period_name(*per, texts)),
                ],
            ),
            Self::ConnectTimeout { waited, address } => fill(
                &text.connect_timeout,
                &[("span", &print_timeout(waited.0)), ("address", address)],
            ),
            Self::Connection { problem, address } => fill(
                &text.connection,
                &[("problem", connection_text(*problem, texts)), ("address", address)],
            ),
            Self::CooledByHand => text.cooled_by_hand.clone(),
            Self::Idle { waited } => {
                fill(&text.idle, &[("span", &format!("{}s", waited.0.as_secs_f64()))])
            }
            Self::Incomplete { half } => fill(&text.incomplete, &[("limit", total(*half))]),
            Self::Killed => text.killed.clone(),
            Self::LostRace { winner: RaceWinner::First } => text.lost_first.clone(),
            Self::LostRace { winner: RaceWinner::Second } => text.lost_second.clone(),
            Self::MissingSecret { secret } => secret.words(texts),
            Self::NoAnswer { half } => fill(&text.no_answer, &[("limit", total(*half))]),
            Self::NoContent { waited } => {
                fill(&text.no_content, &[("span", &format!("{}s", waited.0.as_secs_f64()))])
            }
            Self::Probe { path, cause } => {
                fill(&text.probe, &[("path", path), ("cause", &cause.words(texts))])
            }
            Self::Refused { status, code: Some(code), .. } => {
                fill(&text.refused_code, &[("status", &status.to_string()), ("code", code)])
            }
            Self::Refused { status, code: None, model: Some(model) } => {
                fill(&text.refused_model, &[("status", &status.to_string()), ("model", model)])
            }
            Self::Refused { status, code: None, model: None } => status.to_string(),
            Self::RefusedWith { cause, message, cooling } => {
                let blanks = [("cause", &*cause.words(texts)), ("message", message)];
                let mut words = fill(&text.refused_with, &blanks);
                if let Some(span) = cooling {
                    words += &fill(&text.cooling, &[("span", &span.to_string())]);
                }
                words
            }
            Self::ShuttingDown => text.shutting_down.clone(),
            Self::Text { text } => text.to_string(),
            Self::TooLarge { limit } => fill(&text.too_large, &[("limit", &limit.to_string())]),
            Self::Truncated => text.truncated.clone(),
            Self::Unfinished => text.unfinished.clone(),
            Self::Unresolved { host } => fill(&text.unresolved, &[("host", host)]),
        }
    }
}

impl ReasonWords for MissingSecret {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.secret;
        let variable = |words: &str, name: &str, upstream: &str| {
            let hint = fill(&text.variable_hint, &[("name", name), ("upstream", upstream)]);
            fill(words, &[("name", name), ("hint", &hint)])
        };
        match self {
            Self::EmptyVariable { upstream, name } => variable(&text.empty, name, upstream),
            Self::NoFile { path, hint } => fill(&text.no_file, &[("path", path), ("hint", hint)]),
            Self::NoKey { upstream } => fill(&text.no_key, &[("upstream", upstream)]),
            Self::NotInKeyring { label, hint } => {
                fill(&text.not_in_keyring, &[("label", label), ("hint", hint)])
            }
            Self::Other { text: problem, hint } => {
                fill(&text.other, &[("problem", problem), ("hint", hint)])
            }
            Self::Unsendable => text.unsendable.clone(),
            Self::UnsetVariable { upstream, name } => variable(&text.unset, name, upstream),
        }
    }
}

fn connection_text(problem: ConnectionProblem, texts: &Texts) -> &str {
    let text = &texts.connection;
    match problem {
        ConnectionProblem::ClosedBeforeResponse => &text.closed_before_response,
        ConnectionProblem::ClosedByUpstream => &text.closed_by_upstream,
        ConnectionProblem::ClosedInHandshake => &text.closed_in_handshake,
        ConnectionProblem::ClosedInHead => &text.closed_in_head,
        ConnectionProblem::ClosedWhenMade => &text.closed_when_made,
        ConnectionProblem::Dead => &text.dead,
        ConnectionProblem::HeadTooLarge => &text.head_too_large,
        ConnectionProblem::NetworkLost => &text.network_lost,
        ConnectionProblem::NetworkUnreachable => &text.network_unreachable,
        ConnectionProblem::NoAnswer => &text.no_answer,
        ConnectionProblem::NoConnection => &text.no_connection,
        ConnectionProblem::NoRoute => &text.no_route,
        ConnectionProblem::NotHttp2 => &text.not_http2,
        ConnectionProblem::OutOfFiles => &text.out_of_files,
        ConnectionProblem::Refused => &text.refused,
        ConnectionProblem::ResetBeforeResponse => &text.reset_before_response,
        ConnectionProblem::ResetWhileConnecting => &text.reset_while_connecting,
        ConnectionProblem::Stale => &text.stale,
        ConnectionProblem::TimedOut => &text.timed_out,
    }
}

fn problem_text(problem: BodyProblem, texts: &Texts) -> &str {
    let text = &texts.body;
    match problem {
        BodyProblem::BrokeOff => &text.broke_off,
        BodyProblem::ConnectionDead => &text.connection_dead,
        BodyProblem::CutOff => &text.cut_off,
        BodyProblem::MalformedChunk => &text.malformed_chunk,
    }
}

fn period_name(period: Period, texts: &Texts) -> &str {
    let text = &texts.period;
    match period {
        Period::Day => &text.day,
        Period::Week => &text.week,
        Period::Month => &text.month,
        Period::Total => &text.total,
    }
}
