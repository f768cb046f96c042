//! What a failed assertion says: what was expected, what was there instead, which candidate came closest and in which
//! field, and which step of the chain left nothing. A second run should not be needed.

use std::fmt;

use super::query::{Candidate, Field, Miss, Query};
use super::snapshot::Snapshot;
use super::text;
use crate::job::Job;

/// A failed assertion, as a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssertionError {
    message: String,
}

impl AssertionError {
    pub(crate) fn new(message: String) -> Self {
        Self { message }
    }

    /// What the panic would say.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for AssertionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AssertionError {}

/// How many are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// So many or more.
    AtLeast(usize),
    /// So many.
    Exactly(usize),
    /// So many or fewer.
    AtMost(usize),
}

impl Count {
    pub(crate) fn allows(self, found: usize) -> bool {
        match self {
            Self::AtLeast(least) => found >= least,
            Self::Exactly(exactly) => found == exactly,
            Self::AtMost(most) => found <= most,
        }
    }

    fn is_missing(self, found: usize) -> bool {
        match self {
            Self::AtLeast(least) => found < least,
            Self::Exactly(exactly) => found < exactly,
            Self::AtMost(_) => false,
        }
    }
}

/// A failed check, before it is text.
pub(crate) struct Trail<'q, J> {
    query: &'q Query<J>,
    wanted: Count,
    /// How many were left before the first step, after it, after the second, and so on.
    left: Vec<usize>,
}

impl<'q, J: Job> Trail<'q, J> {
    pub(crate) fn of(query: &'q Query<J>, wanted: Count) -> Self {
        let left = (0..=query.steps.len()).map(|step| survivors(query, step).count()).collect();
        Self { query, wanted, left }
    }

    pub(crate) fn into_error(self) -> AssertionError {
        let mut parts = vec![self.headline()];
        let candidates = &self.query.candidates;
        if self.wanted.is_missing(self.found()) && !candidates.is_empty() && !self.query.steps.is_empty() {
            parts.extend(self.chain());
            let step = self.emptied_at();
            match step.map(|step| (step, self.query.steps[step].field)) {
                Some((step, Field::Payload)) => {
                    parts.push(self.payload_diff(step));
                    return AssertionError::new(parts.join("\n"));
                }
                Some((step, _)) if self.query.steps.len() > 1 => parts.push(self.last_ones(step)),
                _ => {}
            }
        }
        let title = if self.found() == 0 { "dispatched instead" } else { "dispatched" };
        parts.push(Snapshot::listing(&self.query.all, title));
        parts.extend(self.closest());
        parts.extend(self.names());
        AssertionError::new(parts.join("\n"))
    }

    fn found(&self) -> usize {
        self.left.last().copied().unwrap_or_default()
    }

    /// The first step after which nothing was left, else the last one that dropped something.
    fn emptied_at(&self) -> Option<usize> {
        let emptied = self.left.windows(2).position(|pair| pair[0] > 0 && pair[1] == 0);
        let dropped = || self.left.windows(2).rposition(|pair| pair[1] < pair[0]);
        emptied.or_else(dropped)
    }

    fn headline(&self) -> String {
        let name = J::NAME;
        let labels: Vec<&str> = self.query.steps.iter().map(|step| step.label.as_str()).collect();
        let how = if self.shows_chain() || labels.is_empty() {
            String::new()
        } else {
            format!(" {}", labels.join(", "))
        };
        let found = self.found();
        let numbers: Vec<String> = survivors(self.query, self.query.steps.len())
            .map(|one| format!("#{}", one.entry.number()))
            .take(20)
            .collect();
        let which = if numbers.is_empty() { String::new() } else { format!(": {}", numbers.join(", ")) };
        match self.wanted {
            Count::AtLeast(1) if how.contains("payload") && !self.query.candidates.is_empty() => {
                format!("expected `{name}` to be dispatched{how}, but no dispatch matched")
            }
            Count::AtLeast(1) if !self.shows_chain() => {
                format!("expected `{name}` to be dispatched{how}, but it was not")
            }
            Count::AtLeast(least) => format!("expected at least {least} `{name}`{how}, found {found}{which}"),
            Count::AtMost(most) => format!("expected at most {most} `{name}`{how}, found {found}{which}"),
            Count::Exactly(0) => format!("expected no `{name}` to be dispatched{how}, found {found}{which}"),
            Count::Exactly(1) => format!("expected exactly 1 `{name}`{how}, found {found}{which}"),
            Count::Exactly(exactly) => {
                format!("expected `{name}`{how} {exactly} times, found {found}{which}")
            }
        }
    }

    fn shows_chain(&self) -> bool {
        self.query.steps.len() > 1
            && !self.query.candidates.is_empty()
            && self.wanted.is_missing(self.found())
    }

    /// `4 dispatched -> 4 on "mail" -> 0 delayed by 1h`
    fn chain(&self) -> Option<String> {
        self.shows_chain().then(|| {
            let mut links = vec![format!("{} dispatched", self.left[0])];
            let steps = self.query.steps.iter().zip(&self.left[1..]);
            links.extend(steps.map(|(step, left)| format!("{left} {}", step.label)));
            format!("\n  {}", links.join(" -> "))
        })
    }

