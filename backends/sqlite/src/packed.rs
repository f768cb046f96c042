//! The stored form of a body: one blob, written once, read by every later release.
//!
//! Little-endian; a length stands before whatever varies. The first byte is the version of the format. Queue and id stand
//! in columns of their own and are not repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_core::{
    Body, ConcurrencyLimit, Due, Error, ErrorKind, Extras, JobId, JobRef, Kind, OnConflict, ParentFailure,
    Priority, QueueName, Result, TimeLimit, Timestamp, Unique, Until,
};

const VERSION: u8 = 1;

/// The blob of `body`.
pub(crate) fn pack(body: &Body) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + body.kind.as_str().len() + body.payload.len());
    out.push(VERSION);
    out.push(body.codec);
    out.push(body.priority.get());
    out.extend(body.version.to_le_bytes());
    out.extend(body.min_reader.to_le_bytes());
    out.extend(body.max_attempts.to_le_bytes());
    put_time_limit(&mut out, body.timeout);
    put_bytes(&mut out, body.kind.as_str().as_bytes());
    put_bytes(&mut out, &body.payload);
    if let Some(extras) = &body.extras {
        put_extras(&mut out, extras);
    }
    out
}

/// The body of a blob.
///
/// # Errors
/// [`ErrorKind::Decode`] when the blob is damaged, or written by a newer release.
pub(crate) fn unpack(queue: QueueName, id: JobId, blob: &[u8]) -> Result<Body> {
    let mut from = Reader(blob);
    let version = from.u8()?;
    if version != VERSION {
        return Err(damaged(&format!("format {version} is unknown to this release, which reads {VERSION}")));
    }
    let (codec, priority) = (from.u8()?, Priority::new(from.u8()?)?);
    let (version, min_reader, max_attempts) = (from.u16()?, from.u16()?, from.u16()?);
    let timeout = from.time_limit()?;
    let kind = Kind::new(from.text()?)?;
    let payload = from.bytes()?.into();
    let extras = if from.0.is_empty() { None } else { Some(Box::new(from.extras()?)) };
    Ok(Body { id, queue, kind, payload, timeout, extras, max_attempts, version, min_reader, codec, priority })
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("a stored job cannot be read: {why}"))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

