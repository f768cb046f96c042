//! How payloads and outputs become bytes: a value recorded in each envelope, so it can be changed without draining.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::limits::{JSON_MAX_DEPTH, PAYLOAD_MAX_BYTES};
use windlass_core::{Error, ErrorKind, Result};

/// A way to write values as bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Codec {
    /// JSON: readable in every database client, and forgiving when fields are added. The default.
    #[default]
    Json,
    /// MessagePack with named fields: about two thirds of the bytes, as forgiving as JSON. Needs the feature `msgpack`.
    MsgPack,
}

#[cfg(not(feature = "msgpack"))]
const MSGPACK_OFF: &str = "the codec msgpack is not compiled in: enable the feature `msgpack` of windlass";

impl Codec {
    /// The number written into the envelope.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::MsgPack => 2,
        }
    }

    /// The codec with this number.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] for a number no codec has.
    pub fn from_id(id: u8) -> Result<Self> {
        match id {
            1 => Ok(Self::Json),
            2 => Ok(Self::MsgPack),
            _ => Err(Error::new(
                ErrorKind::Decode,
                format!("codec {id} is unknown to this version of windlass"),
            )),
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the value cannot be written (a map whose keys are no strings, a float that is no number
    /// in JSON, a `Serialize` that fails or panics); [`ErrorKind::Invalid`] above 1 MiB or, in JSON, below 64 levels.
    pub fn encode<T: Serialize + DeserializeOwned>(self, what: &str, value: &T) -> Result<Box<[u8]>> {
        self.encode_part("payload", what, value)
    }

    /// [`encode`](Self::encode), for errors that speak of an output.
    pub(crate) fn encode_part<T: Serialize + DeserializeOwned>(
        self,
        part: &'static str,
        what: &str,
        value: &T,
    ) -> Result<Box<[u8]>> {
        let mut out = Bounded { bytes: SCRATCH.take(), overflowed: false };
        out.bytes.clear();
        // A panic in somebody's `Serialize` is a bad value, not a reason to take the caller down.
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&mut out, value)))
            .unwrap_or_else(|panic| Err(format!("its Serialize panicked: {}", panic_text(&*panic))));
        if out.overflowed {
            return Err(Error::invalid(format!(
                "{part} of `{what}` has more than {PAYLOAD_MAX_BYTES} bytes; store what is bigger elsewhere and \
                 dispatch its address"
            )));
        }
        written.map_err(|why| {
            Error::new(ErrorKind::Encode, format!("{part} of `{what}` cannot be written: {why}"))
        })?;
        // An exact copy: giving away a buffer that is cut to size would leave a hole in the heap for every job.
        let bytes: Box<[u8]> = out.bytes.as_slice().into();
        if out.bytes.capacity() <= SCRATCH_MOST {
            SCRATCH.set(out.bytes);
        }
        if self == Self::MsgPack {
            self.check_msgpack_depth(part, what, &bytes)?;
        }
        if self == Self::Json {
            check_depth(part, what, &bytes)?;
            // JSON writes NaN and infinities as null, which a float field cannot read: better here than in the worker.
            if bytes.windows(4).any(|window| window == b"null") {
                self.decode::<T>(&bytes).map_err(|error| {
                    Error::new(
                        ErrorKind::Encode,
                        format!(
                            "{part} of `{what}` cannot be read back (NaN and infinity have no JSON): {}",
                            error.message()
                        ),
                    )
                })?;
            }
        }
        Ok(bytes)
    }

    /// Refuses MessagePack that a worker would refuse to read for its depth.
    fn check_msgpack_depth(self, part: &str, what: &str, bytes: &[u8]) -> Result<()> {
        // Each level costs a byte at least, so short values cannot be deep.
        if bytes.len() <= JSON_MAX_DEPTH || self.decode::<serde::de::IgnoredAny>(bytes).is_ok() {
            return Ok(());
        }
        Err(Error::invalid(format!("{part} of `{what}` is nested deeper than {JSON_MAX_DEPTH} levels")))
    }

    fn write<T: Serialize>(self, out: &mut Bounded, value: &T) -> Result<(), String> {
        match self {
            Self::Json => serde_json::to_writer(out, value).map_err(|error| error.to_string()),
            #[cfg(feature = "msgpack")]
            Self::MsgPack => rmp_serde::encode::write_named(out, value).map_err(|error| error.to_string()),
            #[cfg(not(feature = "msgpack"))]
            Self::MsgPack => Err(MSGPACK_OFF.to_owned()),
        }
    }

    /// Reads a value; every byte must belong to it.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] says where and why.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| decode_error(&error)),
            #[cfg(feature = "msgpack")]
            Self::MsgPack => {
                // A reader of its own rather than `from_slice`, which leaves trailing bytes unnoticed.
                let mut reader = rmp_serde::Deserializer::new(bytes);
                reader.set_max_depth(JSON_MAX_DEPTH);
                let value = T::deserialize(&mut reader).map_err(|error| decode_error(&error))?;
                if reader.into_inner().is_empty() { Ok(value) } else { Err(decode_error(&"trailing bytes")) }
            }
            #[cfg(not(feature = "msgpack"))]
            Self::MsgPack => Err(decode_error(&MSGPACK_OFF)),
        }
    }
}

