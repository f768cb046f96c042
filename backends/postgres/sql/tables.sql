-- The tables. `@schema@` stands for the quoted name of the namespace's schema.
--
-- job    what was pushed, written once; `line`, `rank` and `seq` point to the job's row in `live`, if it has one
-- span   one row a claim of fresh jobs: a stretch of them, in order. The newest of a queue and rank is the cursor
-- live   one narrow row for each job that is not fresh and has not finished; a claim changes it in place (HOT), an end
--        deletes it
-- done   one row for each finished job, append-only until retention takes it
-- detail errors, progress and logs of the few jobs that have them
--
-- A job is fresh from a plain push (no key, limit, parents or delay, in no transaction of a caller's) until something
-- unusual happens to it. It has no row in `live`: it waits if no span has come to it, it runs if one has, it is over if
-- `done` has it. Whatever is unusual first gives it the row in `live` that it would have had (`sql/fresh.sql`).
--
-- live.line says where a job stands:  0 main line, 1 suspects, 2 parked (Ready, or Running while `session` is set),
-- 3 Scheduled, 4 Blocked by parents, 5 by a limit, 6 by a key, 7 pushed in a transaction and not looked at yet.
-- A page of `live` has room for every row's claimed version, which is half as long again: so a claim writes no index.
-- live.rank orders a line: 9 - priority, or the due time on line 3. live.seq is the entry.
-- flags: 1 has a unique key, 2 has a limit, 4 is a suspect, 8 frees its key at the first start.
-- Instants and durations are whole milliseconds.
create table @schema@.meta (
    one boolean primary key default true check (one),
    virtual boolean not null
);

-- Entry numbers. Cached by nobody: a block kept by one connection would let its jobs pass those of others.
create sequence @schema@.entry as bigint;

-- Which entries claims may take as they come: see `sql/gate.sql`. Sequences, because what they say holds whether the
-- transaction that found it out commits or not, and because a row that every claim changes would never stop growing under
-- a snapshot that stays open.
create sequence @schema@.gate as bigint;
create sequence @schema@.gate_bound as bigint minvalue 0 start 0;
create sequence @schema@.gate_since as bigint minvalue 0 start 0;
create sequence @schema@.gate_open as bigint minvalue 0 start 0;
create sequence @schema@.gate_stuck as bigint minvalue 0 start 0;

-- The latest instant of a virtually timed namespace. A sequence, because it must move without holding a lock until the
-- end of a caller's transaction.
create sequence @schema@.clock as bigint minvalue -62135596800000 maxvalue 253402207200000 start -62135596800000;

create table @schema@.job (
    seq bigint not null,
    rank bigint not null,
    created_at bigint not null,
    deadline bigint,
    id uuid not null,
    timeout_ms bigint,
    version integer not null,
    min_reader integer not null,
    max_attempts smallint not null,
    line smallint not null,
    codec smallint not null,
    priority smallint not null,
    fresh boolean not null,
    queue text collate "C" not null,
    kind text collate "C" not null,
    payload bytea not null,
    extras jsonb,
    primary key (queue, id)
);
create index job_fresh on @schema@.job (queue, rank, seq) where fresh;

create table @schema@.span (
    first bigint not null,
    last bigint not null,
    ahead_from bigint,
    since bigint not null,
    until bigint not null,
    check_at bigint not null,
    session uuid not null,
    nonce uuid not null,
    rank smallint not null,
    queue text collate "C" not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
create index span_place on @schema@.span (queue, rank, first);
create index span_check on @schema@.span (check_at);

create table @schema@.live (
    seq bigint not null,
    rank bigint not null,
    id uuid not null,
    epoch integer not null,
    generation integer not null,
    waits integer not null,
    line smallint not null,
    flags smallint not null,
    attempts smallint not null,
    lost smallint not null,
    queue text collate "C" not null,
    session uuid,
    nonce uuid,
    since bigint,
    until bigint,
    started boolean,
    cancel boolean,
    settled_by uuid,
    due bigint,
    why smallint,
    reader integer,
    lane text collate "C"
) with (fillfactor = 38, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);
create index live_line on @schema@.live (queue, line, rank, seq);
-- Parked jobs by kind and version, and jobs that wait under a limit by its key.
create index live_lane on @schema@.live (queue, line, lane, reader, rank, seq) where lane is not null;

create table @schema@.done (
    seq bigint not null,
    at bigint not null,
    id uuid not null,
    settled_by uuid,
    epoch integer not null,
    generation integer not null,
    state smallint not null,
    attempts smallint not null,
    lost smallint not null,
    dead_reason smallint,
    queue text collate "C" not null,
    superseded_by uuid,
    reason text,
    output bytea,
    -- The id first: it has a fixed width, and what stands behind a text costs a walk to find.
    primary key (id, queue)
);
create index done_order on @schema@.done (queue, state, seq);

create table @schema@.detail (
    queue text collate "C" not null,
    id uuid not null,
    error text,
    panicked boolean,
    percent smallint,
    note text,
    log jsonb,
    cancel_reason text,
    primary key (queue, id)
);

-- A unique key in use. Without a holder it is a key that a push in progress has locked.
create table @schema@.key (
    queue text collate "C" not null,
    key text collate "C" not null,
    holder uuid,
    until bigint,
    next uuid,
    primary key (queue, key)
);
create index key_until on @schema@.key (until) where until is not null;

-- A concurrency limit in use: how many of its key are Ready or Running.
create table @schema@.place (
    queue text collate "C" not null,
    key text collate "C" not null,
    taken integer not null,
    primary key (queue, key)
);

-- Who waits for which parent.
create table @schema@.child (
    parent_queue text collate "C" not null,
    parent uuid not null,
    seq bigint not null,
    queue text collate "C" not null,
    id uuid not null,
    primary key (parent_queue, parent, seq)
);

-- Jobs whose parent failed, beyond what one step calls off: for the next sweeps.
create table @schema@.orphan (
    queue text collate "C" not null,
    id uuid not null,
    parent uuid not null,
    primary key (queue, id)
);

-- One row a claim and queue: which rows of `live` it took. Sweeps look here for leases, not through `live`.
create table @schema@.lease (
    check_at bigint not null,
    session uuid not null,
    nonce uuid not null,
    queue text collate "C" not null,
    handles bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index lease_check on @schema@.lease (check_at);

-- Sessions that have a cancellation to hear of.
create table @schema@.control (session uuid primary key);

create table @schema@.pause (queue text collate "C" primary key, paused boolean not null);

-- How many jobs are in each state: totals, and what moved since they were added up.
create table @schema@.tally (
    queue text collate "C" not null,
    state smallint not null,
    n bigint not null,
    primary key (queue, state)
);
create table @schema@.moved (
    n integer not null,
    gone smallint,
    came smallint,
    queue text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- A job as it is pushed, within these functions.
create type @schema@.draft as (
    id uuid, queue text, kind text, payload bytea, timeout_ms bigint, version integer, min_reader integer,
    max_attempts smallint, codec smallint, priority smallint, flags smallint, after_ms bigint, due_at bigint,
    extras jsonb
);
create type @schema@.orphaned as (queue text, id uuid, parent uuid);
-- Fresh jobs that a claim takes: those of one rank from one entry to another.
create type @schema@.stretch as (queue text, rank bigint, first bigint, last bigint, ahead_from bigint, n bigint);
