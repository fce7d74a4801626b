//! A simulated world for routing: six upstreams with thirty keys, outages, limits, slow tails and
//! conversations, in simulated time. The routing decisions come from the program; one seed
//! determines all network behaviour.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    fmt::Write,
    path::Path,
    sync::Arc,
    time::Duration,
};

use aiproxy::{
    base::{
        clock::Mono,
        rng::{Rng, XorShiftRng},
    },
    config::{
        IdInterner,
        discover::Environment,
        load::load,
        settings::{KeyId, Settings, Strategy},
    },
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        op::Dialect,
        rate_limit::{RateLimit, RateLimits},
        reason::failure::FailureReason,
        usage::Usage,
    },
    routing::{
        affinity::{ConversationKeys, MAX_AFFINITY_WAIT},
        candidate::{AccountId, Candidate, KeyState, build_candidates},
        catalog::Catalog,
        decision::{FailedAttempt, RouteQuery, Verdict},
        health::{attempt::AttemptTicket, cooldown::Policy},
        name_resolver::OnUnknownList,
        outcome::{self, Outcome},
        resolve::resolve,
        retry::{AttemptCounts, RetryDecision, RetryTarget},
        router::{AttemptEnd, Router},
    },
};

const UPSTREAMS: usize = 6;
const KEYS: usize = 5;
/// Requests per minute that a provider accepts from one key.
const RPM: usize = 60;
/// Average number of requests per second: what the keys of one upstream can serve, so that there is
/// capacity while any of the six upstreams is up.
const LOAD: f64 = 3.5;
const CONVERSATIONS: usize = 400;
const TURNS: u32 = 20;
/// How long providers cache a prompt.
const CACHED: Duration = Duration::from_secs(300);
/// The default of the config.
const MAX_QUEUE_TIME: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(3_600);
/// The simulated client of a gateway without health tracking stops after this many keys.
const ROUND_ROBIN_TRIES: usize = 4;

/// The router under test.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimulatedRouter {
    /// The program with a strategy; `sticky` keeps conversations where they are cached.
    Aiproxy { strategy: Strategy, sticky: bool },
    /// One key after the other, regardless of earlier results.
    RoundRobin,
}

/// The results of a simulation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    /// Failed requests that some key could have served at that moment.
    pub(crate) failed: u64,
    pub(crate) attempts: u64,
    /// Milliseconds to the first token, for answered requests.
    waits: Vec<u32>,
    input: u64,
    cached: u64,
    dollars: f64,
}

impl Report {
    pub(crate) fn success(&self) -> f64 {
        let could = self.answered + self.failed;
        self.answered as f64 * 100.0 / could.max(1) as f64
    }

    pub(crate) fn attempts_each(&self) -> f64 {
        self.attempts as f64 / self.requests.max(1) as f64
    }

    pub(crate) fn p99(&mut self) -> Duration {
        let rank = (self.waits.len() * 99).div_ceil(100).saturating_sub(1);
        if self.waits.is_empty() {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::from(*self.waits.select_nth_unstable(rank).1))
    }

    /// Returns the share of all input tokens that came from provider caches.
    pub(crate) fn hits(&self) -> f64 {
        self.cached as f64 * 100.0 / self.input.max(1) as f64
    }

    pub(crate) fn dollars_each_thousand(&self) -> f64 {
        self.dollars * 1_000.0 / self.answered.max(1) as f64
    }
}

/// The actual state of an upstream.
struct UpstreamTruth {
    /// Times at which the upstream goes down and comes back, alternating.
    flips: Vec<Duration>,
    /// Typical time to the first token, in seconds.
    ttft: f64,
    /// US dollars per million tokens: input and output.
    price: (f64, f64),
    /// Reports the remaining limits in response headers.
    sends_hint: bool,
}

impl UpstreamTruth {
    fn is_up(&self, now: Duration) -> bool {
        self.flips.partition_point(|flip| *flip <= now).is_multiple_of(2)
    }
}

/// The provider's state of a key.
#[derive(Default)]
struct KeyTruth {
    /// Times of the requests in the last minute.
    used: VecDeque<Duration>,
    /// The key is rejected from this time on.
    revoked: Option<Duration>,
}

impl KeyTruth {
    fn forget(&mut self, now: Duration) {
        while self.used.front().is_some_and(|at| now.saturating_sub(*at) >= Duration::from_secs(60))
        {
            self.used.pop_front();
        }
    }

    fn works(&self, now: Duration) -> bool {
        self.revoked.is_none_or(|at| now < at)
    }
}

