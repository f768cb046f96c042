//! The text of every statement, for one schema. The one place where a schema's name is written into SQL.

use std::sync::Arc;

/// The files that make a namespace, in order.
pub(crate) const SCHEMA_FILES: [&str; 14] = [
    include_str!("../sql/tables.sql"),
    include_str!("../sql/common.sql"),
    include_str!("../sql/gate.sql"),
    include_str!("../sql/fresh.sql"),
    include_str!("../sql/admit.sql"),
    include_str!("../sql/ending.sql"),
    include_str!("../sql/push.sql"),
    include_str!("../sql/claim.sql"),
    include_str!("../sql/complete.sql"),
    include_str!("../sql/settle.sql"),
    include_str!("../sql/sweep.sql"),
    include_str!("../sql/manage.sql"),
    include_str!("../sql/inspect.sql"),
    include_str!("../sql/dispatch.sql"),
];

/// How a validated schema name is written into SQL: as an identifier, and within a literal.
pub(crate) struct SchemaName {
    quoted: String,
    text: String,
}

impl SchemaName {
    pub(crate) fn new(name: &str) -> Self {
        Self { quoted: format!("\"{}\"", name.replace('"', "\"\"")), text: name.replace('\'', "''") }
    }

    /// `sql` with the name in the places that are marked for it.
    pub(crate) fn fill(&self, sql: &str) -> String {
        sql.replace("@literal@", &self.quoted.replace('\'', "''"))
            .replace("@schema@", &self.quoted)
            .replace("@text@", &self.text)
    }
}

/// `$from, .., $to`, each cast to its type.
fn arguments(from: usize, types: &[&str]) -> String {
    let casts = types.iter().enumerate().map(|(at, kind)| format!("${}::{kind}", from + at));
    casts.collect::<Vec<_>>().join(", ")
}

/// A batch of jobs, in the order of `jobs::Jobs::bind`.
const JOBS: [&str; 14] = [
    "uuid[]", "text[]", "text[]", "bytea[]", "int8[]", "int4[]", "int4[]", "int2[]", "int2[]", "int2[]",
    "int2[]", "int8[]", "int8[]", "text[]",
];

/// A batch of verdicts, in the order of `verdicts::Verdicts::bind`.
const VERDICTS: [&str; 16] = [
    "text[]", "uuid[]", "int4[]", "uuid[]", "int2[]", "int8[]", "int8[]", "int4[]", "int2[]", "bool[]",
    "int8[]", "text[]", "bool[]", "bytea[]", "int2[]", "int4[]",
];

/// A claim, in the order of `backend::bind_claim`.
const CLAIM: [&str; 9] = ["uuid", "uuid", "text[]", "text[]", "int4[]", "int4", "int4", "bool", "int8"];

/// What stands first in a claim and a record, in the order of `rows::body`; in a macro, to be joined to the rest.
macro_rules! body {
    ($rest:literal) => {
        concat!(
            "queue, id, kind, payload, timeout_ms, version, min_reader, max_attempts, codec, priority, extras::text, ",
            $rest
        )
    };
}

/// In the order of `rows::claimed`; then what the first row alone says.
const CLAIMED: &str = body!(
    "epoch, handle, attempts, lost, generation, created_at, deadline, is_ahead, suspect, settled, now_ms, more, wake_at"
);

const RECORD: &str = body!(
    "state, created_at, deadline, attempts, lost, generation, epoch, line, rank, waits, why, session, since, until, \
     started, cancel, at, output, reason, dead_reason, superseded_by, error, panicked, percent, note, log::text"
);

/// The statements of one namespace.
pub(crate) struct Statements {
    pub(crate) push: Arc<str>,
    pub(crate) push_alike: Arc<str>,
    pub(crate) claim: Arc<str>,
    pub(crate) settle: Arc<str>,
    pub(crate) settle_then: Arc<str>,
    pub(crate) complete_alike: Arc<str>,
    /// The same two within a caller's transaction.
    pub(crate) settle_in: Arc<str>,
    pub(crate) settle_then_in: Arc<str>,
    pub(crate) settle_and_claim: Arc<str>,
    pub(crate) settle_then_and_claim: Arc<str>,
    pub(crate) extend: Arc<str>,
    pub(crate) hand_back: Arc<str>,
    pub(crate) annotate: Arc<str>,
    pub(crate) sweep: Arc<str>,
    pub(crate) outcomes: Arc<str>,
    pub(crate) peek: Arc<str>,
    pub(crate) now: Arc<str>,
    pub(crate) get: Arc<str>,
    pub(crate) list: Arc<str>,
    pub(crate) queues: Arc<str>,
    pub(crate) cancel: Arc<str>,
    pub(crate) revive: Arc<str>,
    pub(crate) run_now: Arc<str>,
    pub(crate) delete: Arc<str>,
    pub(crate) set_paused: Arc<str>,
}

