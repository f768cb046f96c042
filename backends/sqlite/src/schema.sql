-- The schema of windlass-sqlite, version 1. Every name has a prefix, since the file may hold tables of the user's own.

-- One row: the version of the schema, how the namespace is timed (0 by its clock, 1 virtually; null until the first verb), the latest instant seen,
-- and the last number given. Every job, place in line and end has a number of its own.
create table windlass_meta (
    one integer primary key check (one = 1),
    version integer not null,    -- of the schema
    timing integer,
    latest integer not null,
    sequence integer not null
) strict;

insert into windlass_meta values (1, 1, null, -62135596800000, 0);

-- Named queues. The counts are kept as jobs move: by state, and of Ready jobs those under suspicion and those set aside.
create table windlass_queue (
    q integer primary key,
    name text not null unique,
    paused integer not null default 0,
    blocked integer not null default 0,
    scheduled integer not null default 0,
    ready integer not null default 0,
    running integer not null default 0,
    completed integer not null default 0,
    cancelled integer not null default 0,
    dead integer not null default 0,
    suspects integer not null default 0,
    aside integer not null default 0
) strict;

-- Names of kinds, so that a claim compares numbers.
create table windlass_kind (
    k integer primary key,
    name text not null unique
) strict;

-- One row a job, with all that changes. Where it waits follows from its state through the partial indexes below: a job
-- cannot stand in the index of another state. The body never changes and has a table of its own.
create table windlass_job (
    n integer primary key,
    q integer not null,
    id blob not null,
    k integer not null,
    min_reader integer not null,
    priority integer not null,
    created integer not null,
    flags integer not null,
    state integer not null,      -- 0 blocked, 1 scheduled, 2 ready, 3 running, 4 completed, 5 cancelled, 6 dead
    why integer not null,        -- of blocked, scheduled, dead
    line integer not null,       -- of ready: 0 the ordinary line, 1 suspects, 2 set aside
    place integer not null,      -- ready, running: the place in line; scheduled, ended: the number of the entry
    at integer not null,         -- scheduled: due; running: end of the lease; ended: when
    since integer not null,      -- running: of the claim
    epoch integer not null,
    attempts integer not null,
    lost integer not null,
    generation integer not null,
    session blob,                -- running
    nonce blob                   -- of the last lease, unless it was reclaimed or handed back
) strict;

create unique index windlass_job_id on windlass_job (q, id);
create index windlass_job_scheduled on windlass_job (q, at, place) where state = 1;
create index windlass_job_ready on windlass_job (q, line, place) where state = 2;
create index windlass_job_aside on windlass_job (q, k, min_reader, place) where state = 2 and line = 2;
create index windlass_job_running on windlass_job (q, at) where state = 3;
create index windlass_job_ended on windlass_job (q, state, place) where state >= 4;

create table windlass_body (
    n integer primary key,
    packed blob not null
) strict;

-- What most jobs do without.
create table windlass_more (
    n integer primary key,
    deadline integer,
    due integer,                 -- of blocked: when it is due once nothing blocks it
    parents_left integer not null default 0,
    cancel_reason text,          -- somebody asked for it while it ran
    error text,
    panicked integer not null default 0,
    percent integer,
    note text,
    log blob,
    output blob,
    reason text,                 -- of cancelled
    superseded_by blob
) strict;

-- Who is let in by whose end.
create table windlass_child (
    parent integer not null,
    child integer not null,
    primary key (parent, child)
) strict, without rowid;

create table windlass_unique_key (
    q integer not null,
    key text not null,
    holder blob not null,
    until integer,
    next blob,
    primary key (q, key)
) strict, without rowid;

create index windlass_unique_key_until on windlass_unique_key (q, until) where until is not null;

-- Places under a concurrency limit: how many are taken, and who waits for one.
create table windlass_places (
    q integer not null,
    key text not null,
    taken integer not null,
    primary key (q, key)
) strict, without rowid;

create table windlass_waiting (
    q integer not null,
    key text not null,
    place integer not null,
    n integer not null,
    primary key (q, key, place)
) strict, without rowid;

-- Sessions that have something to hear: the cancellation of a job they run.
create table windlass_control (
    session blob primary key
) strict, without rowid;