fn decode_error(why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Decode, why.to_string())
}

/// The message of a panic, as far as it is text.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}

/// The largest buffer that a thread keeps for its next value.
const SCRATCH_MOST: usize = 64 * 1024;

thread_local! {
    /// A buffer to write into; taken while in use, so that a `Serialize` which encodes something itself gets another.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A writer that stops at the limit instead of filling the memory first.
struct Bounded {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > PAYLOAD_MAX_BYTES {
            self.overflowed = true;
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses JSON nested deeper than [`JSON_MAX_DEPTH`].
fn check_depth(part: &str, what: &str, json: &[u8]) -> Result<()> {
    // Each level costs two bytes at least, so short text cannot be deep.
    if json.len() <= 2 * JSON_MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > JSON_MAX_DEPTH {
                    return Err(Error::invalid(format!(
                        "{part} of `{what}` is nested deeper than {JSON_MAX_DEPTH} levels"
                    )));
                }
            }
            b']' | b'}' if !in_text => depth -= 1,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    const BOTH: [Codec; 2] = [Codec::Json, Codec::MsgPack];

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Wide {
        text: String,
        big: u128,
        small: i64,
        maybe: Option<u8>,
        list: Vec<f64>,
    }

    #[test]
    fn what_is_written_reads_back() {
        let wide = Wide {
            text: "nul \0, quote \", é, \u{202e}".to_owned(),
            big: u128::MAX,
            small: (1 << 53) + 1,
            maybe: None,
            list: vec![-0.0, 1e300, f64::MIN_POSITIVE],
        };
        for codec in BOTH {
            let bytes = codec.encode("wide", &wide).unwrap();
            assert_eq!(codec.decode::<Wide>(&bytes).unwrap(), wide, "{codec:?}");
            assert_eq!(Codec::from_id(codec.id()).unwrap(), codec);
        }
        assert!(Codec::from_id(255).unwrap_err().to_string().contains("codec 255 is unknown"));
    }

    #[test]
    fn floats_without_json_are_refused_before_they_are_stored() {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Codec::Json.encode("point", &vec![float]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Encode);
            assert!(error.to_string().contains("NaN and infinity have no JSON"), "{error}");
            assert!(Codec::MsgPack.encode("point", &vec![float]).is_ok());
        }
        assert!(
            Codec::Json.encode("maybe", &Some(1.5)).is_ok()
                && Codec::Json.encode("none", &None::<u8>).is_ok()
        );
    }

    #[test]
    fn a_payload_ends_at_its_limit() {
        // Two quotes around the text.
        let fits = "x".repeat(PAYLOAD_MAX_BYTES - 2);
        assert_eq!(Codec::Json.encode("text", &fits).unwrap().len(), PAYLOAD_MAX_BYTES);
        for codec in BOTH {
            let error = codec.encode("text", &"x".repeat(PAYLOAD_MAX_BYTES + 1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("payload of `text` has more than 1048576 bytes"), "{error}");
        }
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, _| json!([inner]))
    }

    #[test]
    fn deep_json_is_refused() {
        Codec::Json.encode("deep", &nested(64)).unwrap();
        let error = Codec::Json.encode("deep", &nested(65)).unwrap_err();
        assert!(error.to_string().contains("nested deeper than 64 levels"), "{error}");
        let packed = Codec::MsgPack.encode("deep", &nested(100)).unwrap_err();
        assert!(packed.to_string().contains("nested deeper than 64 levels"), "{packed}");
        Codec::MsgPack.encode("flat", &vec![1_u8; 1_000]).unwrap();
        let brackets = json!({ "text": "[".repeat(500), "quoted": "\\\"[[[[".repeat(100) });
        Codec::Json.encode("flat", &brackets).unwrap();
    }

    #[test]
    fn deep_input_does_not_overflow_the_stack() {
        let bomb = "[".repeat(100_000);
        assert_eq!(Codec::Json.decode::<Value>(bomb.as_bytes()).unwrap_err().kind(), ErrorKind::Decode);
        let bomb = vec![0x91; 100_000];
        assert_eq!(Codec::MsgPack.decode::<Value>(&bomb).unwrap_err().kind(), ErrorKind::Decode);
    }

    #[derive(Serialize, Deserialize)]
    struct Plain {
        a: u8,
    }

    #[test]
    fn bytes_that_are_not_exactly_a_value_are_refused() {
        let bad: [&[u8]; 9] = [
            b"",
            b"{",
            b"{\"a\":1} x",
            b"{\"a\":1,\"a\":2}",
            b"\xef\xbb\xbf{\"a\":1}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":256}",
            b"{\"a\":1e400}",
            b"\"\\ud800\"",
        ];
        for bytes in bad {
            let error = Codec::Json.decode::<Plain>(bytes).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Decode, "{bytes:?}");
        }
        assert!(Codec::Json.decode::<String>(b"\"\\ud800\"").is_err(), "a lone surrogate");
        let mut trailing = Codec::MsgPack.encode("n", &1_u8).unwrap().into_vec();
        trailing.push(0);
        assert!(Codec::MsgPack.decode::<u8>(&trailing).unwrap_err().to_string().contains("trailing bytes"));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // An array that claims four thousand million elements, and a text that claims as many bytes.
        for claim in [[0xdd, 0xff, 0xff, 0xff, 0xff], [0xdb, 0xff, 0xff, 0xff, 0xff]] {
            assert!(Codec::MsgPack.decode::<Vec<String>>(&claim).is_err());
            assert!(Codec::MsgPack.decode::<String>(&claim).is_err());
        }
    }

    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("half-way"))
        }
    }
    impl<'de> Deserialize<'de> for Fails {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }

    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("on purpose")
        }
    }
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }

    #[test]
    fn values_that_cannot_be_written_are_errors_not_panics() {
        let by_pair: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        for (error, text) in [
            (Codec::Json.encode("map", &by_pair).unwrap_err(), "key must be a string"),
            (Codec::Json.encode("fails", &Fails).unwrap_err(), "half-way"),
            (Codec::Json.encode("panics", &Panics).unwrap_err(), "its Serialize panicked: on purpose"),
        ] {
            assert_eq!(error.kind(), ErrorKind::Encode);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn msgpack_forgives_added_fields_as_json_does() {
        #[derive(Serialize, Deserialize)]
        struct Old {
            name: String,
        }
        #[derive(Serialize, Deserialize)]
        struct New {
            name: String,
            #[serde(default)]
            locale: String,
        }
        for codec in BOTH {
            let old = codec.encode("old", &Old { name: "ada".to_owned() }).unwrap();
            let new: New = codec.decode(&old).unwrap();
            assert_eq!((new.name.as_str(), new.locale.as_str()), ("ada", ""));
            let back: Old = codec.decode(&codec.encode("new", &new).unwrap()).unwrap();
            assert_eq!(back.name, "ada");
        }
    }
}
