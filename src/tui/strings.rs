//! The dashboard's texts in the user's language, from `assets/texts/`.

use std::sync::OnceLock;

/// A language of the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    English,
    Chinese,
}

impl Lang {
    /// The config's language, or else that of the locale (`zh_CN.UTF-8`).
    #[must_use]
    pub fn pick(config: &str, locale: &str) -> Self {
        let choice = if matches!(config, "en" | "zh") { config } else { locale };
        if choice.get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case("zh")) {
            Self::Chinese
        } else {
            Self::English
        }
    }

    /// All texts in this language.
    #[must_use]
    pub fn texts(self) -> &'static Texts {
        static ENGLISH: OnceLock<Texts> = OnceLock::new();
        static CHINESE: OnceLock<Texts> = OnceLock::new();
        let (cell, text) = match self {
            Self::Chinese => (&CHINESE, include_str!("../../assets/texts/zh.toml")),
            Self::English => (&ENGLISH, include_str!("../../assets/texts/en.toml")),
        };
        cell.get_or_init(|| Texts::read(text).expect("a test reads both files"))
    }
}

/// A text file while it is read into [`Texts`]. Handwritten, because a derived reader for this many
/// fields would be 1/40 of the binary.
struct Source {
    sections: toml::Table,
    missing: Vec<String>,
}

impl Source {
    #[inline(never)]
    fn take(&mut self, section: &str, name: &str) -> String {
        match self.sections.get_mut(section).and_then(|texts| texts.as_table_mut()?.remove(name)) {
            Some(toml::Value::String(text)) => text,
            _ => {
                self.missing.push(format!("{section}.{name}"));
                String::new()
            }
        }
    }

    /// The missing and surplus texts, after all expected texts were taken.
    fn flaw(mut self) -> Option<String> {
        let left = self.sections.iter().filter_map(|(section, texts)| {
            Some(format!("{section}.{}", texts.as_table()?.keys().next()?))
        });
        self.missing.extend(left);
        (!self.missing.is_empty()).then(|| self.missing.join(", "))
    }
}

/// One of the texts, chosen before the language is known.
pub type TextFn = fn(&Texts) -> &str;