impl Statements {
    pub(crate) fn new(name: &SchemaName) -> Self {
        let fill = |sql: String| -> Arc<str> { name.fill(&sql).into() };
        let (jobs, verdicts) = (JOBS.len(), VERDICTS.len());
        let settle = arguments(3, &VERDICTS);
        let after = 3 + verdicts;
        let nothing = "'{}'::@schema@.draft[]";
        let riding = format!("@schema@.drafts({})", arguments(after, &JOBS));
        let answer = format!("select {CLAIMED} from @schema@.settle_and_claim($1::int8, $2::int4,");
        Self {
            push: fill(format!(
                "select answer, other from @schema@.push($1::int8, $2::bool, $3::int4, {})",
                arguments(4, &JOBS)
            )),
            push_alike: fill(
                "select @schema@.push_alike($1::int8, $2::text, $3::text, $4::int8, $5::int4, $6::int4, $7::int2, $8::int2, \
                 $9::int2, $10::uuid[], $11::bytea[])"
                    .to_owned(),
            ),
            claim: fill(format!("select {CLAIMED} from @schema@.claim($1::int8, {})", arguments(2, &CLAIM))),
            settle: fill(format!("select @schema@.settle($1::int8, $2::int4, {settle}, {nothing}, false)")),
            settle_then: fill(format!("select @schema@.settle($1::int8, $2::int4, {settle}, {riding}, false)")),
            complete_alike: fill(
                "select @schema@.complete_alike($1::int8, $2::int4, $3::text, $4::int8, $5::uuid[], $6::int4[], $7::uuid[], \
                 $8::int8[], $9::bytea[])"
                    .to_owned(),
            ),
            settle_in: fill(format!("select @schema@.settle($1::int8, $2::int4, {settle}, {nothing}, true)")),
            settle_then_in: fill(format!("select @schema@.settle($1::int8, $2::int4, {settle}, {riding}, true)")),
            settle_and_claim: fill(format!("{answer} {settle}, {nothing}, {})", arguments(after, &CLAIM))),
            settle_then_and_claim: fill(format!("{answer} {settle}, {riding}, {})", arguments(after + jobs, &CLAIM))),
            extend: fill(
                "select ord, answer from @schema@.extend($1::int8, $2::uuid, $3::int8, $4::text[], $5::uuid[], $6::int4[], \
                 $7::uuid[], $8::int2[], $9::int8[], $10::int8[], $11::bool[])"
                    .to_owned(),
            ),
            hand_back: fill("select @schema@.hand_back($1::int8, $2::uuid, $3::uuid, $4::int4, 1000)".to_owned()),
            annotate: fill(
                "select @schema@.annotate($1::int8, n.queue, n.id, n.epoch, n.nonce, n.percent, n.note, \
                 array(select l.line from unnest($8::int4[], $9::text[]) with ordinality l (note, line, n) \
                 where l.note = n.ord order by l.n)) \
                 from unnest($2::text[], $3::uuid[], $4::int4[], $5::uuid[], $6::int2[], $7::text[]) \
                 with ordinality n (queue, id, epoch, nonce, percent, note, ord)"
                    .to_owned(),
            ),
            sweep: fill(
                "select promoted, reclaimed, cancelled, buried, pruned, more \
                 from @schema@.sweep($1::int8, $2::int4, $3::int4, $4::int8[], $5::int8[])"
                    .to_owned(),
            ),
            outcomes: fill(
                "select state, codec, output, reason, dead_reason, error, panicked \
                 from @schema@.outcomes($1::int8, $2::text[], $3::uuid[]) order by ord"
                    .to_owned(),
            ),
            peek: fill("select @schema@.peek($1::uuid, $2::text[], $3::int8)".to_owned()),
            now: fill("select @schema@.tick($1::int8)".to_owned()),
            get: fill(format!("select {RECORD} from @schema@.get($1::int8, $2::text, $3::uuid)")),
            list: fill(format!(
                "select {RECORD}, passes, is_last, looked from (select passes, is_last, looked, (rec).* from @schema@.list(\
                 $1::int8, $2::text, $3::int2[], $4::text, $5::text, $6::uuid, $7::text, $8::int4)) r"
            )),
            queues: fill("select queue, paused, counts from @schema@.queues($1::int8)".to_owned()),
            cancel: fill(
                "select answer, told from @schema@.cancel($1::int8, $2::text, $3::uuid, $4::text, $5::int4)".to_owned(),
            ),
            revive: fill("select answer, other from @schema@.revive($1::int8, $2::text, $3::uuid)".to_owned()),
            run_now: fill("select @schema@.run_now($1::int8, $2::text, $3::uuid)".to_owned()),
            delete: fill("select @schema@.delete($1::int8, $2::text, $3::uuid, $4::int4)".to_owned()),
            set_paused: fill("select @schema@.set_paused($1::int8, $2::text, $3::bool)::text".to_owned()),
        }
    }
}
