//! A moment of a cluster as a picture. Pure: what is drawn depends on the moment and the size alone. Colours repeat what words say.

use ratatui::Frame;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::style::Stylize as _;
use ratatui::text::Line;
use ratatui::text::Span;
use ratatui::widgets::Block;
use ratatui::widgets::Borders;
use ratatui::widgets::Cell;
use ratatui::widgets::Row;
use ratatui::widgets::Table;
use serde_json::Value;

use super::super::cluster::colour;
use super::super::cluster::duration;
use super::super::cluster::listed;
use super::moment::Moment;
use super::text;

/// Cells of the longest load bar.
const BAR: u64 = 12;

/// Draws it. `trouble`: why there is no later one.
pub(super) fn draw(frame: &mut Frame<'_>, moment: &Moment, trouble: Option<&str>) {
    let height = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2);
    let (workers, tables) = (listed(&moment.seen.workers, "workers"), listed(&moment.seen.tables, "tables"));
    let reasons = listed(&moment.seen.health, "reasons").len() + usize::from(trouble.is_some());
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(reasons).unwrap_or(3).min(3)),
        // However many nodes there are, workers are seen too.
        Constraint::Length(height(moment.rows.len()).min((frame.area().height / 3).max(4))),
        Constraint::Fill(height(workers.len())),
        Constraint::Length(if tables.is_empty() { 0 } else { height(tables.len().div_ceil(2)) }),
    ]);
    let [head, red, nodes, fleet, replicated] = areas.areas(frame.area());
    frame.render_widget(title(moment), head);
    frame.render_widget(ratatui::widgets::Paragraph::new(alarms(moment, trouble)), red);
    draw_nodes(frame, nodes, moment);
    draw_workers(frame, fleet, workers);
    // Side by side, so that a small terminal has lines left for workers.
    let halves = Layout::horizontal([Constraint::Ratio(1, 2); 2]).split(replicated);
    let titles = ["replicated tables", "the others"];
    for ((area, title), tables) in halves.iter().zip(titles).zip(tables.chunks(tables.len().div_ceil(2).max(1))) {
        draw_tables(frame, *area, title, moment, tables);
    }
}

fn title(moment: &Moment) -> Line<'static> {
    let states = |state: &str| moment.rows.iter().filter(|it| it.member["state"] == state).count();
    let counts = ["alive", "suspect", "left", "down"].map(|it| (states(it), it));
    let counts: Vec<_> =
        counts.iter().filter(|(n, it)| *n > 0 || *it == "alive").map(|(n, it)| format!("{n} {it}")).collect();
    let name = moment.seen.node["name"].as_str().unwrap_or("smg").to_owned();
    Line::from(vec![
        Span::styled(format!(" {name} "), Style::new().add_modifier(Modifier::REVERSED)),
        Span::raw(format!(" {}  {}  ", moment.url, text(&moment.seen.readiness, "status"))),
        Span::raw(counts.join(", ")),
        Span::styled("   q quits", Style::new().fg(Color::DarkGray)),
    ])
}

fn alarms(moment: &Moment, trouble: Option<&str>) -> Vec<Line<'static>> {
    let reasons =
        listed(&moment.seen.health, "reasons").iter().filter_map(Value::as_str).map(|it| format!(" RED {it}"));
    let trouble = trouble.map(|it| format!(" no answer, this is the last one: {it}"));
    trouble.into_iter().chain(reasons).map(|it| Line::from(it).fg(Color::Red).bold()).collect()
}

fn block(title: &str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(format!(" {title} ")).border_style(Style::new().fg(Color::DarkGray))
}