/// A conversation, and the cache that contains it.
struct Conversation {
    chain: Vec<u64>,
    /// Number of prompt tokens.
    tokens: u64,
    cached: HashMap<usize, (u64, Duration)>,
}

/// A running request.
struct Request {
    conversation: usize,
    started: Duration,
    keys: Arc<ConversationKeys>,
    input: u64,
    output: u64,
    failed_attempts: Vec<FailedAttempt>,
    attempts: AttemptCounts,
    last: Option<Outcome>,
    retry_granted: bool,
    waited: Duration,
    wait: Mono,
    /// Keys that the round-robin gateway has tried.
    round_robin_tries: Vec<usize>,
}

enum Event {
    /// The next request arrives.
    Arrive,
    /// A request needs a decision, for the first time or again.
    Decide(Box<Request>),
    /// The first token of an attempt, or its failure.
    Verdict(Box<Request>, Option<AttemptTicket>, usize, Result<(), Outcome>),
    /// A response has ended.
    Finished(Box<AttemptTicket>, Usage, Duration),
}

/// An event with its sequence number, so that simultaneous events keep their order.
struct DueEvent(Duration, u64, Event);

impl PartialEq for DueEvent {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for DueEvent {}

impl PartialOrd for DueEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DueEvent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct World {
    router: SimulatedRouter,
    board: Router,
    candidates: Vec<Candidate>,
    costs: Vec<Option<f64>>,
    upstreams: Vec<UpstreamTruth>,
    keys: Vec<KeyTruth>,
    conversations: Vec<Conversation>,
    due_events: BinaryHeap<Reverse<DueEvent>>,
    number: u64,
    now: Duration,
    /// Separate generators for the world and the router, so that every router meets the same world.
    outcome_rng: XorShiftRng,
    decision_rng: XorShiftRng,
    next_conversation: u64,
    round_robin_next: usize,
    pending: u64,
    report: Report,
}

/// Simulates this many requests.
pub(crate) fn simulate(router: SimulatedRouter, requests: u64, seed: u64) -> Report {
    let settings = settings();
    let found = resolve(
        &Catalog::new(&settings),
        "m",
        Dialect::Openai,
        false,
        &settings.projects[0],
        &|_| None,
        OnUnknownList::Wait,
    );
    let found = build_candidates(&found.expect("everybody serves it").targets, &|key: KeyId| {
        (KeyState::Ready, AccountId(key.0))
    });
    assert_eq!(found.len(), UPSTREAMS * KEYS);
    let mut fate = XorShiftRng::new(seed);
    let end = Duration::from_secs_f64(requests as f64 / LOAD * 1.1 + 60.0);
    let upstreams: Vec<UpstreamTruth> =
        (0..UPSTREAMS).map(|n| upstream_truth(n, end, &mut fate)).collect();
    let mut keys: Vec<KeyTruth> = (0..UPSTREAMS * KEYS).map(|_| KeyTruth::default()).collect();
    for key in [3, 17] {
        keys[key].revoked = Some(end.mul_f64(0.3 + 0.02 * key as f64));
    }
    let costs = (0..found.len())
        .map(|n| Some(upstreams[n / KEYS].price.0 * 4_000.0 + upstreams[n / KEYS].price.1 * 300.0))
        .collect();
    let mut world = World {
        router,
        board: Router::new(Policy::new(&settings.cooldown, &settings.retry)),
        candidates: found,
        costs,
        upstreams,
        keys,
        conversations: Vec::new(),
        due_events: BinaryHeap::new(),
        number: 0,
        now: Duration::ZERO,
        outcome_rng: fate,
        decision_rng: XorShiftRng::new(seed ^ 0x5EED),
        next_conversation: 1,
        round_robin_next: 0,
        pending: requests,
        report: Report::default(),
    };
    for _ in 0..CONVERSATIONS {
        let talk = world.new_conversation();
        world.conversations.push(talk);
    }
    world.schedule(Duration::ZERO, Event::Arrive);
    while let Some(Reverse(DueEvent(at, _, event))) = world.due_events.pop() {
        world.now = at;
        world.handle_event(event);
    }
    world.report
}

/// Six upstreams with five keys each that serve one model. A request may fail twice at each of
/// them; all other settings are defaults.
fn settings() -> Settings {
    let mut text = format!("[retry]\nmax_attempts = {}\n", UPSTREAMS * 2);
    for u in 0..UPSTREAMS {
        let keys: Vec<String> = (0..KEYS).map(|k| format!("\"env:KEY_{u}_{k}\"")).collect();
        let keys = keys.join(", ");
        write!(text, "[[upstream]]\nname = \"u{u}\"\nbase_url = \"https://u{u}.example/v1\"\ndialect = \"openai\"\nmodels = [\"m\"]\nkeys = [{keys}]\n")
            .expect("a string takes everything");
    }
    let none = Environment { vars: HashMap::new() };
    load(&text, Path::new("world.toml"), &none, &mut IdInterner::default())
        .settings
        .expect("a good config")
}

/// On average, up for fifteen minutes and down for ninety seconds.
fn upstream_truth(n: usize, end: Duration, fate: &mut XorShiftRng) -> UpstreamTruth {
    let (mut flips, mut at) = (Vec::new(), Duration::ZERO);
    while at < end {
        let mean = if flips.len() % 2 == 0 { 900.0 } else { 90.0 };
        at += Duration::from_secs_f64(5.0 - mean * (1.0 - fate.next_f64()).ln());
        flips.push(at);
    }
    let dear = 1.0 + ((n + 4) % UPSTREAMS) as f64 * 0.5;
    UpstreamTruth {
        flips,
        ttft: 0.3 + 0.15 * ((n * 5) % UPSTREAMS) as f64,
        price: (dear, dear * 5.0),
        sends_hint: n.is_multiple_of(2),
    }
}

impl World {
    fn schedule(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.due_events.push(Reverse(DueEvent(at, self.number, event)));
    }

