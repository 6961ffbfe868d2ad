//! The name that somebody may have meant.

/// The valid name that is spelt most alike, unless all are far away.
pub fn nearest(name: &str, valid: impl Iterator<Item = String>) -> Option<String> {
    let best = valid.map(|it| (strsim::damerau_levenshtein(name, &it), it)).min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, _)| *distance <= name.len() / 2).map(|(_, it)| it)
}
