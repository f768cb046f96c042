//! Writing new rows: one at a time, and many plain ones together.

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Row as _, Sqlite};
use windlass_core::{Body, JobId, NewJob, Pushed, StateKind, Timestamp, Until};

use super::Store;
use super::job::{Flags, Job, Line, id_of, rank};
use super::queues::Lane;
use crate::error::Step;
use crate::packed;

/// Rows of one statement. Larger statements gain nothing that was measurable, and take long to prepare.
const ROWS: usize = 128;

/// The flags of a job that has just come in.
fn flags_of(body: &Body) -> Flags {
    let mut flags = Flags::default();
    flags.set(Flags::KEYED, body.unique().is_some());
    flags.set(Flags::KEYED_TO_START, body.unique().is_some_and(|unique| unique.until == Until::Start));
    flags.set(Flags::LIMITED, body.limit().is_some());
    flags
}

fn insert_jobs(rows: usize) -> String {
    let mut sql = String::from(
        "insert into windlass_job (n, q, id, k, min_reader, priority, created, flags, state, why, line, place, at, since, \
         epoch, attempts, lost, generation) values ",
    );
    for row in 0..rows {
        sql.push_str(if row == 0 { "" } else { "," });
        sql.push_str("(?,?,?,?,?,?,?,?,?,0,0,?,?,0,0,0,0,0)");
    }
    sql.push_str(" on conflict (q, id) do nothing");
    sql
}

/// The rows and their bodies, in one trip to the connection's thread.
fn insert_both(rows: usize) -> String {
    let mut sql = insert_jobs(rows);
    sql.push_str("; insert into windlass_body (n, packed) values ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(?,?)" } else { ",(?,?)" });
    }
    sql
}

type Statement = Query<'static, Sqlite, SqliteArguments>;

impl Store<'_> {
    /// Writes one job, Blocked, with its body.
    pub(crate) async fn insert_blocked(&mut self, lane: Lane, body: &Body) -> Step<Job> {
        let job = Job {
            n: self.next_number(),
            q: self.queue(lane).q,
            id: body.id,
            priority: body.priority,
            created: self.now,
            flags: flags_of(body),
            state: StateKind::Blocked,
            why: 0,
            line: Line::Main,
            place: 0,
            at: Timestamp::from_millis(0),
            since: Timestamp::from_millis(0),
            epoch: 0,
            attempts: 0,
            lost: 0,
            generation: 0,
            session: None,
            nonce: None,
        };
        let k = self.open_kind(&body.kind).await?;
        let statement = sqlx::query(AssertSqlSafe(insert_both(1)));
        bind_job(statement, &job, k, body.min_reader)
            .bind(job.n)
            .bind(packed::pack(body))
            .execute(&mut *self.conn)
            .await?;
        self.came(lane, StateKind::Blocked, 1);
        Ok(job)
    }

    /// Pushes plain jobs of one queue.
    pub(crate) async fn insert_plain(&mut self, jobs: &[NewJob], answers: &mut Vec<Pushed>) -> Step<()> {
        let Some(first) = jobs.first() else { return Ok(()) };
        let lane = self.open_lane(&first.body.queue).await?;
        for chunk in jobs.chunks(ROWS) {
            self.insert_chunk(lane, chunk, answers).await?;
        }
        Ok(())
    }

    async fn insert_chunk(&mut self, lane: Lane, jobs: &[NewJob], answers: &mut Vec<Pushed>) -> Step<()> {
        let q = self.queue(lane).q;
        let number = self.numbers(jobs.len());
        let mut rows = Vec::with_capacity(jobs.len());
        for (n, new) in (number..).zip(jobs) {
            let due = new.due.resolve(self.now);
            let (state, place, at) = if due > self.now {
                (StateKind::Scheduled, n, due)
            } else {
                (StateKind::Ready, rank(new.body.priority, n), Timestamp::from_millis(0))
            };
            let job = Job {
                n,
                q,
                id: new.body.id,
                priority: new.body.priority,
                created: self.now,
                flags: flags_of(&new.body),
                state,
                why: 0,
                line: Line::Main,
                place,
                at,
                since: Timestamp::from_millis(0),
                epoch: 0,
                attempts: 0,
                lost: 0,
                generation: 0,
                session: None,
                nonce: None,
            };
            let k = self.open_kind(&new.body.kind).await?;
            rows.push((job, k, new.body.min_reader));
        }
        let mut statement = sqlx::query(AssertSqlSafe(insert_both(rows.len())));
        for (job, k, min_reader) in &rows {
            statement = bind_job(statement, job, *k, *min_reader);
        }
        for ((job, ..), new) in rows.iter().zip(jobs) {
            statement = statement.bind(job.n).bind(packed::pack(&new.body));
        }
        // Of the jobs those whose ids are new, and all the bodies.
        let written = statement.execute(&mut *self.conn).await?.rows_affected();
        let fresh: Vec<bool> = if written == 2 * rows.len() as u64 {
            vec![true; rows.len()]
        } else {
            self.which_are_fresh(lane, &rows).await?
        };
        for (fresh, (job, ..)) in fresh.iter().zip(&rows) {
            if *fresh {
                self.came(lane, job.state, 1);
            }
            answers.push(if *fresh { Pushed::Inserted } else { Pushed::SameId });
        }
        Ok(())
    }

    /// Which of these rows were written: of those whose id was there before, another number is stored. Their bodies go.
    async fn which_are_fresh(&mut self, lane: Lane, rows: &[(Job, i64, u16)]) -> Step<Vec<bool>> {
        let (Some((first, ..)), Some((last, ..))) = (rows.first(), rows.last()) else {
            return Ok(Vec::new());
        };
        let written = sqlx::query("select id from windlass_job where n between ?1 and ?2 and q = ?3")
            .bind(first.n)
            .bind(last.n)
            .bind(self.queue(lane).q)
            .fetch_all(&mut *self.conn)
            .await?;
        sqlx::query(
            "delete from windlass_body where n between ?1 and ?2 and n not in \
             (select n from windlass_job where n between ?1 and ?2)",
        )
        .bind(first.n)
        .bind(last.n)
        .execute(&mut *self.conn)
        .await?;
        let mut ids = Vec::with_capacity(written.len());
        for row in &written {
            ids.push(id_of(row.try_get(0)?)?);
        }
        let mut seen: Vec<JobId> = Vec::new();
        let fresh = rows.iter().map(|(job, ..)| {
            // Of two with one id in a batch the first was written.
            let fresh = ids.contains(&job.id) && !seen.contains(&job.id);
            seen.push(job.id);
            fresh
        });
        Ok(fresh.collect())
    }
}

fn bind_job(statement: Statement, job: &Job, k: i64, min_reader: u16) -> Statement {
    statement
        .bind(job.n)
        .bind(job.q)
        .bind(job.id.as_uuid().as_bytes().to_vec())
        .bind(k)
        .bind(i64::from(min_reader))
        .bind(i64::from(job.priority.get()))
        .bind(job.created.as_millis())
        .bind(job.flags.0)
        .bind(job.state as i64)
        .bind(job.place)
        .bind(job.at.as_millis())
}
