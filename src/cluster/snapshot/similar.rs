//! Names that are likely meant where one does not exist.

/// Up to three names that are likely meant: the one begins or ends with the other, or few letters differ.
#[must_use]
pub fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut close: Vec<(usize, &str)> = names
        .filter(|n| *n != name)
        .filter_map(|n| {
            let steps = distance(name, n);
            let contained = name.len() >= 3 && n.len() >= 3 && (n.contains(name) || name.contains(n));
            (contained || steps <= 1 + name.len() / 5).then_some((steps, n))
        })
        .collect();
    close.sort_unstable();
    close.truncate(3);
    close.into_iter().map(|(_, n)| n.to_owned()).collect()
}

/// The Levenshtein distance, by bytes: names are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let steps = (corner + usize::from(x != y)).min(left + 1).min(*cell + 1);
            corner = std::mem::replace(cell, steps);
            left = steps;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_near_or_contained() {
        let names = ["triage", "triage-2", "writer", "x"];
        assert_eq!(similar("triag", names.into_iter()), ["triage", "triage-2"]);
        assert_eq!(similar("trigae", names.into_iter()), ["triage"]);
        assert_eq!(similar("wirter", names.into_iter()), ["writer"]);
        assert!(similar("accounting", names.into_iter()).is_empty());
    }

    #[test]
    fn distances() {
        for (a, b, steps) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "acb", 2), ("a", "", 1)]
        {
            assert_eq!(distance(a, b), steps, "{a} {b}");
            assert_eq!(distance(b, a), steps, "{b} {a}");
        }
    }
}
