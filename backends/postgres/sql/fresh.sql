-- Fresh jobs: those without a row in `live`. Where they stand, and how one gets its row when something unusual is to
-- happen to it. A waiting one is the business of whoever holds its queue's lane (a claim, a cancellation). One that was
-- taken is that of whoever holds its span:
--
-- * shared (FOR KEY SHARE), who completes jobs of it, by a row of `done` each that the primary key admits once
-- * alone (FOR UPDATE), who gives one of them a row in `live`, or takes a row of `done` away again
--
-- Either looks at the jobs in a statement after the one that locked, so each sees what the other did. In a caller's
-- transaction a completion leaves the span alone, which others would wait for, and locks the job's row of `job`; so does
-- whoever gives it a row in `live`.

-- The lane of a queue: held to the end of the transaction by who moves its cursors.
create function @schema@.lane_of(q text) returns bigint language sql immutable as $windlass$
    select hashtextextended('windlass lane @text@/' || q, 0)
$windlass$;

-- The ranks of a queue in which fresh jobs wait: how far its cursor has come, and the first entry behind it.
create function @schema@.fresh_heads(q text) returns table (rank bigint, passed bigint, head bigint)
language sql stable as $windlass$
    select r.rank, c.passed, h.seq
    from generate_series(0::bigint, 9) r (rank)
    cross join lateral (
        select coalesce((
            select s.last from @schema@.span s where s.queue = q and s.rank = r.rank order by s.first desc limit 1
        ), 0) as passed
    ) c
    cross join lateral (
        select j.seq from @schema@.job j
        where j.queue = q and j.rank = r.rank and j.fresh and j.seq > c.passed order by j.seq limit 1
    ) h
$windlass$;

-- Locks the spans that have come to these jobs, in one order. Returns the jobs that one has come to.
create function @schema@.hold_spans(q text, ids uuid[]) returns uuid[] language sql as $windlass$
    select array_agg(k.id) from (
        select j.id from (
            select o.id, o.rank, o.seq from unnest(ids) u (id)
            cross join lateral (
                select b.id, b.rank, b.seq from @schema@.job b where b.queue = q and b.id = u.id and b.fresh limit 1
            ) o
            order by o.rank, o.seq
        ) j
        cross join lateral (
            select s.last from @schema@.span s where s.queue = q and s.rank = j.rank and s.first <= j.seq
            order by s.first desc limit 1 for update
        ) p
        where p.last >= j.seq
    ) k
$windlass$;

-- Gives fresh jobs that run the rows in `live` that they would have had: those whose span has the nonce given with them
-- (null for any), and with `skips` only those that nobody is just ending. Returns how many.
create function @schema@.materialise(q text, ids uuid[], nonces uuid[], skips boolean) returns integer
language plpgsql as $windlass$
declare
    taken uuid[] := @schema@.hold_spans(q, ids);
    locked uuid[];
    n integer;
begin
    if taken is null then
        return 0;
    end if;
    if skips then
        select array_agg(k.id) into locked from (
            select j.id from unnest(taken) u (id) join @schema@.job j on j.queue = q and j.id = u.id and j.fresh
            for no key update of j skip locked
        ) k;
    else
        select array_agg(k.id) into locked from (
            select j.id from unnest(taken) u (id) join @schema@.job j on j.queue = q and j.id = u.id and j.fresh
            for no key update of j
        ) k;
    end if;
    if locked is null then
        return 0;
    end if;
    with born as (
        insert into @schema@.live as l (seq, rank, id, epoch, generation, waits, line, flags, attempts, lost, queue, session,
            nonce, since, until, started)
        select j.seq, j.rank, j.id, 1, 0, 0, 0, 0, 0, 0, q, p.session, p.nonce, p.since, p.until,
            p.ahead_from is null or j.seq < p.ahead_from
        from (select distinct k.id from unnest(locked) k (id)) u
        join @schema@.job j on j.queue = q and j.id = u.id
        cross join lateral (
            select s.* from @schema@.span s where s.queue = q and s.rank = j.rank and s.first <= j.seq
            order by s.first desc limit 1
        ) p
        where j.fresh and p.last >= j.seq
            and (nonces is null or p.nonce = nonces[array_position(ids, j.id)])
            and not exists (select from @schema@.done d where d.queue = q and d.id = j.id)
            and not exists (
                select from @schema@.live o
                where o.queue = q and o.line = 0 and o.rank = j.rank and o.seq = j.seq and o.id = j.id
            )
        returning l.rank, l.seq, l.session, l.nonce, l.until
    ), leased as (
        insert into @schema@.lease (check_at, session, nonce, queue, handles)
        select b.until, b.session, b.nonce, q, array_agg((b.rank << 56) | b.seq order by b.rank, b.seq)
        from born b group by b.until, b.session, b.nonce
    )
    select count(*) into n from born;
    return n;
