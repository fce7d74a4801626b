//! Classifies the end of an attempt: who is to blame, whether another attempt may help, and how
//! long the scope cools.

use std::{sync::Arc, time::Duration};

use crate::{
    config::settings::{RuleAction, RuleScope, UpstreamRule},
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
};

pub use crate::ir::reason::failure::CooldownClass;

/// The classified end of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub blame: Blame,
    pub retry: Retry,
    /// The cooldown class for the blamed scope.
    pub cooldown: CooldownClass,
    /// The delay that the provider requests (header or body), uncapped.
    pub hint: Option<Duration>,
    /// The attempt may have cost upstream work, so it counts against `max_attempts` and the retry
    /// budget.
    pub counts_as_attempt: bool,
    /// A non-streaming request that was sent completely and then lost may have been billed.
    pub maybe_billed: bool,
    /// A short reason for tables: "429 insufficient_quota", "connection refused".
    pub cause: Arc<FailureReason>,
}

impl Outcome {
    /// Returns whether the upstream is to blame, independently of the key.
    #[must_use]
    pub fn blames_upstream(&self) -> bool {
        matches!(self.blame, Blame::Upstream | Blame::UpstreamAndKey)
    }

    /// Returns whether the same candidate may succeed after a pause
    /// ([`FailedAttempt::may_recover`](super::decision::FailedAttempt)).
    #[must_use]
    pub fn may_recover(&self) -> bool {
        match (self.cooldown, self.retry) {
            (_, Retry::No | Retry::OtherUpstream | Retry::SameImmediately) => false,
            (CooldownClass::ServerError | CooldownClass::RateLimited, _)
            | (CooldownClass::None, Retry::Once) => true,
            (CooldownClass::ModelMissing | CooldownClass::Quota | CooldownClass::Rejected, _) => {
                false
            }
            // The local network comes back; a login page stays until a user signs in.
            (CooldownClass::None, Retry::Other | Retry::OtherAccount) => !self.counts_as_attempt,
        }
    }

    /// Returns whether the upstream itself rejected the request: the upstream is up.
    #[must_use]
    pub fn blames_request(&self) -> bool {
        self.blame == Blame::None && matches!(self.retry, Retry::No | Retry::Once)
    }
}

/// The party at fault: the scope that strikes are counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The local network or the client: nothing cools.
    None,
    Account,
    Key,
    KeyModel,
    Upstream,
    /// Upstream and key (5xx).
    UpstreamAndKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    No,
    /// Any other candidate.
    Other,
    /// Any other candidate of another account.
    OtherAccount,
    /// Any candidate of another upstream: this one asks not to be sent the request again.
    OtherUpstream,
    /// At most once more in this request (409).
    Once,
    /// The same candidate again at once, uncounted: a stale pooled connection.
    SameImmediately,
}

/// Classifies an upstream's refusal before content; after content the relay only records.
/// `retryable` says whether `retry_statuses` of the config allows another attempt.
#[must_use]
pub fn classify_fault(fault: &Fault, hint: Option<Duration>, retryable: bool) -> Outcome {
    let hint = hint.or(fault.retry_after);
    let code = fault.code.as_deref().or(fault.error_type.as_deref());
    let code = code.filter(|code| !code.is_empty()).map(Arc::from);
    let cause = FailureReason::Refused { status: fault.status, code, model: None }.into();
    let base = Outcome {
        blame: Blame::None,
        retry: Retry::No,
        cooldown: CooldownClass::None,
        hint,
        counts_as_attempt: false,
        maybe_billed: false,
        cause,
    };
    match fault.kind {
        FaultKind::BadRequest => base,
        FaultKind::KeyRejected => Outcome {
            blame: Blame::Key,
            retry: Retry::Other,
            cooldown: CooldownClass::Rejected,
            ..base
        },
        FaultKind::Forbidden => Outcome {
            blame: Blame::KeyModel,
            retry: Retry::Other,
            cooldown: CooldownClass::Quota,
            ..base
        },
        FaultKind::Quota => Outcome {
            blame: Blame::Account,
            retry: Retry::OtherAccount,
            cooldown: CooldownClass::Quota,
            ..base
        },
        FaultKind::ModelNotFound => Outcome {
            blame: Blame::KeyModel,
            retry: Retry::Other,
            cooldown: CooldownClass::ModelMissing,
            ..base
        },
        FaultKind::RateLimited => Outcome {
            blame: Blame::KeyModel,
            retry: Retry::Other,
            cooldown: CooldownClass::RateLimited,
            ..base
        },
        FaultKind::AccountLimited => Outcome {
            blame: Blame::Account,
            retry: Retry::OtherAccount,
            cooldown: CooldownClass::RateLimited,
            ..base
        },
        FaultKind::Conflict => Outcome {
            retry: if retryable { Retry::Once } else { Retry::No },
            counts_as_attempt: true,
            ..base
        },
        FaultKind::Transient | FaultKind::Server => Outcome {
            blame: Blame::UpstreamAndKey,
            retry: if retryable { Retry::Other } else { Retry::No },
            cooldown: CooldownClass::ServerError,
            counts_as_attempt: true,
            ..base
        },
        FaultKind::CaptivePortal => {
            Outcome { retry: Retry::Other, counts_as_attempt: true, ..base }
        }
    }
}

