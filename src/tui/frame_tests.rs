//! Tests every screen at common sizes, and that no other size panics.

use std::sync::Arc;

use insta::assert_snapshot;
use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::{
    base::clock::UnixMillis,
    events::log_message::LogMessage,
    events::record::RequestState,
    ir::reason::{failure::FailureReason, route::RouteReason},
    tui::{
        app::{Overlay, Pane},
        msg::Msg,
        screen::Screen,
        selection::clamp_selection,
        strings::Lang,
        tests::sample,
        update::update,
    },
};

const EN: Lang = Lang::English;

fn frame_context(lang: Lang) -> FrameContext {
    FrameContext { text: lang.texts(), ..sample::frame_context() }
}

fn frame_in(app: &mut App, columns: u16, rows: u16, theme: &str, utf8: bool, lang: Lang) -> Buffer {
    app.size = (columns, rows);
    clamp_selection(app, frame_context(lang));
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    let look = FrameStyle { theme: Theme::named(theme).unwrap(), utf8 };
    draw(app, frame_context(lang), &look, &mut buffer);
    buffer
}

fn frame(app: &mut App, columns: u16, rows: u16, theme: &str, utf8: bool) -> Buffer {
    frame_in(app, columns, rows, theme, utf8, EN)
}

fn buffer_text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let mut line = String::new();
        let mut skip = 0;
        // The cell after a wide character is part of it.
        for cell in cells {
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = crate::base::sanitize::display_width(cell.symbol()).max(1);
            }
            skip -= 1;
        }
        line
    };
    buffer.content.chunks(width).map(line).map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn draw_to_text(app: &mut App, columns: u16, rows: u16) -> String {
    buffer_text(&frame(app, columns, rows, "dark", true))
}

const SIZES: [(u16, u16); 4] = [(60, 16), (80, 24), (120, 40), (200, 60)];

/// One snapshot per screen and language with all sizes. Empty lines at the end of a body are
/// counted.
fn assert_at_all_sizes(name: &str, app: &mut App) {
    for (lang, suffix) in [(Lang::English, "en"), (Lang::Chinese, "zh")] {
        let mut all = String::new();
        for (columns, rows) in SIZES {
            all.push_str(&format!("{columns}x{rows}\n"));
            let mut empty = 0;
            for line in buffer_text(&frame_in(app, columns, rows, "dark", true, lang)).lines() {
                if line.is_empty() {
                    empty += 1;
                    continue;
                }
                if empty > 0 {
                    all.push_str(&format!("({empty} empty)\n"));
                    empty = 0;
                }
                all.push_str(line);
                all.push('\n');
            }
        }
        assert_snapshot!(format!("{name}_{suffix}"), all);
    }
}

#[test]
fn screens() {
    for screen in Screen::ALL {
        let mut app = sample::app();
        app.screen = screen;
        assert_at_all_sizes(&screen.title().to_lowercase(), &mut app);
    }
}

fn app_with_request(id: crate::base::id::RequestId, pane: Pane) -> App {
    let mut app = sample::app();
    let mut look = crate::tui::app::RequestView::new(id);
    look.pane = pane;
    app.overlay = Some(Overlay::Request(look));
    let story = sample::transcript(id);
    update(&mut app, Msg::Transcript(Ok(Box::new(story))), sample::frame_context());
    app
}

#[test]
fn help_and_request() {
    let mut app = sample::app();
    app.overlay = Some(Overlay::Help { scroll: 0, request_view: None });
    assert_at_all_sizes("help", &mut app);
    assert_at_all_sizes(
        "request_way",
        &mut app_with_request(sample::request_id(7), Pane::Timeline),
    );
    assert_at_all_sizes(
        "request_conversation",
        &mut app_with_request(sample::request_id(7), Pane::Conversation),
    );
    assert_at_all_sizes(
        "request_running",
        &mut app_with_request(sample::request_id(101), Pane::Answer),
    );
    assert_at_all_sizes(
        "request_headers",
        &mut app_with_request(sample::request_id(7), Pane::Headers),
    );
    let mut app = sample::app();
    app.overlay = Some(Overlay::Request(crate::tui::app::RequestView::new(sample::request_id(2))));
    assert_snapshot!("request_failed_80x24", draw_to_text(&mut app, 80, 24));
}