    fn mono(&self) -> Mono {
        // Does not start at zero, like the clock of a real machine.
        Mono(self.now + Duration::from_secs(1_000_000))
    }

    fn new_conversation(&mut self) -> Conversation {
        self.next_conversation += 1;
        Conversation {
            chain: vec![self.next_conversation << 20],
            tokens: 1_500 + (self.outcome_rng.next_f64() * 3_000.0) as u64,
            cached: HashMap::new(),
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Arrive => self.request_arrives(),
            Event::Decide(request) => match self.router {
                SimulatedRouter::Aiproxy { strategy, sticky } => {
                    self.decide(request, strategy, sticky);
                }
                SimulatedRouter::RoundRobin => self.decide_round_robin(request),
            },
            Event::Verdict(request, ticket, index, result) => {
                self.finish_attempt(request, ticket, index, result);
            }
            Event::Finished(ticket, usage, ttft) => {
                let end = AttemptEnd::Finished { ttft: Some(ttft), usage: Some(usage) };
                self.board.record(&ticket, end, self.mono());
            }
        }
    }

    fn request_arrives(&mut self) {
        let Some(left) = self.pending.checked_sub(1) else { return };
        self.pending = left;
        self.report.requests += 1;
        let which = (self.outcome_rng.next_f64() * CONVERSATIONS as f64) as usize;
        if self.conversations[which].chain.len() as u32 >= TURNS * 2 {
            self.conversations[which] = self.new_conversation();
        }
        let asked = 50 + (self.outcome_rng.next_f64() * 400.0) as u64;
        let output = 50 + (self.outcome_rng.next_f64() * 500.0) as u64;
        let talk = &mut self.conversations[which];
        let next = talk.chain[0] + 1;
        // The longest prefix first.
        talk.chain.insert(0, next);
        talk.tokens += asked;
        let keys = Arc::new(ConversationKeys {
            session: None,
            chain: talk.chain.clone(),
            preamble: Some(7),
        });
        let input = talk.tokens;
        talk.tokens += output;
        let request = Box::new(Request {
            conversation: which,
            started: self.now,
            keys,
            input,
            output,
            failed_attempts: Vec::new(),
            attempts: AttemptCounts::default(),
            last: None,
            retry_granted: false,
            waited: Duration::ZERO,
            wait: self.mono() + MAX_AFFINITY_WAIT,
            round_robin_tries: Vec::new(),
        });
        self.board.count_request(self.mono());
        let gap = Duration::from_secs_f64(-(1.0 - self.outcome_rng.next_f64()).ln() / LOAD);
        self.schedule(self.now + gap, Event::Arrive);
        self.handle_event(Event::Decide(request));
    }

