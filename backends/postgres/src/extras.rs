//! A body's extras as JSON: readable in psql, and read by the functions in `sql/`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;
use windlass_core::{
    ConcurrencyLimit, Due, Extras, JobId, JobRef, OnConflict, ParentFailure, QueueName, Timestamp, Unique,
    Until,
};

/// Nanoseconds of a duration the contract allows: a hundred years fit into 63 bits.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The extras as JSON text. What is not there is left out.
pub(crate) fn encode(extras: &Extras) -> String {
    let Extras { tags, metadata, unique, limit, parents, on_parent_failure, deadline } = extras;
    let mut object = Map::new();
    if !tags.is_empty() {
        object.insert("tags".to_owned(), json!(tags));
    }
    if !metadata.is_empty() {
        object.insert("metadata".to_owned(), json!(metadata));
    }
    if let Some(Unique { key, on_conflict, until }) = unique {
        let on_conflict = match on_conflict {
            OnConflict::Skip => "skip",
            OnConflict::Supersede => "supersede",
            OnConflict::QueueOne => "queue_one",
        };
        let value = match until {
            Until::End => json!({"key": key, "on_conflict": on_conflict, "until": "end"}),
            Until::Start => json!({"key": key, "on_conflict": on_conflict, "until": "start"}),
            Until::Window(window) => {
                json!({"key": key, "on_conflict": on_conflict, "until": "window", "window_ns": nanos(*window)})
            }
        };
        object.insert("unique".to_owned(), value);
    }
    if let Some(ConcurrencyLimit { key, at_most }) = limit {
        object.insert("limit".to_owned(), json!({"key": key, "at_most": at_most}));
    }
    if !parents.is_empty() {
        let parents: Vec<_> =
            parents.iter().map(|parent| json!([parent.queue.as_str(), parent.id.as_uuid()])).collect();
        object.insert("parents".to_owned(), Value::Array(parents));
    }
    match on_parent_failure {
        ParentFailure::Cancel => {}
        ParentFailure::Ignore => drop(object.insert("on_parent_failure".to_owned(), json!("ignore"))),
        ParentFailure::Wait => drop(object.insert("on_parent_failure".to_owned(), json!("wait"))),
    }
    if let Some(deadline) = deadline {
        let value = match deadline {
            Due::Now => json!({}),
            Due::After(delay) => json!({"after_ns": nanos(*delay)}),
            Due::At(instant) => json!({"at": instant.as_millis()}),
        };
        object.insert("deadline".to_owned(), value);
    }
    Value::Object(object).to_string()
}

/// Reads what [`encode`] wrote; `None` when it is something else.
pub(crate) fn decode(text: &str) -> Option<Extras> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut extras = Extras::default();
    if let Some(tags) = value.get("tags") {
        extras.tags =
            tags.as_array()?.iter().map(|tag| Some(tag.as_str()?.to_owned())).collect::<Option<_>>()?;
    }
    if let Some(metadata) = value.get("metadata") {
        let pairs = metadata.as_object()?.iter();
        extras.metadata = pairs
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect::<Option<BTreeMap<_, _>>>()?;
    }
    if let Some(unique) = value.get("unique") {
        extras.unique = Some(unique_of(unique)?);
    }
    if let Some(limit) = value.get("limit") {
        let at_most = u32::try_from(limit.get("at_most")?.as_u64()?).ok()?;
        extras.limit = Some(ConcurrencyLimit { key: limit.get("key")?.as_str()?.to_owned(), at_most });
    }
    if let Some(parents) = value.get("parents") {
        extras.parents = parents.as_array()?.iter().map(parent_of).collect::<Option<_>>()?;
    }
    extras.on_parent_failure = match value.get("on_parent_failure").map(Value::as_str) {
        None => ParentFailure::Cancel,
        Some(Some("ignore")) => ParentFailure::Ignore,
        Some(Some("wait")) => ParentFailure::Wait,
        Some(_) => return None,
    };
    if let Some(deadline) = value.get("deadline") {
        extras.deadline = Some(if let Some(delay) = deadline.get("after_ns") {
            Due::After(Duration::from_nanos(delay.as_u64()?))
        } else if let Some(instant) = deadline.get("at") {
            Due::At(Timestamp::from_millis(instant.as_i64()?))
        } else {
            Due::Now
        });
    }
    Some(extras)
}

fn unique_of(value: &Value) -> Option<Unique> {
    let on_conflict = match value.get("on_conflict")?.as_str()? {
        "skip" => OnConflict::Skip,
        "supersede" => OnConflict::Supersede,
        "queue_one" => OnConflict::QueueOne,
        _ => return None,
    };
    let until = match value.get("until")?.as_str()? {
        "end" => Until::End,
        "start" => Until::Start,
        "window" => Until::Window(Duration::from_nanos(value.get("window_ns")?.as_u64()?)),
        _ => return None,
    };
    Some(Unique { key: value.get("key")?.as_str()?.to_owned(), on_conflict, until })
}

fn parent_of(value: &Value) -> Option<JobRef> {
    let queue = QueueName::new(value.get(0)?.as_str()?).ok()?;
    let id = JobId::from_uuid(Uuid::try_parse(value.get(1)?.as_str()?).ok()?).ok()?;
    Some(JobRef::new(queue, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_as_it_was() {
        let unique =
            |until| Some(Unique { key: "k \"\u{1}❄".to_owned(), on_conflict: OnConflict::QueueOne, until });
        let parent = JobRef::new(QueueName::from_static("mail"), JobId::fresh());
        let full = Extras {
            tags: vec!["vip".to_owned(), "été".to_owned()],
            metadata: [("trace".to_owned(), "a\nb".to_owned())].into_iter().collect(),
            unique: unique(Until::Window(windlass_core::limits::DELAY_MAX)),
            limit: Some(ConcurrencyLimit { key: "tenant".to_owned(), at_most: u32::MAX }),
            parents: vec![parent],
            on_parent_failure: ParentFailure::Wait,
            deadline: Some(Due::After(Duration::from_nanos(1))),
        };
        let others = [
            Extras::default(),
            Extras { unique: unique(Until::End), deadline: Some(Due::Now), ..full.clone() },
            Extras { unique: unique(Until::Start), deadline: Some(Due::At(Timestamp::MIN)), ..full.clone() },
            Extras { on_parent_failure: ParentFailure::Ignore, ..Extras::default() },
        ];
        for extras in others.into_iter().chain([full]) {
            assert_eq!(decode(&encode(&extras)), Some(extras));
        }
        for bad in [
            "",
            "[]3",
            r#"{"tags": 3}"#,
            r#"{"on_parent_failure": "cry"}"#,
            r#"{"parents": [["mail", "7"]]}"#,
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