/// The roles of a frame: one letter for each cell that is not plain text.
fn style_listing(app: &mut App, theme: &str) -> String {
    let buffer = frame(app, 80, 24, theme, true);
    let theme = Theme::named(theme).unwrap();
    let letter = |cell: &ratatui::buffer::Cell| {
        let selected = cell.bg != ratatui::style::Color::Reset
            || theme.select().add_modifier.intersects(cell.modifier)
                && !theme.select().add_modifier.is_empty();
        let of = |role: ThemeRole| {
            let style = theme.style(role);
            style.fg.unwrap_or(ratatui::style::Color::Reset) == cell.fg
                && cell.modifier.contains(style.add_modifier)
                && style != theme.style(ThemeRole::Text)
        };
        let roles = [
            (ThemeRole::Error, 'b'),
            (ThemeRole::Accent, 'a'),
            (ThemeRole::Ok, 'o'),
            (ThemeRole::Warn, 'w'),
            (ThemeRole::Dim, 'd'),
        ];
        let letter = roles
            .into_iter()
            .find(|(role, _)| of(*role))
            .map_or(if cell.symbol() == " " { ' ' } else { '.' }, |(_, c)| c);
        if selected { letter.to_ascii_uppercase() } else { letter }
    };
    buffer
        .content
        .chunks(80)
        .map(|line| line.iter().map(letter).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

#[test]
fn style_roles_match_the_snapshots() {
    for theme in ["dark", "mono"] {
        let mut all = String::new();
        for screen in [Screen::Live, Screen::Keys, Screen::Usage] {
            let mut app = sample::app();
            app.screen = screen;
            all.push_str(&format!("{}\n{}", screen.title(), style_listing(&mut app, theme)));
        }
        assert_snapshot!(format!("styles_{theme}"), all);
    }
}

#[test]
fn lost_proxy_shows_the_next_try() {
    let mut app = sample::app();
    update(
        &mut app,
        Msg::Disconnected {
            reason: "nothing listens at 127.0.0.1:8642".to_owned(),
            retry_ms: 3_000,
        },
        sample::frame_context(),
    );
    let buffer = frame(&mut app, 80, 24, "dark", true);
    assert!(buffer_text(&buffer).contains("connection lost, trying again (3s)"));
    assert!(buffer[(4, 8)].modifier.contains(ratatui::style::Modifier::DIM));
}

#[test]
fn dialogs_filters_and_toasts_are_in_the_bottom_line() {
    let key = |app: &mut App, c| {
        drop(update(
            app,
            Msg::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)),
            sample::frame_context(),
        ));
    };
    let last = |app: &mut App| {
        draw_to_text(app, 100, 24).trim_end().lines().last().unwrap_or_default().to_owned()
    };

    let mut app = sample::app();
    app.in_process = true;
    key(&mut app, 'q');
    assert_eq!(last(&mut app), " stop the proxy too? 2 requests are running  y/n/Esc");

    let mut app = sample::app();
    key(&mut app, 'x');
    assert_eq!(last(&mut app), " kill the request of ide for essay?  y/n");

    let mut app = sample::app();
    for c in "/model:chat >x".chars() {
        key(&mut app, c);
    }
    assert_eq!(last(&mut app), " / model:chat >x█  `>x`: write a duration as >2s, <500ms or >1m");
    assert_eq!(
        last(&mut sample::app()),
        " Enter open · / filter · x kill · r replay · y copy · ? all keys"
    );
}

#[test]
fn empty_proxy_shows_first_steps_and_a_restarted_one_the_day() {
    let mut app = sample::app();
    let snapshot = app.snapshot.as_mut().unwrap();
    snapshot.live = crate::events::live::Live::default();
    let begun = draw_to_text(&mut app, 80, 24);
    assert!(
        begun.contains("No requests since the start 3h12m ago. 205 today: press 6 for"),
        "{begun}"
    );
    app.usage.today.as_mut().unwrap().total = crate::control::history::Totals::default();
    assert_snapshot!("live_empty_80x24", draw_to_text(&mut app, 80, 24));
}

