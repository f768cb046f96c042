//! Jobs with an effect: a row that a handler writes in the transaction that completes its job. There must be one row a
//! completed job in the end, whoever was killed meanwhile.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use windlass::prelude::*;
use windlass_core::ErrorKind;

use crate::jobs::{AGAIN, Execution, Scene, planned};
use crate::plan::{Act, LINGERS, Turn};
use crate::points::Point;
use crate::wire::{Answer, Word};

/// What a handler wrote, and under which claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
}

/// The application's table: nothing in it keeps a second row of a job out.
const TABLE: &str = "create table if not exists crash_effect (number bigint not null, epoch bigint not null)";

/// Makes the application's table.
pub(crate) async fn prepare(url: &str) -> Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    sqlx::raw_sql(TABLE).execute(&mut conn).await?;
    Ok(conn.close().await?)
}

/// All rows that are there.
pub(crate) async fn rows(url: &str) -> Result<Vec<Row>> {
    let mut conn = PgConnection::connect(url).await?;
    let rows = sqlx::query("select number, epoch from crash_effect").fetch_all(&mut conn).await?;
    conn.close().await?;
    let number =
        |row: &sqlx::postgres::PgRow, place| -> Result<u64> { Ok(row.try_get::<i64, _>(place)?.try_into()?) };
    rows.iter().map(|row| Ok(Row { number: number(row, 0)?, epoch: number(row, 1)? })).collect()
}

/// A job of the plan with an effect.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "crash_effect", retry = AGAIN)]
pub(crate) struct Effect {
    pub(crate) number: u64,
}

/// Where effects go: nowhere in runs without.
#[derive(Clone, Debug)]
pub(crate) struct Books(pub(crate) Option<Queue<PostgresBackend>>);

impl Handler for Effect {
    type Deps = (Scene, Books);
    type Error = Fault;

    async fn handle(
        Self { number }: Self,
        (scene, Books(queue)): Self::Deps,
        cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        let execution = Execution::start(&scene, cx);
        let Some(queue) = queue else { return Err(Fault::bury("a run without effects has such a job")) };
        let Act::Effect(turn) = scene.plan.act(number) else {
            return Err(Fault::bury("this job has no effect by the plan"));
        };
        let first = cx.attempt() == 1;
        if turn == Turn::Lingers && execution.epoch > 1 {
            tokio::time::sleep(LINGERS).await;
        }
        let mut tx = queue.backend().pool().begin().await.map_err(Fault::retry)?;
        let epoch = i64::try_from(execution.epoch).map_err(Fault::retry)?;
        sqlx::query("insert into crash_effect values ($1, $2)")
            .bind(i64::try_from(number).map_err(Fault::retry)?)
            .bind(epoch)
            .execute(&mut *tx)
            .await
            .map_err(Fault::retry)?;
        if turn == Turn::Lingers {
            scene.trapped.haunt(vec![(execution.id, execution.epoch)]);
        }
        if turn == Turn::FailsBefore && first {
            execution.ends(Word::Retry);
            return Err(planned());
        }
        scene.trapped.pass(Point::InTransaction);
        execution.sends(Word::Complete);
        let receipt = match queue.complete_within(cx.ticket(), &mut tx).await {
            Ok(receipt) => receipt,
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    execution.hears(Answer::Refused);
                }
                return Err(Fault::retry(error));
            }
        };
        match turn {
            Turn::RollsBack if first => {
                tx.rollback().await.map_err(Fault::retry)?;
                return Ok(Outcome::Settled(receipt));
            }
            Turn::Panics if first => std::panic::panic_any("it was planned to panic"),
            _ => {}
        }
        scene.trapped.within(Point::Committing, tx.commit()).await.map_err(Fault::retry)?;
        execution.hears(Answer::Applied);
        if turn == Turn::FailsAfter && first {
            return Err(planned());
        }
        execution.ends(Word::Complete);
        Ok(Outcome::Settled(receipt))
    }
}
