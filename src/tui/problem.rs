//! The worst thing that is wrong now, in one line, and the key that does something about it.

use super::{
    app::App,
    format::{self, Now},
    screens::Screen,
    theme::Role,
};
use crate::{
    base::clock::UnixMillis,
    control::{
        action::Action,
        snapshot::{KeyHealth, KeyView, Snapshot, UpstreamState},
    },
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The worse, the higher.
    rank: u8,
    pub role: Role,
    pub text: String,
    /// Where more is said.
    pub screen: Screen,
    /// What `w` does about it.
    pub act: Option<Action>,
    /// How many more are wrong.
    pub more: usize,
}

/// The worst problem, if anything is wrong.
#[must_use]
pub fn worst(app: &App, now: Now) -> Option<Problem> {
    let all = all(app.snapshot.as_deref()?, now);
    let more = all.len().checked_sub(1)?;
    // The first of the worst, so that the line does not jump between equals.
    let mut worst = all.into_iter().reduce(|worst, next| if next.rank > worst.rank { next } else { worst })?;
    worst.more = more;
    Some(worst)
}

fn all(snapshot: &Snapshot, now: Now) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |rank, role, text: String, screen, act| found.push(Problem { rank, role, text, screen, act, more: 0 });
    if snapshot.offline {
        add(9, Role::Bad, "this machine seems to be offline; requests wait for the network".to_owned(), Screen::Upstreams, None);
    }
    if let Some(first) = snapshot.config.problems.first() {
        add(7, Role::Bad, format!("the config file was not applied: {first}"), Screen::Config, None);
    } else if snapshot.config.needs_restart {
        add(1, Role::Warn, "`listen` changed; `aiproxy restart` applies it".to_owned(), Screen::Config, None);
    }
    for upstream in &snapshot.upstreams {
        let name = &upstream.name;
        let keys: Vec<&KeyView> = snapshot.keys.iter().filter(|key| key.upstream == *name).collect();
        let warm = Some(Action::WarmUpstream { upstream: name.clone() });
        if upstream.state == UpstreamState::Open {
            let cause = upstream.cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
            add(5, Role::Bad, format!("{name} is down{}{cause}", again(upstream.until, now, ", next try in ")), Screen::Upstreams, warm);
        } else if keys.len() > 1 && keys.iter().all(|key| key.state == KeyHealth::Cooling) {
            let first = keys.iter().filter_map(|key| key.until).min();
            add(
                6,
                Role::Bad,
                format!("all {} keys of {name} are cooling{}", keys.len(), again(first, now, "; the first is back in ")),
                Screen::Keys,
                warm,
            );
            continue;
        } else if upstream.state == UpstreamState::Cooling {
            add(3, Role::Warn, format!("{name} is cooling{}", again(upstream.until, now, " for ")), Screen::Upstreams, warm);
        }
        for key in &keys {
            if let Some((rank, role, text)) = key_problem(key, &keys, now) {
                add(rank, role, text, Screen::Keys, Some(Action::Warm { key: Some(name_of(key)), model: None }));
            }
        }
    }
    found
}

fn key_problem(key: &KeyView, siblings: &[&KeyView], now: Now) -> Option<(u8, Role, String)> {
    let name = name_of(key);
    Some(match key.state {
        KeyHealth::Rejected => (8, Role::Bad, format!("{name} was rejected{}; it rests until it is changed", because(key.cause.as_ref()))),
        KeyHealth::Missing => (4, Role::Warn, format!("{name} has no secret: {} gives nothing", key.reference)),
        KeyHealth::Cooling => {
            let instead = siblings
                .iter()
                .find(|other| other.state == KeyHealth::Ok)
                .map_or_else(String::new, |other| format!("; requests use {}", name_of(other)));
            (2, Role::Warn, format!("{name} is cooling{}{}{instead}", again(key.until, now, " for "), because(key.cause.as_ref())))
        }
        KeyHealth::Partly => {
            let scope = key.scopes.iter().find(|scope| scope.until.is_none_or(|until| until > now.at))?;
            (
                2,
                Role::Warn,
                format!("{name} is cooling for {}{}{}", scope.model, again(scope.until, now, ", "), because(scope.cause.as_ref())),
            )
        }
        KeyHealth::Disabled | KeyHealth::Ok | KeyHealth::Probing | KeyHealth::Waiting => return None,
    })
}

fn because(cause: Option<&String>) -> String {
    cause.map_or_else(String::new, |cause| format!(" ({cause})"))
}

fn again(until: Option<UnixMillis>, now: Now, before: &str) -> String {
    until.filter(|until| until.0 > now.at.0).map_or_else(String::new, |until| format!("{before}{}", format::left(now.until(until))))
}

/// A key as commands name it: `UPSTREAM/LABEL`.
#[must_use]
pub fn name_of(key: &KeyView) -> String {
    if key.label.is_empty() { key.upstream.clone() } else { format!("{}/{}", key.upstream, key.label) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::sample;

    fn worst_of(change: impl FnOnce(&mut Snapshot)) -> Option<Problem> {
        let mut app = sample::app();
        change(app.snapshot.as_mut().unwrap());
        worst(&app, sample::now())
    }

    #[test]
    fn the_worst_comes_first_and_the_others_are_counted() {
        let found = worst_of(|_| {}).unwrap();
        assert_eq!(found.text, "dead is down, next try in 12s: connection refused (127.0.0.1:9)");
        assert_eq!(found.act, Some(Action::WarmUpstream { upstream: "dead".to_owned() }));
        assert_eq!(found.more, 1);

        let rejected = worst_of(|s| s.keys[0].state = KeyHealth::Rejected).unwrap();
        assert!(rejected.text.starts_with("healthy/work was rejected"), "{}", rejected.text);
        assert_eq!(worst_of(|s| s.offline = true).unwrap().act, None);
    }

    #[test]
    fn nothing_is_said_when_nothing_is_wrong() {
        let quiet = |s: &mut Snapshot| {
            s.upstreams.iter_mut().for_each(|u| u.state = UpstreamState::Healthy);
            s.keys.iter_mut().for_each(|k| k.state = KeyHealth::Ok);
        };
        assert_eq!(worst_of(quiet), None);
    }
}