/// Applies what the upstream says in `x-should-retry`, which the vendors' SDKs obey: `false` keeps
/// the request from being sent there again, `true` allows one retry of a refusal that would have
/// none. Faults of a key do not keep other keys from being used.
/// <https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py> `_should_retry`
pub fn apply_should_retry(outcome: &mut Outcome, fault: FaultKind, should_retry: Option<bool>) {
    let about_request =
        matches!(fault, FaultKind::Transient | FaultKind::Server | FaultKind::Conflict);
    match should_retry {
        Some(false) if about_request && outcome.retry != Retry::No => {
            outcome.retry = Retry::OtherUpstream;
        }
        Some(true) if fault == FaultKind::Conflict && outcome.retry == Retry::No => {
            outcome.retry = Retry::Once;
        }
        _ => {}
    }
}

/// Applies a rule of the config to a refusal: returns its outcome, and changes the fault if the
/// rule passes it to the client unchanged.
#[must_use]
pub fn classify_by_rule(rule: &UpstreamRule, fault: &mut Fault, hint: Option<Duration>) -> Outcome {
    let base = classify_fault(fault, hint, true);
    if rule.action == RuleAction::Pass {
        fault.kind = FaultKind::BadRequest;
        return Outcome {
            blame: Blame::None,
            retry: Retry::No,
            cooldown: CooldownClass::None,
            counts_as_attempt: false,
            ..base
        };
    }
    let blame = match rule.scope {
        RuleScope::Account => Blame::Account,
        RuleScope::Key => Blame::Key,
        RuleScope::KeyModel => Blame::KeyModel,
        RuleScope::Request => Blame::None,
        RuleScope::Upstream => Blame::Upstream,
    };
    let cools =
        blame != Blame::None && (rule.action == RuleAction::Cool || rule.cool_for.is_some());
    Outcome {
        blame: if cools { blame } else { Blame::None },
        retry: if blame == Blame::Account { Retry::OtherAccount } else { Retry::Other },
        cooldown: if cools { CooldownClass::RateLimited } else { CooldownClass::None },
        hint: rule.cool_for.or(base.hint),
        counts_as_attempt: rule.action == RuleAction::Retry,
        ..base
    }
}

/// Returns the first rule that matches a refusal; `text` is the complete body of the response.
#[must_use]
pub fn find_rule<'a>(
    rules: &'a [UpstreamRule],
    status: u16,
    text: &str,
) -> Option<&'a UpstreamRule> {
    rules.iter().find(|rule| {
        rule.statuses.as_ref().is_none_or(|set| set.contains(status))
            && rule.text.as_ref().is_none_or(|needle| needle.matches(text))
    })
}

