//! Answers of scripts, taken apart without trust.

use redis::Value;
use windlass_core::{Error, ErrorKind, Result};

fn strange(wanted: &str, value: &Value) -> Error {
    // Not the value itself: it may hold a payload.
    let what = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "text",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    Error::new(ErrorKind::Unexpected, format!("the server answered {what} instead of {wanted}"))
        .effect_unknown()
}

pub(crate) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(strange("an array", &other)),
    }
}

pub(crate) fn items(value: &Value) -> Result<&[Value]> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(strange("an array", other)),
    }
}

pub(crate) fn bytes(value: &Value) -> Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.as_bytes()),
        Value::Okay => Ok(b"OK"),
        other => Err(strange("text", other)),
    }
}

/// Text, or nothing.
pub(crate) fn some_bytes(value: Option<&Value>) -> Option<&[u8]> {
    value.and_then(|value| bytes(value).ok())
}

pub(crate) fn number(value: &Value) -> Result<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| strange("a count", value)),
        other => bytes(other)
            .ok()
            .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
            .ok_or_else(|| strange("a count", other)),
    }
}

/// One of an array.
pub(crate) fn at(items: &[Value], at: usize) -> Result<&Value> {
    items.get(at).ok_or_else(|| {
        Error::new(ErrorKind::Unexpected, format!("the server answered only {} items", items.len()))
            .effect_unknown()
    })
}