end
$windlass$;

-- Gives a fresh job that waits its row in `live`.
create function @schema@.set_out(q text, i uuid) returns void language plpgsql as $windlass$
begin
    perform pg_advisory_xact_lock(@schema@.lane_of(q));
    with left_line as (
        update @schema@.job j set fresh = false
        where j.queue = q and j.id = i and j.fresh
            and not exists (select from @schema@.done d where d.queue = q and d.id = i)
            and not exists (
                select from @schema@.live o
                where o.queue = q and o.line = 0 and o.rank = j.rank and o.seq = j.seq and o.id = i
            )
            and @schema@.passed(q, j.rank) < j.seq
        returning j.rank, j.seq
    )
    insert into @schema@.live (seq, rank, id, epoch, generation, waits, line, flags, attempts, lost, queue)
    select l.seq, l.rank, i, 0, 0, 0, 0, 0, 0, 0, q from left_line l;
end
$windlass$;

-- Moves fresh jobs that wait aside by kind and version; they keep their places. The lane is held.
create function @schema@.park_fresh(q text, ids uuid[]) returns void language sql as $windlass$
    with left_line as (
        update @schema@.job j set fresh = false, line = 2
        from unnest(ids) u (id) where j.queue = q and j.id = u.id
        returning j.seq, j.rank, j.id, j.kind, j.min_reader
    )
    insert into @schema@.live (seq, rank, id, epoch, generation, waits, line, flags, attempts, lost, queue, lane, reader)
    select l.seq, l.rank, l.id, 0, 0, 0, 2, 0, 0, 0, q, l.kind, l.min_reader from left_line l
$windlass$;

-- Of a span, the jobs that are fresh and still run.
create function @schema@.running_in(q text, r bigint, from_seq bigint, to_seq bigint) returns table (id uuid, seq bigint)
language sql stable as $windlass$
    select j.id, j.seq from @schema@.job j
    where j.queue = q and j.rank = r and j.fresh and j.seq between from_seq and to_seq
        and not exists (select from @schema@.done d where d.queue = q and d.id = j.id)
        and not exists (
            select from @schema@.live o where o.queue = q and o.line = 0 and o.rank = r and o.seq = j.seq and o.id = j.id
        )
    order by j.seq
$windlass$;

-- Gives what runs in spans whose time has come its rows in `live`, for `reclaim_expired`, and drops spans that have
-- served. The newest of a queue and rank stays: it is the cursor. True when a bound was reached.
create function @schema@.lapse(bound integer, now_ms bigint) returns boolean language plpgsql as $windlass$
declare
    g record;
    ids uuid[];
    looked integer := 0;
    n integer := 0;
    stuck boolean := @schema@.is_stuck();
begin
    for g in
        select s.ctid as at, s.* from @schema@.span s where s.check_at <= now_ms order by s.check_at limit 1000
        for update skip locked
    loop
        looked := looked + 1;
        if g.until > now_ms then
            update @schema@.span s set check_at = g.until where s.ctid = g.at;
            continue;
        end if;
        if n >= bound then
            return true;
        end if;
        select array_agg(r.id order by r.seq) into ids from @schema@.running_in(g.queue, g.rank, g.first, g.last) r;
        if ids is not null then
            n := n + cardinality(ids);
            -- What somebody is just ending is looked at again.
            continue when @schema@.materialise(g.queue, ids, null, true) < cardinality(ids);
        end if;
        if not stuck and exists (
            select from @schema@.span s where s.queue = g.queue and s.rank = g.rank and s.first > g.first
        ) then
            delete from @schema@.span s where s.ctid = g.at;
        else
            update @schema@.span s set check_at = now_ms + case when stuck then 5000 else 3600000 end where s.ctid = g.at;
        end if;
    end loop;
    return looked >= 1000;
end
$windlass$;