/// Classifies a connection fault.
#[must_use]
pub fn classify_transport(fault: &TransportFault) -> Outcome {
    let kind = fault.kind;
    let base = Outcome {
        blame: Blame::Upstream,
        retry: Retry::Other,
        cooldown: CooldownClass::ServerError,
        hint: None,
        counts_as_attempt: fault.may_be_received,
        maybe_billed: false,
        cause: Arc::clone(&fault.reason),
    };
    match kind {
        TransportKind::Stale => Outcome {
            blame: Blame::None,
            retry: Retry::SameImmediately,
            cooldown: CooldownClass::None,
            counts_as_attempt: false,
            ..base
        },
        TransportKind::NetworkDown => Outcome {
            blame: Blame::None,
            cooldown: CooldownClass::None,
            counts_as_attempt: false,
            ..base
        },
        TransportKind::TooLarge => {
            Outcome { blame: Blame::None, retry: Retry::No, cooldown: CooldownClass::None, ..base }
        }
        TransportKind::Connect
        | TransportKind::ConnectTimeout
        | TransportKind::Dns
        | TransportKind::Tls => Outcome { counts_as_attempt: false, ..base },
        TransportKind::Reset | TransportKind::FirstByteTimeout | TransportKind::TotalTimeout => {
            Outcome { counts_as_attempt: true, maybe_billed: fault.may_be_received, ..base }
        }
        TransportKind::InvalidHttp | TransportKind::BodyBroken | TransportKind::IdleTimeout => {
            Outcome { counts_as_attempt: true, ..base }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, status: u16, code: &str) -> Fault {
        let code = (!code.is_empty()).then(|| code.to_owned());
        Fault {
            kind,
            status,
            message: String::new(),
            code,
            error_type: None,
            param: None,
            retry_after: None,
        }
    }

    fn reply(kind: FaultKind, status: u16) -> Outcome {
        classify_fault(&fault(kind, status, ""), None, true)
    }

    fn did(kind: TransportKind, sent: bool) -> Outcome {
        classify_transport(&TransportFault {
            kind,
            reason: FailureReason::text("connection refused (a.example:443)").into(),
            may_be_received: sent,
        })
    }

    #[track_caller]
    fn assert_row(
        outcome: &Outcome,
        blame: Blame,
        cool: CooldownClass,
        retry: Retry,
        counts: bool,
        may_pass: bool,
    ) {
        let got = (
            outcome.blame,
            outcome.cooldown,
            outcome.retry,
            outcome.counts_as_attempt,
            outcome.may_recover(),
        );
        assert_eq!(got, (blame, cool, retry, counts, may_pass));
    }

    #[test]
    fn bad_request_blames_no_upstream_and_is_not_retried() {
        for status in [400, 404, 413, 422] {
            let outcome = reply(FaultKind::BadRequest, status);
            assert_row(&outcome, Blame::None, CooldownClass::None, Retry::No, false, false);
            assert!(outcome.blames_request(), "{status}");
        }
    }

    #[test]
    fn rejected_key_is_excluded_and_another_key_is_tried() {
        assert_row(
            &reply(FaultKind::KeyRejected, 401),
            Blame::Key,
            CooldownClass::Rejected,
            Retry::Other,
            false,
            false,
        );
    }

    #[test]
    fn key_without_access_to_a_model_is_excluded_for_it_only() {
        assert_row(
            &reply(FaultKind::Forbidden, 403),
            Blame::KeyModel,
            CooldownClass::Quota,
            Retry::Other,
            false,
            false,
        );
    }

    #[test]
    fn account_without_credit_is_excluded_and_another_is_tried() {
        for status in [402, 429, 400] {
            assert_row(
                &reply(FaultKind::Quota, status),
                Blame::Account,
                CooldownClass::Quota,
                Retry::OtherAccount,
                false,
                false,
            );
        }
    }

    #[test]
    fn missing_model_sends_the_request_to_another_target() {
        assert_row(
            &reply(FaultKind::ModelNotFound, 404),
            Blame::KeyModel,
            CooldownClass::ModelMissing,
            Retry::Other,
            false,
            false,
        );
    }

    #[test]
    fn rate_limit_cools_the_key_for_that_model_only() {
        let outcome = classify_fault(
            &fault(FaultKind::RateLimited, 429, "rate_limit_exceeded"),
            Some(Duration::from_secs(30)),
            true,
        );
        assert_row(
            &outcome,
            Blame::KeyModel,
            CooldownClass::RateLimited,
            Retry::Other,
            false,
            true,
        );
        assert_eq!(outcome.hint, Some(Duration::from_secs(30)));
        assert_eq!(outcome.cause.to_string(), "429 rate_limit_exceeded");
    }

    #[test]
    fn rate_limit_of_the_account_cools_the_account() {
        assert_row(
            &reply(FaultKind::AccountLimited, 429),
            Blame::Account,
            CooldownClass::RateLimited,
            Retry::OtherAccount,
            false,
            true,
        );
    }

    #[test]
    fn server_error_is_a_strike_for_upstream_and_key_and_is_retried() {
        for (kind, status) in [
            (FaultKind::Transient, 408),
            (FaultKind::Transient, 425),
            (FaultKind::Server, 500),
            (FaultKind::Server, 529),
        ] {
            assert_row(
                &reply(kind, status),
                Blame::UpstreamAndKey,
                CooldownClass::ServerError,
                Retry::Other,
                true,
                true,
            );
        }
        let unlisted = classify_fault(&fault(FaultKind::Server, 501, ""), None, false);
        assert_row(
            &unlisted,
            Blame::UpstreamAndKey,
            CooldownClass::ServerError,
            Retry::No,
            true,
            false,
        );
    }

    #[test]
    fn conflict_is_retried_once() {
        assert_row(
            &reply(FaultKind::Conflict, 409),
            Blame::None,
            CooldownClass::None,
            Retry::Once,
            true,
            true,
        );
    }

    #[test]
    fn login_page_cools_nothing_and_is_not_retried() {
        assert_row(
            &reply(FaultKind::CaptivePortal, 200),
            Blame::None,
            CooldownClass::None,
            Retry::Other,
            true,
            false,
        );
        assert!(!reply(FaultKind::CaptivePortal, 200).blames_request());
    }

    #[test]
    fn unreachable_upstream_is_blamed_and_failover_is_not_counted() {
        for kind in [
            TransportKind::Connect,
            TransportKind::ConnectTimeout,
            TransportKind::Dns,
            TransportKind::Tls,
        ] {
            assert_row(
                &did(kind, false),
                Blame::Upstream,
                CooldownClass::ServerError,
                Retry::Other,
                false,
                true,
            );
        }
    }

    #[test]
    fn stale_connection_is_retried_at_once_and_not_counted() {
        assert_row(
            &did(TransportKind::Stale, true),
            Blame::None,
            CooldownClass::None,
            Retry::SameImmediately,
            false,
            false,
        );
    }

    #[test]
    fn request_sent_and_lost_may_have_been_billed() {
        for kind in
            [TransportKind::Reset, TransportKind::FirstByteTimeout, TransportKind::TotalTimeout]
        {
            let outcome = did(kind, true);
            assert_row(
                &outcome,
                Blame::Upstream,
                CooldownClass::ServerError,
                Retry::Other,
                true,
                true,
            );
            assert!(outcome.maybe_billed, "{kind:?}");
        }
    }

    #[test]
    fn stream_broken_before_content_is_a_strike_for_the_upstream() {
        for kind in
            [TransportKind::BodyBroken, TransportKind::IdleTimeout, TransportKind::InvalidHttp]
        {
            let outcome = did(kind, true);
            assert_row(
                &outcome,
                Blame::Upstream,
                CooldownClass::ServerError,
                Retry::Other,
                true,
                true,
            );
            assert!(!outcome.maybe_billed, "{kind:?}");
        }
    }

    #[test]
    fn config_rules_classify_refusals() {
        use crate::config::settings::{StatusSet, TextMatch};
        let of = |action, scope, seconds: Option<u64>| UpstreamRule {
            statuses: Some(StatusSet(vec![(400, 400)])),
            text: Some(TextMatch::parse("Capacity").expect("a text")),
            action,
            scope,
            cool_for: seconds.map(Duration::from_secs),
        };
        let rules = [of(RuleAction::Retry, RuleScope::KeyModel, Some(30))];
        assert!(find_rule(&rules, 400, "no capacity left").is_some());
        assert!(
            find_rule(&rules, 400, "bad field").is_none()
                && find_rule(&rules, 429, "no capacity left").is_none()
        );

        for (action, scope, seconds, blame, cool, retry, counts, may_pass) in [
            (
                RuleAction::Retry,
                RuleScope::Request,
                None,
                Blame::None,
                CooldownClass::None,
                Retry::Other,
                true,
                false,
            ),
            (
                RuleAction::Retry,
                RuleScope::KeyModel,
                Some(30),
                Blame::KeyModel,
                CooldownClass::RateLimited,
                Retry::Other,
                true,
                true,
            ),
            (
                RuleAction::Cool,
                RuleScope::Key,
                None,
                Blame::Key,
                CooldownClass::RateLimited,
                Retry::Other,
                false,
                true,
            ),
            (
                RuleAction::Cool,
                RuleScope::Account,
                Some(5),
                Blame::Account,
                CooldownClass::RateLimited,
                Retry::OtherAccount,
                false,
                true,
            ),
            (
                RuleAction::Cool,
                RuleScope::Upstream,
                Some(5),
                Blame::Upstream,
                CooldownClass::RateLimited,
                Retry::Other,
                false,
                true,
            ),
            (
                RuleAction::Pass,
                RuleScope::Key,
                Some(5),
                Blame::None,
                CooldownClass::None,
                Retry::No,
                false,
                false,
            ),
        ] {
            let mut reply = fault(FaultKind::Server, 500, "");
            let outcome = classify_by_rule(&of(action, scope, seconds), &mut reply, None);
            assert_row(&outcome, blame, cool, retry, counts, may_pass);
            assert_eq!(
                outcome.hint,
                seconds.map(Duration::from_secs).filter(|_| action != RuleAction::Pass)
            );
            assert_eq!(reply.kind == FaultKind::BadRequest, action == RuleAction::Pass);
        }
    }

    #[test]
    fn local_network_failure_blames_no_upstream() {
        assert_row(
            &did(TransportKind::NetworkDown, false),
            Blame::None,
            CooldownClass::None,
            Retry::Other,
            false,
            true,
        );
    }
}
