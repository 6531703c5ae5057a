//! The contents of the screen.

use std::time::Instant;

use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::keys::{self, PAGE};
use crate::snapshot::Snapshot;
use crate::table::{self, COLUMNS, Order};

/// The screen's contents, as the keys have arranged them.
#[derive(Debug)]
pub(crate) struct View {
    order: Order,
    snapshot: Snapshot,
    message: Message,
    help: bool,
    /// The first row that is shown.
    first: usize,
    /// How many rows had room when the screen was last drawn.
    room: usize,
    colours: bool,
}

/// Whether the daemon answers.
#[derive(Debug)]
enum Message {
    /// It was asked for the first time, and has not answered yet.
    Asking(String),
    Answered,
    /// Since when it does not answer, and why.
    Away(Instant, String),
}

impl View {
    pub(crate) fn new(socket: String, order: Order, colours: bool) -> Self {
        let message = Message::Asking(socket);
        Self { order, snapshot: Snapshot::default(), message, help: false, first: 0, room: 1, colours }
    }

    /// Takes the daemon's answer. Without one there are no rows: they would be out of date.
    pub(crate) fn told(&mut self, answer: Result<Snapshot, String>) {
        match answer {
            Ok(snapshot) => {
                self.snapshot = snapshot;
                self.order.sort(&mut self.snapshot.rows);
                self.message = Message::Answered;
            }
            Err(reason) => {
                let since = if let Message::Away(since, _) = self.message { since } else { Instant::now() };
                self.snapshot = Snapshot::default();
                self.message = Message::Away(since, reason);
            }
        }
    }

    /// Obeys a key that changes what is shown.
    pub(crate) fn obey(&mut self, order: keys::Order) {
        // Any key closes the help, and has its usual effect too.
        self.help = !self.help && order == keys::Order::Help;
        match order {
            keys::Order::Sort(by) => self.order = Order { by, reversed: false },
            keys::Order::Reverse => self.order.reversed = !self.order.reversed,
            keys::Order::Scroll(PAGE) => self.first = self.first.saturating_add(self.room),
            keys::Order::Scroll(by) if by == -PAGE => self.first = self.first.saturating_sub(self.room),
            keys::Order::Scroll(by) => self.first = self.first.saturating_add_signed(by),
            keys::Order::Top => self.first = 0,
            keys::Order::Bottom => self.first = usize::MAX,
            _ => {}
        }
        self.order.sort(&mut self.snapshot.rows);
    }

    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let (width, height) = (usize::from(frame.area().width), usize::from(frame.area().height));
        let mut lines = self.head(width);
        let body = height.saturating_sub(lines.len() + 1);
        if self.help {
            lines.extend(help().into_iter().take(body).map(Line::raw));
        } else {
            lines.push(Line::styled(format!("{:width$}", table::heads(self.order, width)), Modifier::REVERSED));
            self.room = body.saturating_sub(1).max(1);
            self.first = self.first.min(self.snapshot.rows.len().saturating_sub(self.room));
            let shown = self.snapshot.rows.iter().skip(self.first).take(body.saturating_sub(1));
            lines.extend(shown.map(|row| Line::raw(table::row(row, width))));
        }
        lines.truncate(height.saturating_sub(1));
        let foot = self.foot(width);
        for (line, area) in lines.iter().zip(frame.area().rows()) {
            frame.render_widget(line, area);
        }
        if let Some(last) = frame.area().rows().next_back() {
            frame.render_widget(foot, last);
        }
    }

    /// The three lines above the table.
    fn head(&self, width: usize) -> Vec<Line<'static>> {
        let line = |text: Option<&String>| Line::raw(table::cut(text.map_or("", String::as_str), width));
        let message = match &self.message {
            Message::Answered => Line::default(),
            Message::Asking(socket) => Line::raw(table::cut(&format!("asking {socket}"), width)),
            Message::Away(since, reason) => {
                let time = table::duration(since.elapsed().as_secs_f64());
                let style = if self.colours { Style::from(Color::Red) } else { Style::default() };
                let text = format!("no answer for {time}, trying again: {reason}");
                Line::styled(table::cut(&text, width), style.add_modifier(Modifier::BOLD))
            }
        };
        vec![line(self.snapshot.head.first()), line(self.snapshot.head.get(1)), message]
    }

    fn foot(&self, width: usize) -> Line<'static> {
        let letters: String = COLUMNS.iter().flat_map(|about| [' ', about.key]).collect();
        let rows = self.snapshot.rows.len();
        let last = self.first.saturating_add(self.room).min(rows);
        let text = match self.first + 1 {
            first if rows > self.room => {
                format!("q quit  ? help  r reverse  sort by{letters}  rows {first}-{last} of {rows}")
            }
            _ => format!("q quit  ? help  r reverse  sort by{letters}"),
        };
        let style = if self.colours { Style::from(Color::Cyan) } else { Style::default() };
        Span::styled(table::cut(&text, width), style).into()
    }
}

