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

/// A moment as in RFC 3339, of the seconds since 1970.
#[must_use]
pub fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_back_as_it_was_written() {
        for seconds in (0..4_102_444_800_u64).step_by(86_399 * 7) {
            assert_eq!(super::seconds(&rfc3339(seconds)), i64::try_from(seconds).ok(), "{}", rfc3339(seconds));
        }
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
    }
}
