//! Expected costs calculated by hand.

use std::path::Path;

use super::*;
use crate::config::{Environment, IdInterner, Settings, load::load};

const CONFIG: &str = r#"
[[upstream]]
name = "work"
preset = "openai"
[[upstream]]
name = "claude"
preset = "anthropic"
[[upstream]]
name = "google"
preset = "gemini"
[[upstream]]
name = "fake"
base_url = "https://fake.example/v1"
[[upstream]]
name = "mine"
base_url = "https://mine.example/v1"
prices_win = true
[[upstream]]
name = "here"
base_url = "http://127.0.0.1:9/v1"

[prices."fake/m"]
input = 1
cache_read = 0.1
cache_write_5m = 1.25
cache_write_1h = 2
output = 10
reasoning = 20
audio_in = 30
audio_out = 40
image_in = 5
image_out = 50
search = 10
request = 0.001
[prices."mine/m"]
input = 1
output = 1
[prices."fake/cny-*"]
input = 2
output = 8
currency = "CNY"
[prices."fake/tiny"]
input = 0.0001
[prices."fake/tiers"]
input = 1
output = 2
when = [
  { input_above = 1000, input = 3 },
  { input_above = 1000, output_above = 10, input = 4, output = 5 },
  { tier = "flex", input = 0.5 },
  { hours = "16:30-00:30", output = 1 },
  { from = "2030-01-01", until = "2031-01-01", input = 9 },
  { thinking = true, tier = "priority", output = 7 },
]
[prices."fake/pictures"]
request = 0.04
when = [{ resolution = "1024x1536", quality = "high", request = 0.25 }, { quality = "high", request = 0.17 }]
[prices."openai/gpt-5-nano"]
input = 7
[rates]
CNY = 0.14
"#;

struct PricingFixture {
    settings: Settings,
    book: PriceBook,
}

impl PricingFixture {
    fn new() -> Self {
        let loaded =
            load(CONFIG, Path::new("c.toml"), &Environment::default(), &mut IdInterner::default());
        let settings = loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.problems));
        Self { book: PriceBook::new(&settings), settings }
    }

    fn bill_for(
        &self,
        upstream: &str,
        sent: &str,
        change: impl FnOnce(&mut BillQuery<'_>),
        usage: &Usage,
    ) -> Bill {
        let upstream = self
            .settings
            .upstreams
            .iter()
            .find(|row| *row.name == *upstream)
            .expect("an upstream of the config");
        let at = UnixMillis(1_750_000_000_000 - 1_750_000_000_000 % 86_400_000 + 10 * 3_600_000);
        let mut question = BillQuery {
            upstream,
            sent_model: sent,
            reported_model: None,
            usage: Some(usage),
            precision: Precision::Exact,
            started_at: at,
            conditions: PriceConditions::default(),
        };
        change(&mut question);
        bill(&self.book, &question)
    }
}

fn tokens(input: u64, output: u64) -> Usage {
    Usage { input, output, ..Usage::default() }
}

#[test]
fn each_token_class_is_charged_once_at_its_own_price() {
    const TEN_MILLION: u64 = 10_000_000;
    let world = PricingFixture::new();
    // Ten million tokens of each class, so that an error in one class shows as dollars.
    for (usage, dollars) in [
        (Usage { input: TEN_MILLION, ..Usage::default() }, 10.0),
        (Usage { cache_read: TEN_MILLION, ..Usage::default() }, 1.0),
        (Usage { cache_write_5m: TEN_MILLION, ..Usage::default() }, 12.5),
        (Usage { cache_write_1h: TEN_MILLION, ..Usage::default() }, 20.0),
        (Usage { output: TEN_MILLION, ..Usage::default() }, 100.0),
        (Usage { reasoning: TEN_MILLION, ..Usage::default() }, 200.0),
        (Usage { audio_in: TEN_MILLION, ..Usage::default() }, 300.0),
        (Usage { audio_out: TEN_MILLION, ..Usage::default() }, 400.0),
        (Usage { image_in: TEN_MILLION, ..Usage::default() }, 50.0),
        (Usage { image_out: TEN_MILLION, ..Usage::default() }, 500.0),
        (Usage { searches: 2_000, ..Usage::default() }, 20.0),
        (Usage::default(), 0.0),
        (
            Usage {
                input: TEN_MILLION,
                cache_read: TEN_MILLION,
                cache_write_5m: TEN_MILLION,
                output: TEN_MILLION,
                reasoning: TEN_MILLION,
                ..Usage::default()
            },
            10.0 + 1.0 + 12.5 + 100.0 + 200.0,
        ),
    ] {
        let bill = world.bill_for("fake", "m", |_| {}, &usage);
        // One request costs a tenth of a cent in addition.
        assert_eq!(bill.cost, NanoUsd::from_dollars(dollars + 0.001), "{usage:?}");
        assert_eq!((bill.source, bill.precision), (CostSource::Config, Precision::Exact));
    }
}

#[test]
fn cost_is_rounded_once() {
    let world = PricingFixture::new();
    let cost = |upstream, model, usage: &Usage| {
        world.bill_for(upstream, model, |_| {}, usage).cost.expect("known").0
    };
    // A tenth of a billionth per token: five make half a billionth, which is rounded up; four round
    // to zero.
    assert_eq!(
        [4, 5, 14, 15, 10_000_000].map(|n| cost("fake", "tiny", &tokens(n, 0))),
        [0, 1, 1, 2, 1_000_000]
    );
    // 2 yuan for input, 8 for output, at 14 cents per yuan.
    assert_eq!(cost("fake", "cny-large", &tokens(1_000_000, 500_000)), 840_000_000);
    assert_eq!(
        cost("fake", "m", &Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() }),
        i64::MAX
    );
}