#[test]
fn top_line_drops_complete_parts_and_shows_a_paused_screen() {
    for columns in 60..=200 {
        for lang in [EN, Lang::Chinese] {
            for screen in Screen::ALL {
                let mut app = sample::app();
                app.screen = screen;
                for paused in [false, true] {
                    if paused {
                        update(
                            &mut app,
                            Msg::Key(KeyEvent::new(KeyCode::Char('1'), KeyModifiers::NONE)),
                            frame_context(lang),
                        );
                        update(
                            &mut app,
                            Msg::Key(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::NONE)),
                            frame_context(lang),
                        );
                        app.screen = screen;
                    }
                    let text = buffer_text(&frame_in(&mut app, columns, 16, "dark", true, lang));
                    let top = text.lines().next().unwrap();
                    assert!(!top.contains('…') && top.contains("$1.840"), "{columns} {top}");
                    assert_eq!(top.contains(&lang.texts().top.paused), paused, "{columns} {top}");
                }
            }
        }
    }
    let top =
        |app: &mut App, columns| draw_to_text(app, columns, 16).lines().next().unwrap().to_owned();
    let mut app = sample::app();
    assert!(
        top(&mut app, 120).contains("127.0.0.1:8642 · up 3h12m ")
            && !top(&mut app, 120).contains("affinity")
    );
    assert!(
        top(&mut app, 200)
            .ends_with("205 today · 4 failed · 1.48M tok · $1.840 · cache 69 %, 34 % by affinity")
    );
    app.snapshot.as_mut().unwrap().ledger = None;
    app.usage.today = None;
    assert!(
        top(&mut app, 120).contains("2 running · 214 since start · 2 failed"),
        "{}",
        top(&mut app, 120)
    );
}

#[test]
fn cooled_models_align_with_the_columns_of_their_key() {
    for (columns, rows) in SIZES {
        for lang in [EN, Lang::Chinese] {
            let mut app = sample::app();
            app.screen = Screen::Keys;
            let keys = &mut app.snapshot.as_mut().unwrap().keys;
            let mut scope = keys[1].scopes[0].clone();
            keys[0].scopes = vec![scope.clone()];
            (keys[0].state, keys[0].since, keys[0].until) = (scope.state, scope.since, scope.until);
            keys[0].label = "work".to_owned();
            scope.model = "通义千问-max-一二三四五六七八九十".to_owned();
            keys[0].scopes.push(scope);
            let buffer = frame_in(&mut app, columns, rows, "dark", true, lang);
            let line = |y: u16| {
                (0..columns).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<Vec<_>>()
            };
            let first = (0..rows).find(|y| line(*y).concat().contains("▸ healthy/work")).unwrap();
            let place =
                |y: u16, glyph: &str| line(y).iter().position(|cell| cell == glyph).unwrap();
            for glyph in ["▲", "█"] {
                assert_eq!(place(first + 1, glyph), place(first, glyph), "{columns} {glyph}");
                assert_eq!(place(first + 2, glyph), place(first, glyph), "{columns} {glyph}");
            }
        }
    }
}

#[test]
fn all_problems_can_be_read() {
    let mut app = sample::app();
    let key = Msg::Key(KeyEvent::new(KeyCode::Char('!'), KeyModifiers::NONE));
    update(&mut app, key.clone(), sample::frame_context());
    let text = draw_to_text(&mut app, 80, 24);
    assert!(
        text.contains("2 problems now") && text.contains("connection refused (127.0.0.1:9)"),
        "{text}"
    );
    assert!(
        text.contains("limited/LIMITED_KEY is cooling") && text.contains("3 shows keys"),
        "{text}"
    );
    update(&mut app, key, sample::frame_context());
    assert_eq!(app.overlay, None);
}