    /// The dispatch loop of the relay, one step at a time.
    fn decide(&mut self, mut request: Box<Request>, strategy: Strategy, sticky: bool) {
        let now = self.mono();
        let question = RouteQuery {
            failed_attempts: &request.failed_attempts,
            strategy,
            input_estimate: request.input,
            max_output: 1_024,
            costs: if strategy.uses_cost() { &self.costs } else { &[] },
            ..RouteQuery::first_attempt(&self.candidates)
        };
        let (decision, ticket) = if sticky {
            self.board.decide_with_affinity(
                &question,
                (&request.keys, TTL, request.wait),
                now,
                &mut self.decision_rng,
            )
        } else {
            self.board.decide(&question, now, &mut self.decision_rng)
        };
        match decision.verdict {
            Verdict::Try { index, .. } => {
                let free = std::mem::take(&mut request.retry_granted)
                    || self.may_retry(&mut request, RetryTarget::Other) == Some(Duration::ZERO);
                let Some(ticket) = ticket else { return self.record_failure(&request) };
                if !free {
                    self.board.record(&ticket, AttemptEnd::Abandoned, now);
                    return self.record_failure(&request);
                }
                self.start_attempt(request, Some(ticket), index);
            }
            Verdict::RetrySame { .. } => match self.may_retry(&mut request, RetryTarget::Same) {
                Some(pause) => {
                    request.retry_granted = true;
                    request.failed_attempts.retain(|tried| !tried.may_recover);
                    self.schedule(self.now + pause, Event::Decide(request));
                }
                None => self.record_failure(&request),
            },
            Verdict::Wait { until } => {
                let span = until
                    .map_or(Duration::from_secs(1), |until| until.since(now))
                    .max(Duration::from_millis(1));
                let permitted = request.last.is_none()
                    || request.retry_granted
                    || self.may_retry(&mut request, RetryTarget::Same).is_some();
                if !permitted || request.waited + span > MAX_QUEUE_TIME {
                    if request.wait > now {
                        request.wait = now;
                        return self.schedule(self.now, Event::Decide(request));
                    }
                    return self.record_failure(&request);
                }
                request.waited += span;
                request.retry_granted = true;
                request.failed_attempts.retain(|tried| !tried.may_recover);
                self.schedule(self.now + span, Event::Decide(request));
            }
            Verdict::Exhausted { .. } => self.record_failure(&request),
        }
    }

    fn may_retry(&mut self, request: &mut Request, to: RetryTarget) -> Option<Duration> {
        let Some(last) = &request.last else { return Some(Duration::ZERO) };
        match self.board.may_retry(
            last,
            &mut request.attempts,
            to,
            self.mono(),
            &mut self.decision_rng,
        ) {
            RetryDecision::Immediately => Some(Duration::ZERO),
            RetryDecision::After(pause) => Some(pause),
            RetryDecision::Stop(_) => None,
        }
    }

    /// Chooses the next key, regardless of its state.
    fn decide_round_robin(&mut self, mut request: Box<Request>) {
        if request.round_robin_tries.len() >= ROUND_ROBIN_TRIES {
            return self.record_failure(&request);
        }
        self.round_robin_next = (self.round_robin_next + 1) % self.candidates.len();
        request.round_robin_tries.push(self.round_robin_next);
        self.start_attempt(request, None, self.round_robin_next);
    }

    /// Simulates how the provider handles the request.
    fn start_attempt(
        &mut self,
        request: Box<Request>,
        ticket: Option<AttemptTicket>,
        index: usize,
    ) {
        self.report.attempts += 1;
        let (now, luck) = (self.now, self.outcome_rng.next_f64());
        let (upstream, key) = (&self.upstreams[index / KEYS], &mut self.keys[index]);
        let (after, result) = if !upstream.is_up(now) {
            match luck {
                ..0.5 => (
                    Duration::from_millis(2),
                    Err(transport_outcome(TransportKind::Connect, false)),
                ),
                ..0.9 => {
                    (Duration::from_millis(80), Err(refused_outcome(FaultKind::Server, 503, None)))
                }
                _ => (
                    Duration::from_secs(15),
                    Err(transport_outcome(TransportKind::FirstByteTimeout, true)),
                ),
            }
        } else if !key.works(now) {
            (Duration::from_millis(60), Err(refused_outcome(FaultKind::KeyRejected, 401, None)))
        } else {
            key.forget(now);
            if key.used.len() >= RPM {
                let oldest = key.used.front().copied().unwrap_or(now);
                // Half of all providers report how long to wait.
                let hint = upstream.sends_hint.then(|| oldest + Duration::from_secs(60) - now);
                (Duration::from_millis(50), Err(refused_outcome(FaultKind::RateLimited, 429, hint)))
            } else {
                key.used.push_back(now);
                if let Some(ticket) = ticket.as_ref().filter(|_| upstream.sends_hint) {
                    let reset = Duration::from_secs(60)
                        - now.saturating_sub(key.used.front().copied().unwrap_or(now));
                    let left = RateLimit {
                        limit: Some(RPM as u64),
                        remaining: (RPM - key.used.len()) as u64,
                        resets_in: reset,
                    };
                    let reply = RateLimits { requests: Some(left), ..RateLimits::default() };
                    self.board.record_rate_limits(
                        ticket,
                        &reply,
                        Mono(now + Duration::from_secs(1_000_000)),
                    );
                }
                // Two in a hundred take twelve times as long; one in five hundred breaks before its
                // first token.
                let slow = if luck < 0.02 { 12.0 } else { 1.0 };
                let spread = (-2.0 * (1.0 - self.outcome_rng.next_f64()).ln()).sqrt()
                    * (std::f64::consts::TAU * self.outcome_rng.next_f64()).cos();
                let took = Duration::from_secs_f64(upstream.ttft * slow * (0.35 * spread).exp());
                let broke = luck > 0.998;
                (
                    took,
                    if broke {
                        Err(transport_outcome(TransportKind::BodyBroken, true))
                    } else {
                        Ok(())
                    },
                )
            }
        };
        self.schedule(now + after, Event::Verdict(request, ticket, index, result));
    }