/// Fills the placeholders (`{name}`) of a text; unknown placeholders stay.
#[must_use]
pub fn fill(text: &str, blanks: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let blank = rest[at..].find('}').and_then(|end| {
            let name = &rest[at + 1..at + end];
            blanks.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value, at + end + 1))
        });
        match blank {
            Some((value, next)) => {
                out.push_str(value);
                rest = &rest[next..];
            }
            None => {
                out.push('{');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

macro_rules! texts {
    ($($section:ident: $name:ident { $($field:ident)* })*) => {
        /// All texts by section.
        #[derive(Debug)]
        pub struct Texts {
            $(pub $section: $name,)*
        }

        $(
            #[derive(Debug)]
            pub struct $name {
                $(pub $field: String,)*
            }
        )*

        impl Texts {
            /// Reads the texts from a file.
            ///
            /// # Errors
            ///
            /// The file is not TOML, or it has missing or unused texts; the error names them.
            fn read(text: &str) -> Result<Self, String> {
                let sections = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
                let mut from = Source { sections, missing: Vec::new() };
                let texts = Self {
                    $($section: $name { $($field: from.take(stringify!($section), stringify!($field)),)* },)*
                };
                from.flaw().map_or(Ok(texts), Err)
            }
        }
    };
}

texts! {
    screen: Screens { live upstreams keys models usage log config request help }
    top: Top {
        connecting up draining paused running today since_start demo failed tokens cache won
        cache_won lost more more_short shows shows_short warms warms_short
        enlarge sorted filter
    }
    wrong: Wrong {
        list none balance budget_near budget_spent error_rate spike offline not_applied restart
        ledger down down_next cause all_cooling first_back cooling for_span rejected missing
        instead
        partly because
    }
    ask: Asks {
        kill cool test stop running_none running_one running_many copy copy_curl copy_id
        copy_answer filter replay keep
    }
    toast: Toasts {
        resync nothing_here ended_already none_selected copied the_curl the_id the_answer
        nothing_cooling no_single too_many unreachable
        no_editor nothing_said not_kept began none_began
    }
    foot: Foot {
        open cool warm toggle test reload filter kill copy pause sort back next quit all pane
        explain replay group days
        edit requests
    }
    help: Helps {
        here everywhere click open_request open_line cool warm warm_problem toggle test key_log
        upstream_live reload filter kill copy
        pause sort back clear move_ ends page live upstreams keys models usage log config next quit
        help pane headers raw replay
        group days edit open_usage explain unfold began problems
    }
    key: KeyWords { space click }
    order: Orders {
        newest slowest most_output costliest oldest config tier errors state most_used name cost
        requests tokens
    }
    col: Columns {
        time client model upstream key state age try_ ttft speed tokens cost dialect tier keys p50
        p95 errors minutes models
        fingerprint until run requests rpm tpm today kind health price targets level what used
        input cached output reasoning failed share rate token_rate half_hour
        project session day balance tries
    }
    state: States {
        queued waiting thinking streaming done retried retried_short cache_lost left broke denied
        unknown limited down timeout refused error
        healthy cooling open probing disabled no_key ok partly rejected missing key_waiting probe_in
        info warn
    }
    live: LiveTexts { empty begun no_match per_minute last ttft errors speed }
    request: RequestTexts {
        way conversation answer headers account numbers why none gone cache_lost session_cache won
        hedge rescue billed under_way answered ended lost error began streamed whole client
        session first took speed input output bytes finish asked_headers answered_headers
        no_headers not_kept waiting_text listening nothing_said
        missing raw more folded running_account system user assistant tool thinking refusal result
        media call cost split
    }
    upstreams: UpstreamTexts { empty no_match probe }
    keys: KeyTexts { empty no_match gives_nothing being_read let_through rest }
    models: ModelTexts { empty no_match ready some none alias logical configured discovered }
    usage: UsageTexts {
        today requests no_ledger empty demo beside by days one_day by_cost by_tokens loading
        no_match unnamed estimated
        of_all of_project spent a_day a_week a_month in_total begins unpriced
    }
    log: LogTexts { empty no_match older reading typing }
    config: ConfigTexts {
        file none applied ago listens projects version restart fine defaults broken warnings reload
        ledger ledger_none ledger_lost ledger_skipped ledger_waits
    }
    filter: FilterTexts { bad_span bad_sum }
    period: PeriodTexts { day week month total }
    failure: FailureTexts {
        at_proxy body broke_off budget_spent connect_timeout connection cooled_by_hand cooling
        half_of_total idle incomplete killed lost_first lost_second no_answer no_content probe
        refused_code refused_model refused_with shutting_down too_large total truncated unfinished
        unresolved
    }
    connection: ConnectionTexts {
        closed_before_response closed_by_upstream closed_in_handshake closed_in_head
        closed_when_made dead head_too_large network_lost network_unreachable no_answer
        no_connection no_route not_http2 out_of_files refused reset_before_response
        reset_while_connecting stale timed_out
    }
    body: BodyTexts { broke_off connection_dead cut_off malformed_chunk }
    secret: SecretTexts {
        empty no_file no_key not_in_keyring other unsendable unset variable_hint
    }
    budget: BudgetTexts { again all key project reserved spent unpriced upstream }
    skip: SkipTexts {
        already_failed cooling disabled lower_tier near_limit not_picked other_dialect
        other_region over_limit probing rejected waiting_for_key
    }
    scope: ScopeTexts { account key key_model upstream }
    capability: CapabilityTexts { context schema tools vision }
    limit: LimitTexts {
        concurrent input model_requests model_tokens output requests requests_per_minute tokens
        tokens_per_minute upstream_concurrent upstream_per_second
    }
    route: RouteTexts {
        affinity affinity_lower any_name attempt best chosen colon_name hedge hedge_p95
        least_suspect logical more newest only path probe repaired rescue retry served skipped_first
        skipped_next skipped_one slash_name translated wait_key wait_slot wait_verdict
    }
    repair: RepairTexts {
        adaptive drop drop_inside endpoint limit prefill rename role schema system_first text_only
        thinks thoughts_back values
    }
    cache_miss: CacheMissTexts {
        cache_control cost expired key message message_role model provider share system tool_order
        tools translated untranslated upstream
    }
    health: HealthTexts {
        account_cools account_works answers_probe cooled cools for_model rejected warmed
        warmed_all works
    }
    reload: ReloadTexts {
        applied file_changed local_servers rejected requested restart signal switched_off
        switched_on unreadable
    }
    notice: NoticeTexts {
        bodies_skipped bodies_all bodies_failed client_key data_dir_not_writable key_kept key_not_usable learned
        ledger_damaged ledger_not_started ledger_not_writable ledger_replaced ledger_writable
        needs_url network_back network_down spaces stopping unpriced
    }
    action: ActionTexts {
        aborted accepted body_not_stored built_in cannot_replay failed forgotten key_works
        no_channel no_ledger not_in_file not_running nothing_learned project_gone sent_again several_keys shown unknown_key
        unknown_request unknown_upstream
    }
    line: LineTexts { attempt by cache_missed client_left error took }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_have_every_text_with_the_same_placeholders() {
        let read = |text: &str| text.parse::<toml::Table>().unwrap();
        let (en, zh) = (
            read(include_str!("../../assets/texts/en.toml")),
            read(include_str!("../../assets/texts/zh.toml")),
        );
        // Reading checks that no text is missing and none is unused.
        assert_eq!(
            Texts::read("[screen]\nlive = \"x\"\nodd = \"y\"").unwrap_err().split(", ").next(),
            Some("screen.upstreams")
        );
        assert!(
            Texts::read(
                &include_str!("../../assets/texts/en.toml")
                    .replace("[screen]", "[screen]\nodd = \"y\"")
            )
            .unwrap_err()
                == "screen.odd"
        );
        assert!(
            !Lang::English.texts().screen.live.is_empty()
                && !Lang::Chinese.texts().screen.live.is_empty()
        );
        let blanks = |text: &str| {
            let mut names: Vec<String> = text
                .split('{')
                .skip(1)
                .filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()))
                .collect();
            names.sort();
            names
        };
        for (section, texts) in &en {
            for (name, text) in texts.as_table().unwrap() {
                let other = zh[section][name].as_str().unwrap();
                assert_eq!(blanks(text.as_str().unwrap()), blanks(other), "{section}.{name}");
            }
        }
    }

    #[test]
    fn placeholders_are_filled_without_recursion() {
        assert_eq!(fill("{a} of {b}{c}", &[("a", "{b}"), ("b", "2")]), "{b} of 2{c}");
        assert_eq!(fill("no { blank", &[("a", "x")]), "no { blank");
    }

    #[test]
    fn config_language_overrides_the_locale() {
        for (config, locale, want) in [
            ("auto", "zh_CN.UTF-8", Lang::Chinese),
            ("auto", "ZH", Lang::Chinese),
            ("auto", "C.UTF-8", Lang::English),
            ("en", "zh_CN.UTF-8", Lang::English),
            ("zh", "", Lang::Chinese),
            ("auto", "é", Lang::English),
        ] {
            assert_eq!(Lang::pick(config, locale), want, "{config} {locale}");
        }
    }
}