#[test]
fn narrowest_matching_condition_sets_the_price() {
    type Change = fn(&mut BillQuery<'_>);
    let world = PricingFixture::new();
    let plain: Change = |_| {};
    let cases: [(u64, u64, u64, Change, f64); 11] = [
        (1_000, 0, 0, plain, 0.001),
        (1_001, 0, 0, plain, 0.003_003),
        (1_001, 10, 0, plain, 0.003_003 + 0.000_02),
        (1_001, 11, 0, plain, 0.004_004 + 0.000_055),
        (1_000, 0, 0, |q| q.conditions.tier = Some("Flex"), 0.000_5),
        (1_000, 0, 0, |q| q.conditions.tier = Some("default"), 0.001),
        (0, 1_000, 0, |q| q.started_at.0 += 7 * 3_600_000, 0.001),
        (0, 1_000, 0, |q| q.started_at.0 += 14 * 3_600_000 + 29 * 60_000, 0.001),
        (0, 1_000, 0, |q| q.started_at.0 += 14 * 3_600_000 + 30 * 60_000, 0.002),
        (1_000, 0, 0, |q| q.started_at = UnixMillis(1_893_456_000_000), 0.009),
        (0, 500, 500, |q| q.conditions.tier = Some("priority"), 0.007),
    ];
    for (index, (input, output, reasoning, change, dollars)) in cases.into_iter().enumerate() {
        let bill =
            world.bill_for("fake", "tiers", change, &Usage { reasoning, ..tokens(input, output) });
        assert_eq!(bill.cost, NanoUsd::from_dollars(dollars), "case {index}: {:?}", bill.price);
    }
    let picture = |facts| {
        world
            .bill_for("fake", "pictures", |q| q.conditions = facts, &Usage::default())
            .cost
            .map(NanoUsd::dollars)
    };
    assert_eq!(picture(PriceConditions::default()), Some(0.04));
    assert_eq!(
        picture(PriceConditions { quality: Some("high"), ..PriceConditions::default() }),
        Some(0.17)
    );
    assert_eq!(
        picture(PriceConditions {
            quality: Some("high"),
            resolution: Some("1024x1536"),
            ..PriceConditions::default()
        }),
        Some(0.25)
    );
}

#[test]
fn cost_sources_have_a_fixed_precedence() {
    let world = PricingFixture::new();
    let with_reported_cost = Usage { reported_cost: Some(NanoUsd(5_000)), ..tokens(1_000, 0) };
    for (upstream, model, usage, cost, source) in [
        ("fake", "m", with_reported_cost, Some(5_000), CostSource::Reported),
        ("mine", "m", with_reported_cost, Some(1_000_000), CostSource::Config),
        ("mine", "other", with_reported_cost, Some(5_000), CostSource::Reported),
        ("fake", "other", tokens(1, 1), None, CostSource::Unknown),
        ("here", "llama", tokens(1_000, 1_000), Some(0), CostSource::Local),
        ("work", "gpt-5-nano", tokens(1_000_000, 0), Some(7_000_000_000), CostSource::Config),
        (
            "work",
            "gpt-5-mini-2025-08-07",
            tokens(1_000_000, 1_000_000),
            Some(2_250_000_000),
            CostSource::Builtin,
        ),
    ] {
        let bill = world.bill_for(upstream, model, |_| {}, &usage);
        assert_eq!((bill.cost.map(|c| c.0), bill.source), (cost, source), "{upstream}/{model}");
        assert_eq!(bill.reported, usage.reported_cost, "both sums are kept");
    }
    let both = world.bill_for("fake", "m", |_| {}, &with_reported_cost);
    assert_eq!((both.computed, both.cost), (Some(NanoUsd(2_000_000)), Some(NanoUsd(5_000))));
}

#[test]
fn unknown_model_is_priced_by_the_name_in_the_answer() {
    let world = PricingFixture::new();
    let answered = |name| {
        world.bill_for("claude", "smart", |q| q.reported_model = Some(name), &tokens(1_000, 0))
    };
    assert_eq!(answered("claude-haiku-4-5-20251001").cost, Some(NanoUsd(1_000_000)));
    assert_eq!(answered("claude-unheard-of").cost, None);
    // A long context costs more; cached input counts towards its length.
    let long = world.bill_for(
        "claude",
        "claude-sonnet-4-5",
        |_| {},
        &Usage { cache_read: 200_000, ..tokens(1, 0) },
    );
    assert_eq!(long.cost, Some(NanoUsd(200_000 * 600 + 6_000)));
    assert_eq!(
        long.price.as_ref().map(|price| &*price.condition),
        Some("more than 200000 input tokens")
    );
    let short = world.bill_for("google", "models/gemini-2.5-pro", |_| {}, &tokens(200_000, 0));
    assert_eq!(short.cost, Some(NanoUsd(250_000_000)));
}

proptest::proptest! {
    #[test]
    fn cost_is_monotonic_in_every_token_class(a in proptest::array::uniform10(0_u64..1 << 40), more in 0_usize..10, n in 1_u64..1 << 40) {
        let world = PricingFixture::new();
        let usage = |a: [u64; 10]| Usage {
            input: a[0], cache_read: a[1], cache_write_5m: a[2], cache_write_1h: a[3], output: a[4], reasoning: a[5],
            audio_in: a[6], audio_out: a[7], image_in: a[8], image_out: a[9], ..Usage::default()
        };
        let mut b = a;
        b[more] += n;
        let (less, more) = (world.bill_for("fake", "m", |_| {}, &usage(a)), world.bill_for("fake", "m", |_| {}, &usage(b)));
        proptest::prop_assert!(less.cost <= more.cost);
    }
}
