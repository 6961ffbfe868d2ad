//! What pictures are made of: axes, areas, lines and words, as SVG inside the page. Colours are classes of `page.css`, so that one picture is right on light and on dark.

use std::fmt::Write as _;

/// Width of a letter at twelve pixels, at most on average.
const LETTER: f64 = 7.2;

/// A picture that is being drawn.
#[derive(Default)]
pub struct Svg {
    text: String,
}

/// A length of the picture and the values that lie on it, from and to.
#[derive(Clone, Copy)]
pub struct Axis {
    /// Values at both ends.
    pub values: (f64, f64),
    /// Pixels at both ends.
    pub pixels: (f64, f64),
    /// Whether each step is a factor.
    pub is_log: bool,
}

impl Axis {
    /// Where a value is; what lies outside is at the end.
    #[must_use]
    pub fn at(&self, value: f64) -> f64 {
        let scaled = |it: f64| if self.is_log { it.max(f64::MIN_POSITIVE).ln() } else { it };
        let (from, to) = (scaled(self.values.0), scaled(self.values.1));
        let part = if to > from { ((scaled(value) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 };
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }
}

impl Svg {
    /// The picture, with what it is for those who do not see it.
    #[must_use]
    pub fn finish(self, class: &str, size: (f64, f64), title: &str) -> String {
        let (width, height) = size;
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>{1}</svg>",
            escape(title),
            self.text
        )
    }

    /// A box.
    pub fn rect(&mut self, class: &str, x: (f64, f64), y: (f64, f64)) {
        let (left, top) = (x.0.min(x.1), y.0.min(y.1));
        let (width, height) = ((x.1 - x.0).abs(), (y.1 - y.0).abs());
        self.tag(format_args!(
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            short(left),
            short(top),
            short(width),
            short(height)
        ));
    }

    /// A line from one point to another.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let path = format!("M{} {}L{} {}", short(from.0), short(from.1), short(to.0), short(to.1));
        self.path(class, &path);
    }

    /// Words; `anchor` is `start`, `middle` or `end`.
    pub fn words(&mut self, class: &str, at: (f64, f64), anchor: &str, words: &str) {
        self.tag(format_args!(
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            short(at.0),
            short(at.1),
            escape(words)
        ));
    }

    /// The same on a ground of its own, so that lines behind do not cross it.
    pub fn label(&mut self, class: &str, at: (f64, f64), anchor: &str, words: &str) {
        let width = width(words);
        let left = if anchor == "end" { at.0 - width } else { at.0 };
        self.rect("ground", (left - 3.0, left + width + 3.0), (at.1 - 11.0, at.1 + 4.0));
        self.words(class, at, anchor, words);
    }

    /// Numbers of equal steps as an area that stands on the axis' lower end.
    pub fn area(&mut self, class: &str, x: Axis, y: Axis, steps: &[(f64, f64, f64)]) {
        let base = short(y.pixels.0);
        let mut path = String::new();
        let mut last = None;
        for (from, to, value) in steps.iter().copied().filter(|it| it.2 > 0.0) {
            if last != Some(from) {
                let _ = write!(
                    path,
                    "{}M{} {base}",
                    if last.is_some() { format!("V{base}Z") } else { String::new() },
                    short(x.at(from))
                );
            }
            // Whatever happened at all can be seen.
            let height = y.at(value).min(y.pixels.0 - 1.0);
            let _ = write!(path, "V{}H{}", short(height), short(x.at(to)));
            last = Some(to);
        }
        if last.is_some() {
            let _ = write!(path, "V{base}Z");
            self.path(class, &path);
        }
    }

    /// Points joined by a line, which has a gap where there is no value.
    pub fn curve(&mut self, class: &str, x: Axis, y: Axis, steps: &[(f64, f64, f64)]) {
        let mut path = String::new();
        let mut is_drawing = false;
        for (from, to, value) in steps.iter().copied() {
            if value > 0.0 {
                let (from, to, height) = (short(x.at(from)), short(x.at(to)), short(y.at(value)));
                let _ = write!(path, "{}{from} {height}H{to}", if is_drawing { 'L' } else { 'M' });
            }
            is_drawing = value > 0.0;
        }
        if !path.is_empty() {
            self.path(class, &path);
        }
    }

    fn path(&mut self, class: &str, path: &str) {
        self.tag(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
    }

    fn tag(&mut self, tag: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(tag); // a String takes everything
    }
}

/// About how wide words are.
#[must_use]
pub fn width(words: &str) -> f64 {
    words.chars().count() as f64 * LETTER
}

/// As much of the words as fits into so many pixels.
#[must_use]
pub fn fitting(words: &str, pixels: f64) -> String {
    cut(words, (pixels / LETTER).max(0.0) as usize)
}

/// As many letters, and a sign if there were more.
#[must_use]
pub fn cut(words: &str, letters: usize) -> String {
    if words.chars().count() <= letters {
        return words.to_owned();
    }
    let kept: String = words.chars().take(letters.saturating_sub(1)).collect();
    if kept.is_empty() { kept } else { format!("{}…", kept.trim_end()) }
}

/// Words as they may stand in HTML, in attributes too.
#[must_use]
pub fn escape(words: &str) -> String {
    let mut safe = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ if letter.is_control() => safe.push(' '),
            _ => safe.push(letter),
        }
    }
    safe
}

/// The smallest number with few digits that is not below.
#[must_use]
pub fn round_up(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|it| it * power)
        .find(|it| *it >= value)
        .unwrap_or(value)
}

/// Powers of ten from one that is not above all to one that is not below, with as many between them as fit.
#[must_use]
pub fn decades(least: f64, most: f64) -> Vec<f64> {
    let first = least.log10().floor().clamp(-3.0, 9.0) as i32;
    let last = (most.log10().ceil().clamp(-3.0, 9.0) as i32).max(first + 1);
    (first..=last).map(|it| 10_f64.powi(it)).collect()
}

/// A tenth of a pixel is seen by nobody.
fn short(pixels: f64) -> String {
    let tenths = (pixels * 10.0).round() as i64;
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{:.1}", tenths as f64 / 10.0) }
}

/// A time as people say it.
#[must_use]
pub fn time(ms: f64) -> String {
    match ms {
        _ if !ms.is_finite() => "?".to_owned(),
        _ if ms >= 600_000.0 => format!("{:.0} min", ms / 60_000.0),
        _ if ms >= 10_000.0 => format!("{} s", trimmed(ms / 1_000.0, 1)),
        _ if ms >= 1_000.0 => format!("{} s", trimmed(ms / 1_000.0, 2)),
        _ if ms >= 10.0 || ms == 0.0 => format!("{ms:.0} ms"),
        _ => format!("{} ms", trimmed(ms, 1)),
    }
}

/// A number as people write it: whole ones with thousands apart, others with two digits.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    if value.fract() != 0.0 {
        return trimmed(value, 2);
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