#[test]
fn demo_only_usage_is_explained_instead_of_an_empty_chart() {
    let mut app = sample::app();
    app.screen = Screen::Usage;
    let view = app.usage.view.as_mut().unwrap();
    view.demo.requests = 15;
    assert!(
        draw_to_text(&mut app, 120, 40)
            .contains("Also 15 requests to the built-in upstream, which do not count.")
    );
    let view = app.usage.view.as_mut().unwrap();
    view.days.clear();
    view.rows.truncate(1);
    view.total = crate::control::history::Totals { requests: 3, failed: 3, ..Default::default() };
    let text = draw_to_text(&mut app, 120, 40);
    assert!(
        !text.contains("by day") && !text.contains("estimated") && text.contains("Also 15"),
        "{text}"
    );
}

#[test]
fn long_reasons_of_attempts_and_long_system_messages_can_be_read() {
    let mut app = app_with_request(sample::request_id(7), Pane::Timeline);
    let live = &mut app.snapshot.as_mut().unwrap().live;
    let record =
        live.recent.iter_mut().find(|r| r.id == sample::request_id(7)).map(Arc::make_mut).unwrap();
    let reason = "429 rate_limit_exceeded: Rate limit reached for the model in the organisation on requests per minute (cooling 41s)";
    record.attempts[0].outcome = Some(FailureReason::text(reason).into());
    for (columns, rows) in SIZES {
        let words: Vec<String> =
            draw_to_text(&mut app, columns, rows).split_whitespace().map(str::to_owned).collect();
        assert!(words.join(" ").contains(reason), "{columns}");
    }
    let mut app = app_with_request(sample::request_id(7), Pane::Conversation);
    assert!(!draw_to_text(&mut app, 80, 24).contains("careful engineer"));
    update(
        &mut app,
        Msg::Key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)),
        sample::frame_context(),
    );
    assert!(draw_to_text(&mut app, 80, 24).contains("careful engineer"));
}

#[test]
fn log_shows_loading_before_empty() {
    let mut app = sample::app();
    let press = |app: &mut App, code| {
        drop(update(
            app,
            Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)),
            sample::frame_context(),
        ));
    };
    press(&mut app, KeyCode::Char('6'));
    press(&mut app, KeyCode::Char('/'));
    for c in "zzz".chars() {
        press(&mut app, KeyCode::Char(c));
    }
    assert!(draw_to_text(&mut app, 80, 24).contains("Enter searches the ledger too"));
    press(&mut app, KeyCode::Enter);
    assert!(draw_to_text(&mut app, 80, 24).contains("reading older requests from the ledger"));
    update(&mut app, Msg::Tick, sample::frame_context());
    assert!(draw_to_text(&mut app, 80, 24).contains("reading older requests from the ledger"));
    let page = crate::control::history::HistoryPage { requests: Vec::new(), next: None };
    update(
        &mut app,
        Msg::History { filter: "zzz".to_owned(), page: Ok(page) },
        sample::frame_context(),
    );
    assert!(draw_to_text(&mut app, 80, 24).contains("No line matches the filter"));
}

#[test]
fn ended_requests_sort_by_shown_time_without_duplicate_names() {
    let mut app = sample::app();
    let live = &mut app.snapshot.as_mut().unwrap().live;
    live.recent.push_back(sample::finished(0, "healthy/chat-large", "healthy", 200, 60_000).into());
    let last = live.recent.back_mut().map(Arc::make_mut).unwrap();
    last.attempts[0].model = "chat-large".into();
    let text = draw_to_text(&mut app, 120, 30);
    let times: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("22:1") && !line.contains('◐'))
        .map(|line| &line[3..11])
        .collect();
    assert!(times.len() == 9 && times.is_sorted_by(|a, b| a >= b), "{text}");
    assert!(
        text.contains(" healthy/chat-large ") && !text.contains("healthy/chat-large →"),
        "{text}"
    );
}

#[test]
fn config_screen_does_not_call_a_missing_file_valid() {
    let mut app = sample::app();
    app.screen = Screen::Config;
    app.snapshot.as_mut().unwrap().config.path = None;
    let text = draw_to_text(&mut app, 120, 40);
    assert!(
        text.contains("no problems: there is no file") && !text.contains("the file is valid"),
        "{text}"
    );
    let config = &mut app.snapshot.as_mut().unwrap().config;
    config.problems = vec!["config.toml:3:1: unknown key `listn`".to_owned()];
    config.annotated =
        "error: unknown key `listn`\n --> config.toml:3:1\n3 | listn = 1\n  | ^^^^^\n".to_owned();
    let text = draw_to_text(&mut app, 120, 40);
    assert!(text.contains("  3 | listn = 1\n") && text.contains("    | ^^^^^\n"), "{text}");
}