fn put_millis(out: &mut Vec<u8>, duration: Duration) {
    out.extend(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
}

fn put_time_limit(out: &mut Vec<u8>, limit: TimeLimit) {
    let millis = limit.get().and_then(|limit| u32::try_from(limit.as_millis()).ok()).unwrap_or(u32::MAX);
    out.extend(millis.to_le_bytes());
}

fn put_extras(out: &mut Vec<u8>, extras: &Extras) {
    out.extend(u32::try_from(extras.tags.len()).unwrap_or(0).to_le_bytes());
    for tag in &extras.tags {
        put_bytes(out, tag.as_bytes());
    }
    out.extend(u32::try_from(extras.metadata.len()).unwrap_or(0).to_le_bytes());
    for (key, value) in &extras.metadata {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    match &extras.unique {
        None => out.push(0),
        Some(unique) => {
            out.push(1);
            put_bytes(out, unique.key.as_bytes());
            out.push(match unique.on_conflict {
                OnConflict::Skip => 0,
                OnConflict::Supersede => 1,
                OnConflict::QueueOne => 2,
            });
            match unique.until {
                Until::End => out.push(0),
                Until::Start => out.push(1),
                Until::Window(window) => {
                    out.push(2);
                    put_millis(out, window);
                }
            }
        }
    }
    match &extras.limit {
        None => out.push(0),
        Some(limit) => {
            out.push(1);
            put_bytes(out, limit.key.as_bytes());
            out.extend(limit.at_most.to_le_bytes());
        }
    }
    out.extend(u32::try_from(extras.parents.len()).unwrap_or(0).to_le_bytes());
    for parent in &extras.parents {
        put_bytes(out, parent.queue.as_str().as_bytes());
        out.extend(parent.id.as_uuid().as_bytes());
    }
    out.push(match extras.on_parent_failure {
        ParentFailure::Cancel => 0,
        ParentFailure::Ignore => 1,
        ParentFailure::Wait => 2,
    });
    match extras.deadline {
        None => out.push(0),
        Some(Due::Now) => out.push(1),
        Some(Due::After(delay)) => {
            out.push(2);
            put_millis(out, delay);
        }
        Some(Due::At(at)) => {
            out.push(3);
            out.extend(at.as_millis().to_le_bytes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(|| damaged("its bytes end early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| damaged("its bytes end early"))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn millis(&mut self) -> Result<Duration> {
        self.array().map(u64::from_le_bytes).map(Duration::from_millis)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("text in it is not UTF-8"))
    }

    fn time_limit(&mut self) -> Result<TimeLimit> {
        let millis = self.u32()?;
        Ok(match millis {
            u32::MAX => TimeLimit::NONE,
            millis => Duration::from_millis(u64::from(millis)).into(),
        })
    }

    fn extras(&mut self) -> Result<Extras> {
        let mut tags = Vec::new();
        for _ in 0..self.u32()? {
            tags.push(self.text()?.to_owned());
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..self.u32()? {
            metadata.insert(self.text()?.to_owned(), self.text()?.to_owned());
        }
        let unique = if self.u8()? == 0 { None } else { Some(self.unique()?) };
        let limit = match self.u8()? {
            0 => None,
            _ => Some(ConcurrencyLimit { key: self.text()?.to_owned(), at_most: self.u32()? }),
        };
        let mut parents = Vec::new();
        for _ in 0..self.u32()? {
            let queue = QueueName::new(self.text()?)?;
            parents.push(JobRef::new(queue, JobId::from_uuid(uuid::Uuid::from_bytes(self.array()?))?));
        }
        let on_parent_failure = match self.u8()? {
            0 => ParentFailure::Cancel,
            1 => ParentFailure::Ignore,
            2 => ParentFailure::Wait,
            other => return Err(damaged(&format!("{other} is no policy for a parent's failure"))),
        };
        let deadline = match self.u8()? {
            0 => None,
            1 => Some(Due::Now),
            2 => Some(Due::After(self.millis()?)),
            3 => Some(Due::At(Timestamp::from_millis(i64::from_le_bytes(self.array()?)))),
            other => return Err(damaged(&format!("{other} is no kind of deadline"))),
        };
        Ok(Extras { tags, metadata, unique, limit, parents, on_parent_failure, deadline })
    }

    fn unique(&mut self) -> Result<Unique> {
        let key = self.text()?.to_owned();
        let on_conflict = match self.u8()? {
            0 => OnConflict::Skip,
            1 => OnConflict::Supersede,
            2 => OnConflict::QueueOne,
            other => return Err(damaged(&format!("{other} is no policy for a conflict"))),
        };
        let until = match self.u8()? {
            0 => Until::End,
            1 => Until::Start,
            2 => Until::Window(self.millis()?),
            other => return Err(damaged(&format!("{other} is no end of a unique key"))),
        };
        Ok(Unique { key, on_conflict, until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Body {
        let queue = QueueName::from_static("mail");
        let mut body = Body::new(JobId::sequential(1), queue.clone(), Kind::from_static("greet"), *b"{}");
        body.codec = 3;
        body.version = 7;
        body.min_reader = 5;
        body.max_attempts = 9;
        body.priority = Priority::HIGH;
        body.timeout = Duration::from_secs(30).into();
        *body.extras_mut() = Extras {
            tags: vec!["a".into(), "b".into()],
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            unique: Some(Unique {
                key: "u".into(),
                on_conflict: OnConflict::Supersede,
                until: Until::Window(Duration::from_secs(5)),
            }),
            limit: Some(ConcurrencyLimit { key: "l".into(), at_most: 2 }),
            parents: vec![JobRef::new(queue, JobId::sequential(2))],
            on_parent_failure: ParentFailure::Wait,
            deadline: Some(Due::At(Timestamp::VIRTUAL_START)),
        };
        body
    }

    #[test]
    fn a_body_comes_back_as_it_was() {
        let plain =
            Body::new(JobId::sequential(1), QueueName::from_static("mail"), Kind::from_static("x"), []);
        for body in [full(), plain] {
            assert_eq!(unpack(body.queue.clone(), body.id, &pack(&body)).expect("readable"), body);
        }
    }

    /// What the first release wrote. It is never changed: a later release adds one of its own.
    #[test]
    fn the_first_format_is_read_for_ever() {
        const FIRST: &[u8] = b"\x01\x03\x07\x07\x00\x05\x00\x09\x00\x30\x75\x00\x00\x05\x00\x00\x00greet\
            \x02\x00\x00\x00{}\x02\x00\x00\x00\x01\x00\x00\x00a\x01\x00\x00\x00b\x01\x00\x00\x00\x01\x00\x00\x00k\
            \x01\x00\x00\x00v\x01\x01\x00\x00\x00u\x01\x02\x88\x13\x00\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00l\
            \x02\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00mail";
        let body = full();
        let packed = pack(&body);
        assert_eq!(&packed[..FIRST.len()], FIRST);
        assert_eq!(packed[FIRST.len() + 16], 2, "the policy follows the id of the last parent");
    }

    #[test]
    fn damaged_blobs_are_refused_and_nothing_panics() {
        let whole = pack(&full());
        for cut in 0..whole.len() {
            // A cut right behind the payload is a body without extras.
            if let Err(error) = unpack(QueueName::from_static("mail"), JobId::sequential(1), &whole[..cut]) {
                assert!(matches!(error.kind(), ErrorKind::Decode | ErrorKind::Invalid), "{error}");
            }
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let _ = unpack(QueueName::from_static("mail"), JobId::sequential(1), &flipped);
        }
        let newer = unpack(QueueName::from_static("mail"), JobId::sequential(1), &[2]).unwrap_err();
        assert!(newer.to_string().contains("format 2 is unknown"), "{newer}");
    }
}
