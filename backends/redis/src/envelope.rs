//! How a body is written: packed, with its format in front, once and for life.
//!
//! ```text
//! format and priority   u8: the format, 1, in the upper half
//! flags                 u8: UNIQUE, START, LIMIT, PARENTS, and EXTRAS, which only clients read
//! lane                  u8 length, then the kind, and `:` and min_reader where it is not 1
//! unique key            conflict u8, until u8, window in ms f64, u16 length, key
//! limit                 at most u32, u8 length, key
//! parents               policy u8, u16 count, ids
//! version, max attempts, time limit in ms or 0, codec     varints
//! extras                tags, metadata, deadline, the window in ns
//! payload               the rest
//! ```
//!
//! A script puts the time it was taken in before it, in ms, as u48. `lua/job.lua` reads up to the parents.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_core::{
    Body, ConcurrencyLimit, Due, Error, ErrorKind, Extras, JobId, JobRef, Kind, OnConflict, ParentFailure,
    Priority, QueueName, Result, TimeLimit, Timestamp, Unique, Until,
};

const FORMAT: u8 = 1;
const UNIQUE: u8 = 1;
const START: u8 = 2;
const LIMIT: u8 = 4;
const PARENTS: u8 = 8;
const EXTRAS: u8 = 16;

/// Whether a job needs nothing looked up when it is pushed, but for its id.
pub(crate) fn is_plain(body: &Body) -> bool {
    body.priority == Priority::NORMAL
        && body.unique().is_none()
        && body.limit().is_none()
        && body.parents().is_empty()
}

/// Writes a body.
pub(crate) fn write(body: &Body) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(body.payload.len() + body.kind.as_str().len() + 24));
    out.byte(FORMAT << 4 | body.priority.get());
    let flags_at = out.0.len();
    out.byte(0);
    let mut lane = body.kind.as_str().to_owned();
    if body.min_reader != 1 {
        lane.push_str(&format!(":{}", body.min_reader));
    }
    out.byte(u8::try_from(lane.len()).unwrap_or(u8::MAX));
    out.0.extend(lane.as_bytes());
    let mut flags = 0;
    if let Some(unique) = body.unique() {
        flags |= UNIQUE;
        if unique.until == Until::Start {
            flags |= START;
        }
        out.unique(unique);
    }
    if let Some(limit) = body.limit() {
        flags |= LIMIT;
        out.0.extend(limit.at_most.to_be_bytes());
        out.byte(u8::try_from(limit.key.len()).unwrap_or(u8::MAX));
        out.0.extend(limit.key.as_bytes());
    }
    if !body.parents().is_empty() {
        flags |= PARENTS;
        let policy = body.extras.as_ref().map_or(ParentFailure::Cancel, |extras| extras.on_parent_failure);
        out.byte(policy as u8);
        out.0.extend(u16::try_from(body.parents().len()).unwrap_or(u16::MAX).to_be_bytes());
        for parent in body.parents() {
            out.0.extend(parent.id.as_uuid().as_bytes());
        }
    }
    out.varint(u64::from(body.version));
    out.varint(u64::from(body.max_attempts));
    out.varint(body.timeout.get().map_or(0, millis));
    out.byte(body.codec);
    if let Some(extras) = &body.extras {
        flags |= EXTRAS;
        out.extras(extras);
    }
    out.0[flags_at] = flags;
    out.0.extend(&body.payload);
    out.0
}

/// Reads what a script stored: when it was taken in, and the body.
///
/// # Errors
/// [`ErrorKind::Decode`] for bytes that are no body of a known format.
pub(crate) fn read(stored: &[u8], id: JobId, queue: &QueueName) -> Result<(Timestamp, Body)> {
    let mut from = Reader(stored);
    from.body(id, queue).ok_or_else(|| {
        Error::new(
            ErrorKind::Decode,
            format!(
                "the stored body of {queue}/{id} ({} bytes) is damaged or of a newer format",
                stored.len()
            ),
        )
    })
}