    /// What the last ones were like when `step` dropped them.
    fn last_ones(&self, step: usize) -> String {
        let field = self.query.steps[step].field;
        let dropped: Vec<_> =
            survivors(self.query, step).filter_map(|one| Some((one, one.misses[step].as_ref()?))).collect();
        let mut shown: Vec<String> = dropped
            .iter()
            .take(10)
            .map(|(one, miss)| match field {
                Field::Predicate => format!("#{}", one.entry.number()),
                _ => format!("#{} {}", one.entry.number(), miss.found),
            })
            .collect();
        if dropped.len() > 10 {
            shown.push(format!("and {} more", dropped.len() - 10));
        }
        let shown = shown.join(", ");
        let last = format!("the last {}", dropped.len());
        match field {
            Field::DueExactly if dropped.iter().any(|(one, _)| !one.entry.delay().is_zero()) => {
                format!("  {last} were due: {shown}     (did you mean `.due_within(..)`?)")
            }
            Field::DueExactly | Field::DueWithin => format!("  {last} were due: {shown}"),
            Field::Predicate => format!("  {last} that it does not accept: {shown}"),
            field => format!("  {last} by {}: {shown}", field.name()),
        }
    }

    /// The candidate nearest to a payload, field by field, and in what the others differ.
    fn payload_diff(&self, step: usize) -> String {
        let mut near: Vec<_> = survivors(self.query, step)
            .filter_map(|one| Some((one, one.misses[step].as_ref()?.diff.as_ref()?)))
            .collect();
        // Stable: of equally near ones the oldest is shown.
        near.sort_by_key(|(_, diff)| diff.differing().len());
        let Some(((closest, diff), others)) = near.split_first() else { return String::new() };
        let (differing, fields) = (diff.differing().len(), diff.fields());
        let verb = if differing == 1 { "differs" } else { "differ" };
        let were = if near.len() == 1 { "job was" } else { "jobs were" };
        let mut text = format!(
            "\n  {} `{}` {were} dispatched; closest is #{}, {differing} of {} {verb}:\n{}",
            near.len(),
            J::NAME,
            closest.entry.number(),
            text::count(fields, "field"),
            diff.render("    ")
        );
        let also: Vec<String> = others
            .iter()
            .take(5)
            .map(|(one, diff)| {
                let fields: Vec<String> =
                    diff.differing().iter().take(5).map(|path| format!("`{path}`")).collect();
                format!("#{} differs in {}", one.entry.number(), fields.join(", "))
            })
            .collect();
        if !also.is_empty() {
            text.push_str(&format!("\n\n  also: {}", also.join("; ")));
        }
        text
    }

    /// The candidate with the fewest differences, when one step was asked for and missed.
    fn closest(&self) -> Option<String> {
        if self.found() > 0 || self.query.steps.len() != 1 || !self.wanted.is_missing(0) {
            return None;
        }
        let field = self.query.steps[0].field;
        let (closest, miss) =
            self.query.candidates.iter().find_map(|one| Some((one, one.misses[0].as_ref()?)))?;
        if field == Field::Predicate {
            return None;
        }
        let Miss { expected, found, .. } = miss;
        let number = closest.entry.number();
        let name = J::NAME;
        Some(format!(
            "\n  closest: #{number} {name}\n    {:<8}  expected {expected}   found {found}",
            field.name()
        ))
    }

    /// Jobs under aliases, and types whose names look alike.
    fn names(&self) -> Option<String> {
        let name = J::NAME;
        let under = |alias: &&&str| {
            let kinds = self.query.candidates.iter().map(|one| one.entry.kind());
            kinds.filter(|kind| kind.as_str() == **alias).count()
        };
        let mut hints: Vec<String> = Vec::new();
        for alias in J::ALIASES {
            let found = under(&alias);
            if found > 0 {
                let are = if found == 1 { "is" } else { "are" };
                hints.push(format!(
                    "\n  {found} of these {are} recorded under the alias \"{alias}\": a query takes the aliases of its type as well"
                ));
            }
        }
        if self.query.candidates.is_empty() {
            let mut others: Vec<&str> = self.query.all.iter().map(|one| one.kind().as_str()).collect();
            others.sort_unstable();
            others.dedup();
            let alike = others.into_iter().filter(|other| look_alike(name, other));
            hints.extend(alike.map(|other| {
                format!(
                    "\n  `{name}` was never dispatched, but `{other}` was: if one was renamed to the other, query the type that declares the alias"
                )
            }));
        }
        (!hints.is_empty()).then(|| hints.join("\n"))
    }
}

/// The candidates that passed the first `steps` steps.
fn survivors<J>(query: &Query<J>, steps: usize) -> impl Iterator<Item = &Candidate<J>> {
    query.candidates.iter().filter(move |one| one.misses[..steps].iter().all(Option::is_none))
}

/// Whether two names are so near that one may be meant for the other: one is part of the other, or they share a word of
/// four letters or more.
fn look_alike(one: &str, other: &str) -> bool {
    let words = |name: &str| -> Vec<String> {
        name.split(['_', '.', '-']).filter(|word| word.len() > 3).map(str::to_owned).collect()
    };
    one.contains(other) || other.contains(one) || words(one).iter().any(|word| words(other).contains(word))
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Predicate | Self::Payload => "payload",
            Self::DueExactly | Self::DueWithin => "due",
            Self::Priority => "priority",
            Self::UniqueKey => "unique key",
            Self::Tags => "tags",
            Self::State => "state",
            Self::Attempts => "attempts",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_allow_what_they_say() {
        assert!(Count::AtLeast(2).allows(2) && !Count::AtLeast(2).allows(1));
        assert!(Count::AtMost(2).allows(0) && !Count::AtMost(2).allows(3));
        assert!(Count::Exactly(2).allows(2) && !Count::Exactly(2).allows(3));
    }

    #[test]
    fn names_look_alike_when_a_word_is_shared() {
        assert!(look_alike("send_email", "send_mail") && look_alike("email", "send_email"));
        assert!(!look_alike("send_email", "resize_image") && !look_alike("act", "charge"));
    }
}