fn header(cells: &[&'static str]) -> Row<'static> {
    Row::new(cells.to_vec()).style(Style::new().add_modifier(Modifier::BOLD))
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, moment: &Moment) {
    let rows = moment.rows.iter().map(|row| {
        let (member, node) = (&row.member, &row.node);
        let number =
            |value: Option<f64>, unit: &str| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}{unit}"));
        let name = match &member["name"] {
            Value::String(name) => name.clone(),
            _ => text(member, "node_id"),
        };
        let mark = if member["is_self"] == true { "*" } else { "" };
        let rtt = if mark.is_empty() {
            row.rtt_ms.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}ms"))
        } else {
            String::new()
        };
        Row::new(vec![
            Cell::from(format!("{name}{mark}")),
            Cell::from(text(member, "state")).style(state_style(&member["state"])),
            Cell::from(text(member, "zone")),
            Cell::from(rtt),
            Cell::from(node["uptime_seconds"].as_u64().map_or_else(|| "-".to_owned(), duration)),
            Cell::from(text(node, "workers")),
            Cell::from(text(node, "requests_active")),
            Cell::from(number(row.requests_per_second, "")),
            Cell::from(number(row.hit_rate, "%")),
            Cell::from(text(node, "release")),
        ])
    });
    let widths = [18, 8, 10, 9, 8, 8, 9, 8, 8, 9].map(Constraint::Length);
    let head = header(&["NODE", "STATE", "ZONE", "RTT", "UP", "WORKERS", "INFLIGHT", "REQ/S", "HITS", "RELEASE"]);
    frame.render_widget(Table::new(rows, widths).header(head).block(block("nodes")), area);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, workers: &[Value]) {
    let load = |it: &Value| it["cluster_load"].as_u64().or_else(|| it["load"].as_u64()).unwrap_or(0);
    let most = workers.iter().map(load).max().unwrap_or(0).max(1);
    let mut sorted: Vec<&Value> = workers.iter().collect();
    // The busiest first: of many, those are what one looks for.
    sorted.sort_by_key(|it| (std::cmp::Reverse(load(it)), it["url"].as_str().unwrap_or_default().to_owned()));
    let rows = sorted.into_iter().map(|it| {
        let (load, models) = (load(it), it["models"].as_array().map_or(0, Vec::len));
        let first = it["models"][0]["id"].as_str().unwrap_or("-");
        let model = if models > 1 { format!("{first} +{}", models - 1) } else { first.to_owned() };
        let cells = usize::try_from((load * BAR).div_ceil(most)).unwrap_or(0);
        Row::new(vec![
            Cell::from(text(it, "url")),
            Cell::from(text(it, "state")).style(state_style(&it["state"])),
            Cell::from(text(it, "source")),
            Cell::from(text(it, "via")),
            Cell::from(model),
            Cell::from(format!("{load:>3} {}", "▇".repeat(if load == 0 { 0 } else { cells }))),
            Cell::from(text(it, "queued_prefill_tokens")),
            Cell::from(
                it["prefill_tokens_per_second"].as_f64().map_or_else(|| "-".to_owned(), |it| format!("{it:.0}")),
            ),
        ])
    });
    let widths = [30, 9, 8, 9, 16, 17, 8, 8].map(Constraint::Length);
    let head = header(&["WORKER", "STATE", "SOURCE", "VIA", "MODEL", "CLUSTER-WIDE", "QUEUED", "TOK/S"]);
    let title = format!("workers: {}", workers.len());
    frame.render_widget(Table::new(rows, widths).header(head).block(block(&title)), area);
}

fn draw_tables(frame: &mut Frame<'_>, area: Rect, title: &str, moment: &Moment, tables: &[Value]) {
    let rows = tables.iter().map(|it| {
        let rate = moment.sent_per_second.iter().find(|(name, _)| it["name"] == **name).map(|it| it.1);
        let word = colour(it);
        let style = if word == "green" { Style::new().fg(Color::Green) } else { Style::new().fg(Color::Red) };
        Row::new(vec![
            Cell::from(text(it, "name")),
            Cell::from(word).style(style),
            Cell::from(text(it, "entries")),
            Cell::from(rate.map_or_else(|| "-".to_owned(), |it| bytes(it) + "/s")),
            Cell::from(bytes(it["bytes_sent"].as_f64().unwrap_or(0.0))),
        ])
    });
    let widths = [13, 8, 8, 10, 9].map(Constraint::Length);
    let head = header(&["TABLE", "STATE", "ENTRIES", "SENT", "IN ALL"]);
    frame.render_widget(Table::new(rows, widths).header(head).block(block(title)), area);
}

fn state_style(state: &Value) -> Style {
    match state.as_str() {
        Some("alive" | "ready") => Style::new().fg(Color::Green),
        Some("down" | "unhealthy" | "away") => Style::new().fg(Color::Red),
        _ => Style::new().fg(Color::Yellow),
    }
}

fn bytes(count: f64) -> String {
    match count {
        it if it < 10e3 => format!("{it:.0} B"),
        it if it < 10e6 => format!("{:.0} KB", it / 1e3),
        it => format!("{:.0} MB", it / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::moment::tests::moment;
    use super::super::moment::tests::seen;
    use super::*;

    fn drawn(moment: &Moment, trouble: Option<&str>, size: (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("no terminal is needed");
        terminal.draw(|frame| draw(frame, moment, trouble)).expect("is drawn");
        let lines = terminal.backend().buffer().content().chunks(usize::from(size.0));
        lines
            .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    #[test]
    fn a_picture_has_nodes_links_workers_hit_rates_and_tables() {
        let picture = drawn(&moment(seen(), None, 0), None, (110, 24));
        expect_test::expect_file!["picture.txt"].assert_eq(&picture);
    }

    #[test]
    fn trouble_is_said_and_the_last_picture_stays() {
        let picture = drawn(&moment(seen(), None, 0), Some("cannot reach it"), (110, 24));
        assert!(
            picture.contains("no answer, this is the last one: cannot reach it") && picture.contains("gw-1*"),
            "{picture}"
        );
    }

    #[test]
    fn no_size_and_no_answer_makes_it_fall() {
        for size in [(1, 1), (20, 5), (40, 3), (300, 100)] {
            drawn(&moment(seen(), None, 0), Some("x"), size);
            drawn(&moment(super::super::super::cluster::Seen::default(), None, 0), None, size);
        }
    }
}