/// Whole milliseconds, a part of one counted as one.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Seven bits a byte, the lowest first (LEB128).
    fn varint(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                return self.byte(low);
            }
            self.byte(low | 0x80);
        }
    }

    fn text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    #[expect(clippy::cast_precision_loss, reason = "a hundred years of milliseconds are exact in a double")]
    fn unique(&mut self, unique: &Unique) {
        self.byte(unique.on_conflict as u8);
        let (until, window) = match unique.until {
            Until::End => (0, Duration::ZERO),
            Until::Start => (1, Duration::ZERO),
            Until::Window(window) => (2, window),
        };
        self.byte(until);
        self.0.extend((millis(window) as f64).to_be_bytes());
        self.0.extend(u16::try_from(unique.key.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.extend(unique.key.as_bytes());
    }

    fn extras(&mut self, extras: &Extras) {
        self.varint(extras.tags.len() as u64);
        for tag in &extras.tags {
            self.text(tag);
        }
        self.varint(extras.metadata.len() as u64);
        for (key, value) in &extras.metadata {
            self.text(key);
            self.text(value);
        }
        match extras.deadline {
            None => self.byte(0),
            Some(Due::Now) => self.byte(1),
            Some(Due::After(delay)) => {
                self.byte(2);
                self.varint(nanos(delay));
            }
            Some(Due::At(instant)) => {
                self.byte(3);
                self.0.extend(instant.as_millis().to_be_bytes());
            }
        }
        match &extras.unique {
            Some(Unique { until: Until::Window(window), .. }) => self.varint(nanos(*window)),
            _ => self.byte(0),
        }
        // What a policy would say of parents, though there are none.
        self.byte(extras.on_parent_failure as u8);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Option<String> {
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn id(&mut self) -> Option<JobId> {
        JobId::from_uuid(uuid::Uuid::from_bytes(self.array()?)).ok()
    }

    fn body(&mut self, id: JobId, queue: &QueueName) -> Option<(Timestamp, Body)> {
        let mut created = [0; 8];
        created[2..].copy_from_slice(self.take(6)?);
        let created = Timestamp::from_millis(i64::from_be_bytes(created));
        let first = self.byte()?;
        if first >> 4 != FORMAT {
            return None;
        }
        let priority = Priority::new(first & 0x0f).ok()?;
        let flags = self.byte()?;
        let lane = {
            let length = usize::from(self.byte()?);
            self.text_of(length)?
        };
        let (kind, min_reader) = match lane.split_once(':') {
            None => (lane.as_str(), 1),
            Some((kind, needs)) => (kind, needs.parse().ok()?),
        };
        let mut extras = Extras::default();
        if flags & UNIQUE != 0 {
            extras.unique = Some(self.unique()?);
        }
        if flags & LIMIT != 0 {
            let at_most = u32::from_be_bytes(self.array()?);
            let length = usize::from(self.byte()?);
            extras.limit = Some(ConcurrencyLimit { key: self.text_of(length)?, at_most });
        }
        if flags & PARENTS != 0 {
            self.byte()?;
            let count = u16::from_be_bytes(self.array()?);
            for _ in 0..count {
                extras.parents.push(JobRef::new(queue.clone(), self.id()?));
            }
        }
        let mut body = Body::new(id, queue.clone(), Kind::new(kind).ok()?, []);
        body.priority = priority;
        body.min_reader = min_reader;
        body.version = u16::try_from(self.varint()?).ok()?;
        body.max_attempts = u16::try_from(self.varint()?).ok()?;
        let limit = self.varint()?;
        body.timeout = TimeLimit::from((limit > 0).then(|| Duration::from_millis(limit)));
        body.codec = self.byte()?;
        if flags & EXTRAS != 0 {
            self.extras(&mut extras)?;
            body.extras = Some(Box::new(extras));
        }
        body.payload = self.0.into();
        Some((created, body))
    }

    fn unique(&mut self) -> Option<Unique> {
        let on_conflict = match self.byte()? {
            0 => OnConflict::Skip,
            1 => OnConflict::Supersede,
            2 => OnConflict::QueueOne,
            _ => return None,
        };
        let until = self.byte()?;
        self.take(8)?;
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let key = self.text_of(length)?;
        let until = match until {
            0 => Until::End,
            1 => Until::Start,
            // How long exactly is among the extras.
            2 => Until::Window(Duration::ZERO),
            _ => return None,
        };
        Some(Unique { key, on_conflict, until })
    }

    fn extras(&mut self, extras: &mut Extras) -> Option<()> {
        for _ in 0..self.varint()? {
            extras.tags.push(self.text()?);
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..self.varint()? {
            metadata.insert(self.text()?, self.text()?);
        }
        extras.metadata = metadata;
        extras.deadline = match self.byte()? {
            0 => None,
            1 => Some(Due::Now),
            2 => Some(Due::After(Duration::from_nanos(self.varint()?))),
            3 => Some(Due::At(Timestamp::from_millis(i64::from_be_bytes(self.array()?)))),
            _ => return None,
        };
        let window = Duration::from_nanos(self.varint()?);
        if let Some(Unique { until: Until::Window(exact), .. }) = &mut extras.unique {
            *exact = window;
        }
        extras.on_parent_failure = match self.byte()? {
            0 => ParentFailure::Cancel,
            1 => ParentFailure::Ignore,
            2 => ParentFailure::Wait,
            _ => return None,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Body {
        let queue = QueueName::from_static("mail");
        let mut body =
            Body::new(JobId::fresh(), queue.clone(), Kind::from_static("greet"), *b"{\"to\":\"ada\"}");
        body.priority = Priority::HIGH;
        (body.version, body.min_reader, body.codec, body.max_attempts) = (9, 300, 7, 10_000);
        body.timeout = Some(Duration::from_millis(30_000)).into();
        body.extras = Some(Box::new(Extras {
            tags: vec!["red".to_owned(), "früh".to_owned()],
            metadata: [("trace".to_owned(), "00-1".to_owned())].into(),
            unique: Some(Unique {
                key: "ada".to_owned(),
                on_conflict: OnConflict::QueueOne,
                until: Until::Window(Duration::new(1, 7)),
            }),
            limit: Some(ConcurrencyLimit { key: "tenant".to_owned(), at_most: 3 }),
            parents: vec![JobRef::new(queue, JobId::fresh())],
            on_parent_failure: ParentFailure::Wait,
            deadline: Some(Due::After(Duration::new(5, 1))),
        }));
        body
    }

    fn stored(body: &Body) -> Vec<u8> {
        let mut stored = vec![1, 2, 3, 4, 5, 6];
        stored.extend(write(body));
        stored
    }

    #[test]
    fn a_body_comes_back_as_it_was() {
        let plain = Body::new(JobId::fresh(), QueueName::from_static("mail"), Kind::from_static("greet"), []);
        assert!(is_plain(&plain) && !is_plain(&full()));
        for body in [plain, full()] {
            let (created, read) = read(&stored(&body), body.id, &body.queue).expect("a body");
            assert_eq!(created.as_millis(), 0x0102_0304_0506);
            assert_eq!(read, body);
        }
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let body = full();
        let whole = stored(&body);
        for cut in 0..whole.len() - body.payload.len() {
            let error = read(&whole[..cut], body.id, &body.queue).expect_err("it is cut short");
            assert_eq!(error.kind(), ErrorKind::Decode);
        }
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = whole.clone();
                bad[at] ^= flip;
                drop(read(&bad, body.id, &body.queue));
            }
        }
        let mut newer = whole;
        newer[6] += 0x10;
        assert!(
            read(&newer, body.id, &body.queue)
                .expect_err("a newer format")
                .to_string()
                .contains("newer format")
        );
    }

    #[test]
    fn a_usual_body_adds_little_to_its_payload() {
        let mut body = Body::new(
            JobId::fresh(),
            QueueName::from_static("mail"),
            Kind::from_static("greet"),
            [b'x'; 100],
        );
        body.max_attempts = 5;
        body.timeout = Some(Duration::from_secs(30)).into();
        assert_eq!(stored(&body).len(), 100 + 6 + 3 + 5 + 6);
    }

    #[test]
    fn a_stored_body_of_the_first_release_is_read() {
        // created 1893456000000, format 1 priority 5, no flags, lane "greet", version 1, 3 attempts, no limit, codec 0.
        let fixture = b"\x01\xb8\xdb\x23\x0c\x00\x15\x00\x05greet\x01\x03\x00\x00{}";
        let (created, body) =
            read(fixture, JobId::sequential(1), &QueueName::from_static("mail")).expect("the fixture");
        assert_eq!(created.as_millis(), 0x01b8_db23_0c00);
        assert_eq!((body.kind.as_str(), body.max_attempts, &*body.payload), ("greet", 3, &b"{}"[..]));
    }
}