    fn finish_attempt(
        &mut self,
        mut request: Box<Request>,
        ticket: Option<AttemptTicket>,
        index: usize,
        result: Result<(), Outcome>,
    ) {
        let now = self.mono();
        match result {
            Ok(()) => self.record_answer(&request, ticket, index),
            Err(outcome) => {
                if let Some(ticket) = &ticket {
                    self.board.record(ticket, AttemptEnd::Failed(&outcome), now);
                    request.attempts.count_failure(&outcome);
                    let candidate = &self.candidates[index];
                    request.failed_attempts.push(FailedAttempt {
                        key: candidate.key,
                        upstream: candidate.upstream(),
                        model: Arc::clone(&candidate.target.model),
                        may_recover: outcome.cooldown != outcome::CooldownClass::Rejected,
                        upstream_failed: outcome.blames_upstream(),
                        upstream_refuses: false,
                    });
                    request.last = Some(outcome);
                }
                self.handle_event(Event::Decide(request));
            }
        }
    }

    fn record_answer(&mut self, request: &Request, ticket: Option<AttemptTicket>, index: usize) {
        let (now, price) = (self.now, self.upstreams[index / KEYS].price);
        let talk = &mut self.conversations[request.conversation];
        let known = talk
            .cached
            .get(&index)
            .filter(|(_, at)| now.saturating_sub(*at) < CACHED)
            .map_or(0, |(tokens, _)| *tokens);
        let cached = known.min(request.input);
        talk.cached.insert(index, (request.input, now));
        let report = &mut self.report;
        report.answered += 1;
        report.input += request.input;
        report.cached += cached;
        // Cached tokens cost a tenth.
        let fresh = (request.input - cached) as f64 + cached as f64 * 0.1;
        report.dollars += (fresh * price.0 + request.output as f64 * price.1) / 1e6;
        report.waits.push(u32::try_from((now - request.started).as_millis()).unwrap_or(u32::MAX));
        if let Some(ticket) = ticket {
            let at = self.mono();
            self.board.record(&ticket, AttemptEnd::Head2xx, at);
            self.board.record(&ticket, AttemptEnd::Content, at);
            let usage = Usage {
                input: request.input - cached,
                cache_read: cached,
                output: request.output,
                ..Usage::default()
            };
            let ttft = at.since(ticket.started);
            let streams = Duration::from_millis(request.output * 12);
            self.schedule(now + streams, Event::Finished(Box::new(ticket), usage, ttft));
        }
    }

    /// Counts a failed request, if any key could have served it.
    fn record_failure(&mut self, request: &Request) {
        let now = self.now;
        let (upstreams, keys) = (&self.upstreams, &mut self.keys);
        let could = keys.iter_mut().enumerate().any(|(index, key)| {
            key.forget(now);
            let all_along = upstreams[index / KEYS].is_up(now)
                && upstreams[index / KEYS].is_up(request.started);
            all_along && key.works(now) && key.used.len() < RPM
        });
        self.report.failed += u64::from(could);
    }
}

fn refused_outcome(kind: FaultKind, status: u16, hint: Option<Duration>) -> Outcome {
    let fault = Fault {
        kind,
        status,
        message: "simulated".to_owned(),
        code: None,
        error_type: None,
        param: None,
        retry_after: None,
    };
    outcome::classify_fault(&fault, hint, true)
}

fn transport_outcome(kind: TransportKind, sent: bool) -> Outcome {
    // A stream that never began was not billed.
    Outcome {
        maybe_billed: false,
        ..outcome::classify_transport(&TransportFault {
            kind,
            reason: FailureReason::text("simulated").into(),
            may_be_received: sent,
        })
    }
}