fn help() -> Vec<String> {
    let mut lines = vec!["Sort by a column:".to_owned()];
    lines.extend(COLUMNS.iter().map(|about| format!("  {}  {:<10} {}", about.key, about.head, about.help)));
    let others = [
        "  r  reverse the order",
        "",
        "  arrows, j, k, space, Page Up, Page Down, Home, End: move the rows",
        "  ^Z stop, ^L redraw, q or ^C quit; any other key closes this",
    ];
    lines.extend(others.map(str::to_owned));
    lines
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::column::Column;
    use crate::snapshot::Row;

    fn shown(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(usize::from(width).max(1));
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned())
            .collect()
    }

    fn view(rows: i32) -> View {
        let mut view = View::new("/sock".into(), Order { by: Column::Pid, reversed: true }, true);
        let row = |pid| Row { pid: Some(pid), arguments: format!("program {pid}"), ..Row::default() };
        view.told(Ok(Snapshot { head: vec!["one".into(), "two".into()], rows: (1..=rows).map(row).collect() }));
        view
    }

    #[test]
    fn rows_move_within_their_bounds() {
        let mut view = view(30);
        let lines = shown(&mut view, 80, 24);
        assert_eq!((lines[0].as_str(), lines[1].as_str(), lines[2].as_str()), ("one", "two", ""));
        assert!(lines[3].starts_with("   PID↑ USER"), "{lines:#?}");
        assert!(lines[4].ends_with("program 1") && lines[22].ends_with("program 19"), "{lines:#?}");
        assert!(lines[23].ends_with("rows 1-19 of 30"), "{lines:#?}");
        for (order, first) in [
            (keys::Order::Scroll(1), 2),
            (keys::Order::Scroll(-5), 1),
            (keys::Order::Scroll(PAGE), 12),
            (keys::Order::Scroll(-PAGE), 1),
            (keys::Order::Bottom, 12),
            (keys::Order::Scroll(1), 12),
            (keys::Order::Top, 1),
        ] {
            view.obey(order);
            assert!(shown(&mut view, 80, 24)[4].ends_with(&format!("program {first}")), "{order:?}");
        }
    }

    #[test]
    fn help_comes_and_goes() {
        let mut view = view(1);
        view.obey(keys::Order::Help);
        let lines = shown(&mut view, 80, 24);
        for about in &COLUMNS {
            assert!(lines.iter().any(|line| line.contains(about.help)), "{}", about.head);
        }
        assert!(lines.iter().any(|line| line.contains("closes this")), "{lines:#?}");
        view.obey(keys::Order::Sort(Column::User));
        assert!(shown(&mut view, 80, 24)[3].contains("USER↑"));
    }

    #[test]
    fn a_daemon_that_is_away() {
        let mut view = view(3);
        view.told(Err("cannot connect".into()));
        let lines = shown(&mut view, 80, 24);
        assert!(lines[2].starts_with("no answer for 0.") && lines[2].ends_with("cannot connect"), "{lines:#?}");
        assert!(lines[4..23].iter().all(String::is_empty), "{lines:#?}");
        view.told(Ok(Snapshot::default()));
        assert_eq!(shown(&mut view, 80, 24)[2], "");
    }

    /// No size panics, however small.
    #[test]
    fn any_size() {
        let mut view = view(9);
        for (width, height) in (0..90).step_by(7).flat_map(|width| (0..12).map(move |height| (width, height))) {
            shown(&mut view, width, height);
            view.obey(keys::Order::Help);
        }
    }
}