#[test]
fn wide_characters_keep_columns_aligned() {
    let mut app = sample::app();
    let snapshot = app.snapshot.as_mut().unwrap();
    snapshot.live.recent.push_back(
        sample::finished(9, "通义千问-max-一二三四五六七八九十-最新版本", "健康", 200, 800).into(),
    );
    let buffer = frame(&mut app, 120, 40, "dark", true);
    let column_of = |word: &str, row: u16| {
        (0..120).find(|x| {
            (*x..120).map(|x| buffer[(x, row)].symbol()).collect::<String>().starts_with(word)
        })
    };
    let head = column_of("UPSTREAM", 6).unwrap();
    assert_eq!(buffer[(head, 9)].symbol(), "健");
    assert_eq!(buffer[(head, 10)].symbol(), "h");
}

#[test]
fn mono_theme_has_no_colour_and_ascii_mode_is_ascii_only() {
    for screen in Screen::ALL {
        let mut app = sample::app();
        app.screen = screen;
        let buffer = frame(&mut app, 120, 40, "mono", false);
        for cell in &buffer.content {
            assert_eq!(
                (cell.fg, cell.bg),
                (ratatui::style::Color::Reset, ratatui::style::Color::Reset)
            );
            assert!(cell.symbol().is_ascii(), "{}", cell.symbol());
        }
    }
}

#[test]
fn too_small_terminal_shows_a_hint() {
    assert!(draw_to_text(&mut sample::app(), 39, 24).contains("enlarge to 40x10"));
    assert!(draw_to_text(&mut sample::app(), 40, 9).contains("enlarge to 40x10"));
    assert!(draw_to_text(&mut sample::app(), 40, 10).contains("Live"));
}

