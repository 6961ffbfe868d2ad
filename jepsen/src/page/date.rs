//! Moments as they stand in a round, so that they can be told apart in whatever zone they were written.

/// Seconds since 1970 of a moment as in RFC 3339; nothing if it is none.
#[must_use]
pub fn seconds(date: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = date.get(from..to)?;
        digits.bytes().all(|it| it.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is_at = |at: usize, marks: &[u8]| date.as_bytes().get(at).is_some_and(|it| marks.contains(it));
    let has_marks = is_at(4, b"-") && is_at(7, b"-") && is_at(10, b"Tt ") && is_at(13, b":") && is_at(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !has_marks || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = date.get(19..)?.trim_start_matches(|it: char| it == '.' || it.is_ascii_digit());
    let ahead = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let from = date.len() - 5;
            let minutes = number(from, from + 2)? * 60 + number(from + 3, from + 5)?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // Years begin in March, so that the day that is not always there is their last.
    let years = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (years.div_euclid(400), years.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second - ahead)
}
