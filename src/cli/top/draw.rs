//! How `lbd top` looks. Pure: the same state gives the same cells. What names and reasons say cannot
//! move the cursor, and nothing is told by colour alone.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Wrap};

use super::panels;
use super::rates::{Counter, Of, short_rate};
use super::servers;
use super::state::{Dialog, Panel, Top};
use crate::admin::status::short_time;
use crate::log::escape;

/// Below this nothing can be read.
const WIDTH_MIN: u16 = 40;
const HEIGHT_MIN: u16 = 10;
/// The headline takes no more lines than this.
const HEADLINE_MAX: u16 = 3;

const HELP: &str = "\
↑ ↓ PgUp PgDn   choose a line, or scroll the events
Tab             go to VIPs, servers, events
s               sort servers: file, name, state, connections, rate

d  drain the chosen server: no new connections, old ones go on
m  maint: out of service and not probed
r  ready: put it back into service
f  hand the VIP over to another node (failover)
c  cancel what a failover left behind: preempt again
   Each asks first, and holds on this node alone.

q  quit                                        any key: back";

/// What things look like; without colours they are bold or reversed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looks {
    pub(super) good: Style,
    pub(super) bad: Style,
    pub(super) warn: Style,
    pub(super) faint: Style,
    pub(super) strong: Style,
    pub(super) chosen: Style,
}

impl Looks {
    fn new(color: bool) -> Self {
        let paint = |color_of: Color, otherwise: Modifier| {
            if color {
                Style::new().fg(color_of)
            } else {
                Style::new().add_modifier(otherwise)
            }
        };
        Self {
            good: paint(Color::Green, Modifier::empty()),
            bad: paint(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD),
            warn: paint(Color::Yellow, Modifier::BOLD),
            faint: Style::new().add_modifier(Modifier::DIM),
            strong: Style::new().add_modifier(Modifier::BOLD),
            chosen: Style::new().add_modifier(Modifier::REVERSED),
        }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top) {
    let area = frame.area();
    let looks = Looks::new(top.color);
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text = format!("lbd top needs {WIDTH_MIN} columns and {HEIGHT_MIN} lines");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let headline = headline(top, &looks);
    let (vips, nodes) = (panels::vips_height(top), panels::nodes_height(top));
    let head = wrapped(&headline, area.width).clamp(1, HEADLINE_MAX);
    let rest = area.height.saturating_sub(2 + head + vips + nodes);
    let events = panels::events_height(top, rest);
    let [title, head, vips, nodes, list, events, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(head),
        Constraint::Length(vips),
        Constraint::Length(nodes),
        Constraint::Fill(1),
        Constraint::Length(events),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title_line(top, &looks, title.width), title);
    frame.render_widget(Paragraph::new(headline).wrap(Wrap { trim: true }), head);
    panels::vips(frame, vips, top, &looks);
    panels::nodes(frame, nodes, top, &looks);
    servers::servers(frame, list, top, &looks);
    panels::events(frame, events, top, &looks);
    frame.render_widget(key_line(top, &looks), keys);
    match &top.dialog {
        None => {}
        Some(Dialog::Help) => dialog(frame, " Keys ", HELP.lines().map(Line::from).collect()),
        Some(Dialog::Confirm {
            question, warning, ..
        }) => {
            let mut text = vec![Line::styled(escape(question), looks.strong)];
            text.extend(warning.iter().map(|warning| Line::from(escape(warning))));
            text.push(Line::from(""));
            text.push(Line::from("y  yes      n  no"));
            dialog(frame, " Sure? ", text);
        }
    }
}

/// How many lines a text takes when words that don't fit go to the next one.
fn wrapped(text: &Line<'_>, width: u16) -> u16 {
    let width = usize::from(width);
    let mut lines = 1;
    let mut used: usize = 0;
    let text: String = text.iter().map(|span| span.content.as_ref()).collect();
    for word in text.split(' ') {
        let long = word.chars().count();
        if used > 0 && used + 1 + long > width {
            lines += 1;
            used = long;
        } else {
            used += long + usize::from(used > 0);
        }
    }
    lines
}

fn title_line(top: &Top, looks: &Looks, width: u16) -> Line<'static> {
    let process = &top.status.process;
    let name = process.name.as_ref().or(process.node.as_ref());
    let name = name.map_or_else(|| "this node".to_owned(), |name| escape(name));
    let new: Option<u64> = top
        .status
        .proxies
        .iter()
        .map(|proxy| {
            top.rates
                .last(&Counter::of_proxy(&proxy.name, Of::Connections))
        })
        .sum();
    let left = format!(
        "lbd {}  {name}  up {}  conns {} of {}  new/s {}",
        process.version,
        short_time(process.uptime_ms),
        process.connections,
        process.max_connections,
        short_rate(new),
    );
    let (right, look) = match &top.trouble {
        Some(trouble) => (
            format!("NO ANSWER {}", short_time(trouble.for_ms)),
            looks.bad,
        ),
        None => ("live".to_owned(), looks.good),
    };
    let room = usize::from(width).saturating_sub(right.chars().count() + 1);
    let left: String = left.chars().take(room).collect();
    Line::from(vec![
        Span::styled(format!("{left:room$} "), looks.strong),
        Span::styled(right, look),
    ])
}

