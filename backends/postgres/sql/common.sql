-- What all verbs share: the time, the state of a job, the one way to a job's row, the counts.

-- What time it is: the server's, or the later of the instant given and the latest seen in a namespace with virtual time.
-- The other sort of time than the namespace's is refused. Cost: one row read.
create function @schema@.tick(at_ms bigint) returns bigint language plpgsql as $windlass$
declare
    is_virtual boolean;
    latest bigint;
begin
    select m.virtual into strict is_virtual from @schema@.meta m;
    if is_virtual = (at_ms is null) then
        raise exception 'this namespace is timed the other way: server time and virtual time cannot be mixed, use a '
            'namespace of its own for each' using errcode = 'WL001';
    end if;
    if not is_virtual then
        return floor(extract(epoch from clock_timestamp()) * 1000)::bigint;
    end if;
    select c.last_value into latest from @schema@.clock c;
    if at_ms > latest then
        perform pg_advisory_lock(hashtextextended('windlass clock @text@', 0));
        select c.last_value into latest from @schema@.clock c;
        if at_ms > latest then
            latest := setval('@literal@.clock', at_ms);
        end if;
        perform pg_advisory_unlock(hashtextextended('windlass clock @text@', 0));
    end if;
    return latest;
end
$windlass$;

-- The later of an instant and a duration after it, within what an instant can be.
create function @schema@.after(now_ms bigint, by_ms bigint) returns bigint language sql immutable as $windlass$
    select least(now_ms + by_ms, 253402207200000)
$windlass$;

-- The state of a row of `live`.
create function @schema@.state_of(line smallint, session uuid) returns smallint language sql immutable as $windlass$
    select case when session is not null then 3 when line <= 2 then 2 when line = 3 then 1 else 0 end::smallint
$windlass$;

-- The last entry of a queue and rank that a claim of fresh jobs has come to: the end of the newest span.
create function @schema@.passed(q text, r bigint) returns bigint language sql stable as $windlass$
    select coalesce((
        select s.last from @schema@.span s where s.queue = q and s.rank = r order by s.first desc limit 1
    ), 0)
$windlass$;

-- The state of a job; null when it is not stored.
create function @schema@.state_at(q text, i uuid) returns smallint language sql stable as $windlass$
    select case
        when d.id is not null then d.state
        when l.id is not null then @schema@.state_of(l.line, l.session)
        when j.fresh then case when @schema@.passed(j.queue, j.rank) >= j.seq then 3 else 2 end
    end::smallint
    from @schema@.job j
    left join @schema@.done d on d.queue = j.queue and d.id = j.id
    left join @schema@.live l
        on l.queue = j.queue and l.line = j.line and l.rank = j.rank and l.seq = j.seq and l.id = j.id and d.id is null
    where j.queue = q and j.id = i
$windlass$;

-- Locks the row of a job that has not finished and returns it; nulls when there is none. A fresh job is given one, unless
-- `as_it_is`.
--
-- The pointer in `job` is read without a lock, so a row that moves meanwhile is looked for again.
create function @schema@.hold(q text, i uuid, as_it_is boolean default false) returns @schema@.live
language plpgsql as $windlass$
declare
    r @schema@.live;
    is_fresh boolean;
begin
    for attempt in 1 .. 1000 loop
        select l.* into r
        from @schema@.job j
        join @schema@.live l
            on l.queue = j.queue and l.line = j.line and l.rank = j.rank and l.seq = j.seq and l.id = j.id
        where j.queue = q and j.id = i
        for update of l;
        if found then
            return r;
        end if;
        select j.fresh into is_fresh from @schema@.job j where j.queue = q and j.id = i
            and not exists (select from @schema@.done d where d.queue = q and d.id = i);
        if not found or (is_fresh and as_it_is) then
            return null;
        end if;
        if is_fresh and @schema@.materialise(q, array[i], null, false) = 0 then
            perform @schema@.set_out(q, i);
        end if;
    end loop;
    raise exception 'job %/% has no row in live', q, i using errcode = 'WL009';
end
$windlass$;

-- Stores a changed row of `live` whose place may have changed, and the pointer to it.
create function @schema@.place_at(was @schema@.live, r @schema@.live) returns void language plpgsql as $windlass$
begin
    update @schema@.live l
    set seq = r.seq, rank = r.rank, epoch = r.epoch, generation = r.generation, waits = r.waits, line = r.line,
        flags = r.flags, attempts = r.attempts, lost = r.lost, session = r.session, nonce = r.nonce, since = r.since,
        until = r.until, started = r.started, cancel = r.cancel, settled_by = r.settled_by, due = r.due, why = r.why,
        reader = r.reader, lane = r.lane
    where l.queue = was.queue and l.line = was.line and l.rank = was.rank and l.seq = was.seq and l.id = was.id;
    if (was.line, was.rank, was.seq) is distinct from (r.line, r.rank, r.seq) then
        update @schema@.job j set line = r.line, rank = r.rank, seq = r.seq, fresh = false
            where j.queue = r.queue and j.id = r.id;
    end if;
end
$windlass$;

-- The row without what belongs to a run.
create function @schema@.at_rest(r @schema@.live) returns @schema@.live language plpgsql immutable as $windlass$
begin
    r.session := null;
    r.nonce := null;
    r.since := null;
    r.until := null;
    r.started := null;
    r.cancel := null;
    return r;
end
$windlass$;