#[test]
fn untrusted_text_is_escaped_on_every_screen() {
    let mut app = sample::app();
    let snapshot = app.snapshot.as_mut().unwrap();
    let evil = "\x1b]0;pwned\x07\u{9b}2J\u{202e}x\0\r\ny";
    for r in
        snapshot.live.recent.iter_mut().map(Arc::make_mut).chain(snapshot.live.running.iter_mut())
    {
        r.requested_model = evil.into();
        r.project = evil.into();
        r.error = Some(evil.into());
        r.reason = Some(RouteReason::text(evil).into());
    }
    snapshot.upstreams[2].cause = Some(FailureReason::text(evil).into());
    snapshot.keys[0].label = evil.to_owned();
    snapshot.models[0].name = evil.to_owned();
    snapshot.config.problems = vec![evil.to_owned()];
    let mut story = sample::transcript(sample::request_id(2));
    for part in story.conversation.iter_mut().chain(&mut story.answer) {
        part.text = evil.repeat(20);
        part.name = evil.to_owned();
    }
    story.request_headers = vec![(evil.to_owned(), evil.to_owned())];
    app.transcript = Some(Box::new(story));
    if let Some(view) = &mut app.usage.view {
        view.rows[0].name = evil.to_owned();
    }
    for screen in Screen::ALL {
        app.screen = screen;
        for pane in [
            None,
            Some(Pane::Timeline),
            Some(Pane::Conversation),
            Some(Pane::Answer),
            Some(Pane::Headers),
        ] {
            app.overlay = pane.map(|pane| {
                Overlay::Request(crate::tui::app::RequestView {
                    pane,
                    ..crate::tui::app::RequestView::new(sample::request_id(2))
                })
            });
            let text = draw_to_text(&mut app, 120, 40);
            assert!(
                !text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'),
                "{text:?}"
            );
        }
    }
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        Just("x".repeat(1_000_000)),
        Just("a b\n".repeat(3_000)),
        Just("e\u{301}\u{301}".repeat(300)),
        Just("通义👨‍👩‍👧".repeat(40)),
        Just(String::new())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn every_screen_draws_at_any_size(
        columns in 1_u16..=250,
        rows in 1_u16..=80,
        names in prop::collection::vec(hostile(), 1..6),
        numbers in prop::collection::vec(any::<u64>(), 4),
        picks in prop::collection::vec(0_u8..=255, 8),
        keys in prop::collection::vec(prop::sample::select("jkgGsxcwtpy/?1234567 odrhbieq\u{1b}\n\t\u{8}".chars().collect::<Vec<_>>()), 0..12),
    ) {
        let mut app = sample::app();
        let snapshot = app.snapshot.as_mut().unwrap();
        let mut name = names.iter().cycle();
        let mut next = || name.next().cloned().unwrap_or_default();
        for r in snapshot.live.running.iter_mut().chain(snapshot.live.recent.iter_mut().map(Arc::make_mut)) {
            r.at = UnixMillis(numbers[0] as i64);
            r.requested_model = next().into();
            r.project = next().into();
            r.error = Some(next().into());
            r.duration_ms = r.duration_ms.map(|_| numbers[1] as u32);
            r.ttft_ms = Some(numbers[2] as u32);
            r.events = numbers[3];
            r.state = [RequestState::Queued, RequestState::Waiting, RequestState::Streaming, RequestState::Done, RequestState::Failed, RequestState::ClientGone][usize::from(picks[0] % 6)];
            for a in &mut r.attempts {
                a.upstream = next().into();
                a.key = next().into();
                a.model = next().into();
                a.started_ms = numbers[0] as u32;
                a.head_ms = Some(numbers[1] as u32);
                a.ended_ms = (picks[1] > 100).then_some(numbers[2] as u32);
            }
        }
        snapshot.live.totals.input = numbers[0];
        snapshot.live.totals.output = numbers[1];
        snapshot.started = UnixMillis(numbers[2] as i64);
        for u in &mut snapshot.upstreams {
            u.name = next();
            u.cause = Some(FailureReason::text(next()).into());
            u.until = Some(UnixMillis(numbers[3] as i64));
            u.stats.attempts = numbers[1] as u32;
            u.stats.errors = numbers[2] as u32 / 3;
            u.stats.spark.truncate(usize::from(picks[2] % 20));
        }
        for k in &mut snapshot.keys {
            k.label = next();
            k.until = Some(UnixMillis(numbers[1] as i64));
            k.since = Some(UnixMillis(numbers[2] as i64));
            k.tokens = numbers[3];
        }
        for m in &mut snapshot.models {
            m.targets = vec![next(), next()];
        }
        for line in &mut snapshot.live.lines {
            line.text = LogMessage::Text { text: next().into() }.into();
        }
        let mut story = sample::transcript(sample::request_id(8));
        for part in story.conversation.iter_mut().chain(&mut story.answer) {
            part.text = next();
            part.name = next();
            part.chars = numbers[0];
        }
        story.request_headers = vec![(next(), next())];
        if let Some(view) = &mut app.usage.view {
            for row in &mut view.rows {
                row.name = next();
                row.totals.requests = numbers[1];
                row.totals.cost.0 = numbers[2] as i64;
                row.totals.usage.cache_read = numbers[3];
            }
            view.days[0].totals.cost.0 = numbers[0] as i64;
        }
        if picks[4] > 128 {
            app.overlay = Some(Overlay::Request(crate::tui::app::RequestView::new(sample::request_id(8))));
            app.transcript = Some(Box::new(story));
        }
        let lang = if picks[5] > 128 { Lang::Chinese } else { EN };
        app.size = (columns, rows);
        for key in keys {
            let code = match key {
                '\u{1b}' => KeyCode::Esc,
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{8}' => KeyCode::BackTab,
                c => KeyCode::Char(c),
            };
            update(&mut app, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)), frame_context(lang));
            clamp_selection(&mut app, frame_context(lang));
        }
        let drawn = buffer_text(&frame_in(&mut app, columns, rows, "dark", picks[3] > 20, lang));
        prop_assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'));
    }
}