fn headline(top: &Top, looks: &Looks) -> Line<'static> {
    if let Some(trouble) = &top.trouble {
        let text = format!("{}; what stands below is old", escape(&trouble.why));
        return Line::styled(text, looks.bad);
    }
    let status = &top.status;
    let look = if status.problems.is_empty() {
        looks.good
    } else {
        looks.bad
    };
    Line::styled(escape(&status.headline), look)
}

fn key_line(top: &Top, looks: &Looks) -> Line<'static> {
    if let Some(said) = &top.said {
        let look = if said.good { looks.good } else { looks.bad };
        return Line::styled(escape(&said.text), look);
    }
    if top.busy {
        return Line::styled("ordered; waiting for what becomes of it", looks.warn);
    }
    let keys = "q quit  ? help  Tab ↑↓ choose  s sort  d drain  r ready  m maint  f failover";
    Line::styled(keys, looks.faint)
}

/// The frame of a panel: a rule with its name, and what it says about itself.
pub(super) fn panel(
    frame: &mut Frame<'_>,
    area: Rect,
    which: (&str, Option<Panel>),
    about: &str,
    top: &Top,
) -> Rect {
    let (name, panel) = which;
    let looks = Looks::new(top.color);
    let has_focus = panel == Some(top.panel);
    let look = if has_focus {
        looks.chosen.add_modifier(Modifier::BOLD)
    } else {
        looks.strong
    };
    let mut title = vec![Span::styled(format!(" {name} "), look)];
    if !about.is_empty() {
        title.push(Span::raw(format!(" {about} ")));
    }
    let block = Block::new()
        .borders(Borders::TOP)
        .title(Line::from(title))
        .border_style(looks.faint);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    inside
}

/// Text in a box in the middle, over everything else.
fn dialog(frame: &mut Frame<'_>, title: &str, text: Vec<Line<'_>>) {
    let area = frame.area();
    let wanted = text.iter().map(Line::width).max().unwrap_or_default() + 4;
    let width = u16::try_from(wanted)
        .unwrap_or(u16::MAX)
        .clamp(30, area.width.saturating_sub(2).max(30))
        .min(area.width);
    let inside = usize::from(width.saturating_sub(4)).max(1);
    let lines: usize = text
        .iter()
        .map(|line| line.width().div_ceil(inside).max(1))
        .sum();
    let height = u16::try_from(lines + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let at = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let block = Block::bordered()
        .title(title.to_owned())
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, at);
    frame.render_widget(
        Paragraph::new(text).block(block).wrap(Wrap { trim: false }),
        at,
    );
}
