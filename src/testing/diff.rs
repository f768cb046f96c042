//! In which fields two payloads differ, compared as JSON, leaf by leaf.

use std::collections::BTreeMap;

use serde_json::Value;

use super::text;
use crate::codec::Codec;
use crate::job::Job;

/// Two payloads side by side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diff {
    leaves: Vec<Leaf>,
}

#[derive(Clone, Debug)]
struct Leaf {
    path: String,
    expected: Option<String>,
    found: Option<String>,
}

/// Beyond this, fields that agree are left out.
const SHOW_ALL: usize = 12;

impl Diff {
    /// Compares two jobs. Those that have no JSON are compared as the bytes of `codec`.
    pub(crate) fn of<J: Job>(expected: &J, found: &J, codec: Codec) -> Self {
        let json = |job: &J| {
            let bytes = Codec::Json.encode(J::NAME, job).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        let (expected, found) = match (json(expected), json(found)) {
            (Some(expected), Some(found)) => (expected, found),
            _ => {
                let bytes = |job: &J| Value::from(codec.encode(J::NAME, job).unwrap_or_default().into_vec());
                (bytes(expected), bytes(found))
            }
        };
        Self::between(&expected, &found)
    }

    fn between(expected: &Value, found: &Value) -> Self {
        let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
        flatten("", expected, &mut left);
        flatten("", found, &mut right);
        let mut paths: Vec<&String> = left.keys().chain(right.keys()).collect();
        paths.sort();
        paths.dedup();
        let leaf = |path: &String| Leaf {
            path: path.clone(),
            expected: left.get(path).cloned(),
            found: right.get(path).cloned(),
        };
        Self { leaves: paths.into_iter().map(leaf).collect() }
    }

    /// The paths of the fields that differ.
    pub(crate) fn differing(&self) -> Vec<&str> {
        self.leaves.iter().filter(|leaf| leaf.differs()).map(|leaf| leaf.path.as_str()).collect()
    }

    pub(crate) fn fields(&self) -> usize {
        self.leaves.len()
    }

    /// The fields that differ, expected above found; those that agree as well while there are few.
    pub(crate) fn render(&self, indent: &str) -> String {
        let show_all = self.leaves.len() <= SHOW_ALL;
        let mut rows: Vec<[String; 3]> = Vec::new();
        for leaf in &self.leaves {
            let value =
                |value: &Option<String>| text::elide(value.as_deref().unwrap_or("(no such field)"), 60);
            if leaf.differs() {
                rows.push([format!("- {}", leaf.path), value(&leaf.expected), "(expected)".to_owned()]);
                rows.push([format!("+ {}", leaf.path), value(&leaf.found), "(dispatched)".to_owned()]);
            } else if show_all {
                rows.push([format!("  {}", leaf.path), value(&leaf.found), String::new()]);
            }
        }
        text::table(indent, &rows)
    }
}

impl Leaf {
    fn differs(&self) -> bool {
        self.expected != self.found
    }
}

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(&below(name), value, into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, value) in items.iter().enumerate() {
                flatten(&format!("{path}[{at}]"), value, into);
            }
        }
        leaf => {
            let path = if path.is_empty() { "(value)" } else { path };
            into.insert(path.to_owned(), leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_fields_are_compared_leaf_by_leaf() {
        let expected = json!({ "to": "ada", "address": { "city": "Paris" }, "tags": ["a", "b"], "old": 1 });
        let found = json!({ "to": "ada", "address": { "city": "Rome" }, "tags": ["a"], "new": null });
        let diff = Diff::between(&expected, &found);
        assert_eq!(diff.differing(), ["address.city", "new", "old", "tags[1]"]);
        assert_eq!(diff.fields(), 6);
        assert!(
            diff.render("").contains("+ old           (no such field)  (dispatched)"),
            "{}",
            diff.render("")
        );
        assert!(Diff::between(&json!(1), &json!(1)).differing().is_empty());
        assert_eq!(Diff::between(&json!([]), &json!({})).differing(), ["(value)"]);
    }

    #[test]
    fn wide_payloads_show_only_what_differs() {
        let wide = |last: u8| {
            let mut value = json!({ "last": last });
            for at in 0..20 {
                value[format!("field_{at}")] = json!(at);
            }
            value
        };
        assert_eq!(Diff::between(&wide(1), &wide(2)).render("").lines().count(), 2);
    }
}
