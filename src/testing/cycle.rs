//! Finds what repeats at the end of a long line of runs, for a drain that does not end.

/// The longest cycle that is looked for.
const LONGEST: usize = 50;

/// Which kinds keep each other going, in words.
pub(crate) fn describe(ran: &[String]) -> String {
    let Some((cycle, rounds)) = find(ran) else {
        let last = &ran[ran.len().saturating_sub(12)..];
        return format!("no cycle repeats; the last jobs were:  {}", last.join(" -> "));
    };
    let mut names: Vec<&str> = cycle.iter().map(String::as_str).collect();
    // Named from where it was started, and closed.
    let started = names.iter().enumerate().min_by_key(|(_, name)| ran.iter().position(|kind| kind == *name));
    let started = started.map_or(0, |(at, _)| at);
    names.rotate_left(started);
    names.push(names[0]);
    let what = if cycle.len() == 1 {
        "this job keeps coming back"
    } else {
        "these jobs keep re-dispatching each other"
    };
    format!("{what}:  {}  ({rounds} rounds)", names.join(" -> "))
}

/// The shortest cycle at the end that repeats at least three times, and how often.
fn find(ran: &[String]) -> Option<(&[String], usize)> {
    (1..=LONGEST.min(ran.len() / 3)).find_map(|length| {
        let repeats = ran.iter().rev().zip(ran.iter().rev().skip(length)).take_while(|(a, b)| a == b).count();
        let rounds = (repeats + length) / length;
        // It begins where the rounds begin, so that it reads in the order in which it was started.
        let start = ran.len() - rounds * length;
        (rounds >= 3).then(|| (&ran[start..start + length], rounds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_shortest_cycle_is_named_with_its_rounds() {
        assert_eq!(
            describe(&runs("x a b a b a b")),
            "these jobs keep re-dispatching each other:  a -> b -> a  (3 rounds)"
        );
        assert_eq!(describe(&runs("x y a a a a")), "this job keeps coming back:  a -> a  (4 rounds)");
    }

    #[test]
    fn without_a_cycle_the_last_ones_are_named() {
        let text = describe(&runs("a b c d e f"));
        assert_eq!(text, "no cycle repeats; the last jobs were:  a -> b -> c -> d -> e -> f");
    }
}
