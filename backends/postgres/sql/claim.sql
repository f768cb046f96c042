-- Claim: Ready to Running, in place. Rows are locked within the ordered scan (chosen first and locked afterwards, most
-- claims of several workers would come back empty), and nobody waits for another's.

-- Takes jobs out of the parked lanes of a queue that these kinds can run: the heads in order, at most `want`.
create function @schema@.parked_heads(q text, kinds text[], versions integer[], want integer)
returns table (at tid, id uuid, rank bigint, seq bigint, flags smallint) language plpgsql as $windlass$
#variable_conflict use_column
declare
    k record;
    v integer;
begin
    for k in select u.kind, u.version from unnest(kinds, versions) u (kind, version) loop
        v := -1;
        loop
            -- The versions that stand there, one probe each.
            select l.reader into v from @schema@.live l
                where l.queue = q and l.line = 2 and l.lane = k.kind and l.reader > v and l.reader <= k.version
                order by l.reader limit 1;
            exit when not found;
            return query
                select l.ctid, l.id, l.rank, l.seq, l.flags from @schema@.live l
                where l.queue = q and l.line = 2 and l.lane = k.kind and l.reader = v and l.session is null
                order by l.rank, l.seq limit want for no key update skip locked;
        end loop;
    end loop;
end
$windlass$;

-- One queue's share of a claim: the rows to take, in order, and (by parking what these kinds cannot run) none of the others.
-- Returns their places, how much of the bound on parking is left, and whether there is more behind them.
create function @schema@.pick(
    q text, kinds text[], versions integer[], want integer, inout aside integer, out places tid[], out more boolean,
    out has_keys boolean
) language plpgsql as $windlass$
declare
    has_parked boolean;
    picked integer;
    known tid[];
    strange uuid[];
    wanted integer;
    last_rank bigint := -1;
    last_seq bigint := 0;
    latest bigint[];
begin
    places := '{}';
    more := false;
    has_keys := false;
    perform 1 from @schema@.live l where l.queue = q and l.line = 2 and l.lane = any (kinds) and l.session is null limit 1;
    has_parked := found;
    loop
        wanted := want - cardinality(places);
        if wanted <= 0 then
            -- From the last one on: not through those that were just taken.
            more := exists (
                select from @schema@.live l
                where l.queue = q and l.line = 0 and (l.rank, l.seq) > (last_rank, last_seq) and l.session is null
            ) or has_parked;
            return;
        end if;
        if not has_parked then
            select count(*), array_agg(c.at order by c.rank, c.seq) filter (where c.runs),
                array_agg(c.id order by c.rank, c.seq) filter (where not c.runs), max(array[c.rank, c.seq]),
                has_keys or coalesce(bool_or(c.flags & 8 <> 0), false)
            into picked, known, strange, latest, has_keys
            from (
                select p.at, p.rank, p.seq, p.id, p.flags,
                    coalesce(j.min_reader <= versions[array_position(kinds, j.kind)], false) as runs
                from (
                    select l.ctid as at, l.id, l.rank, l.seq, l.flags from @schema@.live l
                    where l.queue = q and l.line = 0 and l.session is null
                        and (cardinality(places) = 0 or l.ctid <> all (places))
                    order by l.rank, l.seq limit wanted for no key update skip locked
                ) p join @schema@.job j on j.queue = q and j.id = p.id
            ) c;
        else
            -- What was moved aside keeps its place in line.
            select count(*), array_agg(c.at order by c.rank, c.seq) filter (where c.runs),
                array_agg(c.id order by c.rank, c.seq) filter (where not c.runs), max(array[c.rank, c.seq]),
                has_keys or coalesce(bool_or(c.flags & 8 <> 0), false)
            into picked, known, strange, latest, has_keys
            from (
                select m.at, m.rank, m.seq, m.id, m.flags,
                    coalesce(j.min_reader <= versions[array_position(kinds, j.kind)], false) as runs
                from (
                    select * from (
                        select * from (
                            select l.ctid as at, l.id, l.rank, l.seq, l.flags from @schema@.live l
                            where l.queue = q and l.line = 0 and l.session is null
                                and (cardinality(places) = 0 or l.ctid <> all (places))
                            order by l.rank, l.seq limit wanted for no key update skip locked
                        ) ready
                        union all
                        select h.at, h.id, h.rank, h.seq, h.flags
                        from @schema@.parked_heads(q, kinds, versions, want) h where h.at <> all (places)
                    ) both_lines
                    order by rank, seq limit wanted
                ) m join @schema@.job j on j.queue = q and j.id = m.id
            ) c;
        end if;
        places := places || coalesce(known, '{}');
        if latest is not null then
            last_rank := latest[1];
            last_seq := latest[2];
        end if;
        if strange is null then
            continue when picked >= wanted;
            return;
        end if;
        strange := strange[1:aside];
        perform @schema@.park(q, strange);
        aside := aside - cardinality(strange);
        if aside <= 0 then
            more := true;
            return;
        end if;
        continue when picked >= wanted or cardinality(places) >= want;
        return;
    end loop;
end
$windlass$;

-- Moves jobs of a queue aside by kind and version; they keep their places. Their rows are locked.
create function @schema@.park(q text, ids uuid[]) returns void language sql as $windlass$
    with moved_aside as (
        update @schema@.live l set line = 2, lane = j.kind, reader = j.min_reader
        from unnest(ids) u (id), @schema@.job j
        where j.queue = q and j.id = u.id
            and l.queue = j.queue and l.line = j.line and l.rank = j.rank and l.seq = j.seq and l.id = j.id
        returning l.id
    )
    update @schema@.job j set line = 2 from moved_aside m where j.queue = q and j.id = m.id
$windlass$;

-- Of the rows that a claim is about to take, those whose key (one that is free at the start) nobody is at just now. A push of
-- that key may be waiting for this very row: whoever waited for its key here would wait for ever.
create function @schema@.startable(places tid[]) returns tid[] language plpgsql as $windlass$
declare
    r record;
    busy tid[] := '{}';
begin
    for r in
        select l.ctid as at, l.queue, l.id, j.extras -> 'unique' ->> 'key' as key
        from unnest(places) u (at) join @schema@.live l on l.ctid = u.at
        join @schema@.job j on j.queue = l.queue and j.id = l.id
        where l.flags & 8 <> 0
    loop
        perform 1 from @schema@.key y where y.queue = r.queue and y.key = r.key and y.holder = r.id;
        continue when not found;
        perform 1 from @schema@.key y where y.queue = r.queue and y.key = r.key and y.holder = r.id
            for update skip locked;
        if not found then
            busy := busy || r.at;
        end if;
    end loop;
    if busy = '{}' then
        return places;
    end if;
    return array(select u.at from unnest(places) with ordinality u (at, ord) where u.at <> all (busy) order by u.ord);
end
$windlass$;

-- The claim of a session. The first row answers the verdicts (`settled`) and tells the time, whether there is more and when
-- the next Scheduled job is due; each further row is a claimed job, in claim order. Cost for a queue with work and without
-- parked jobs: three index probes, one ordered scan of as many rows as are taken (and of those that run in front of
-- them), and for each job one row changed in place.
create function @schema@.claim(
    at_ms bigint, in_session uuid, in_nonce uuid, queues text[], kinds text[], versions integer[],
    at_once integer, ahead integer, suspects boolean, lease_ms bigint, answers smallint[] default null
) returns table (
    settled smallint[], now_ms bigint, more boolean, wake_at bigint,
    queue text, id uuid, epoch integer, handle bigint, attempts smallint, lost smallint, generation integer,
    created_at bigint, deadline bigint, is_ahead boolean, suspect boolean,
    kind text, payload bytea, timeout_ms bigint, version integer, min_reader integer, max_attempts smallint, codec smallint,
    priority smallint, extras text
) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
#variable_conflict use_column
declare
    clock bigint := @schema@.tick(at_ms);
    q text;
    places tid[];
    first tid;
    all_places tid[] := '{}';
    taken integer := 0;
    aside integer := 1000;
    promotable integer := 1000;
    n integer;
    due bigint;
    has_more boolean := false;
    has_keys boolean := false;
    wake bigint;
begin
    foreach q in array queues loop
        continue when exists (select from @schema@.pause p where p.queue = q and p.paused);
        n := @schema@.promote(q, promotable, clock);
        promotable := promotable - n;
        has_more := has_more or promotable <= 0;
        if suspects and taken < at_once then
            -- Not past the page: a queue full of suspects that nobody here can run must not slow every claim.
            select c.at into first from (
                select l.ctid as at, l.id, l.rank, l.seq from @schema@.live l
                where l.queue = q and l.line = 1 and l.session is null order by l.rank, l.seq limit 1000
                for no key update skip locked
            ) c join @schema@.job j on j.queue = q and j.id = c.id
            where j.min_reader <= versions[array_position(kinds, j.kind)]
            order by c.rank, c.seq limit 1;
            if found then
                suspects := false;
                has_keys := true;
                taken := taken + 1;
                all_places := all_places || first;
            end if;
        end if;
        select p.aside, p.places, has_more or p.more, has_keys or p.has_keys into aside, places, has_more, has_keys
            from @schema@.pick(q, kinds, versions, at_once + ahead - taken, aside) p;
        all_places := all_places || places;
        taken := taken + cardinality(places);
        due := null;
        select l.rank into due from @schema@.live l where l.queue = q and l.line = 3 order by l.rank, l.seq limit 1;
        wake := least(wake, due);
    end loop;
    return query select answers, clock, has_more, wake, null::text, null::uuid, null::integer, null::bigint, null::smallint,
        null::smallint, null::integer, null::bigint, null::bigint, null::boolean, null::boolean, null::text, null::bytea,
        null::bigint, null::integer, null::integer, null::smallint, null::smallint, null::smallint, null::text;
    if has_keys then
        all_places := @schema@.startable(all_places);
    end if;
    if cardinality(all_places) = 0 then
        return;
    end if;
    return query
    with took as (
        update @schema@.live l
        set session = in_session, nonce = in_nonce, since = clock, until = @schema@.after(clock, lease_ms),
            started = u.ord <= at_once, epoch = l.epoch + 1, settled_by = null
        from unnest(all_places) with ordinality u (at, ord)
        where l.ctid = u.at
        returning u.ord, l.queue, l.id, l.epoch, l.attempts, l.lost, l.generation, l.flags,
            (l.line::bigint << 60) | (l.rank << 56) | l.seq as handle
    ), leased as (
        insert into @schema@.lease (check_at, session, nonce, queue, handles)
        select @schema@.after(clock, lease_ms), in_session, in_nonce, t.queue, array_agg(t.handle order by t.ord)
        from took t group by t.queue
    ), counted as (
        insert into @schema@.moved (n, gone, came, queue) select count(*), 2, 3, t.queue from took t group by t.queue
    ), freed as (
        -- A key that its holder keeps only until it starts.
        delete from @schema@.key y using took t, @schema@.job j
        where t.flags & 8 <> 0 and j.queue = t.queue and j.id = t.id
            and y.queue = j.queue and y.key = j.extras -> 'unique' ->> 'key' and y.holder = t.id
    )
    select null::smallint[], null::bigint, null::boolean, null::bigint, t.queue, t.id, t.epoch, t.handle, t.attempts, t.lost,
        t.generation, j.created_at, j.deadline, t.ord > at_once, t.flags & 4 <> 0, j.kind, j.payload, j.timeout_ms, j.version,
        j.min_reader, j.max_attempts, j.codec, j.priority, j.extras::text
    from took t join @schema@.job j on j.queue = t.queue and j.id = t.id
    order by t.ord;
end
$windlass$;

-- Settle, then claim, in one round trip and one transaction. The claim sees what the verdicts set free.
create function @schema@.settle_and_claim(
    at_ms bigint, forget integer,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    order_given integer[], rulings smallint[], plain boolean[], afters bigint[], messages text[], panicked boolean[],
    outputs bytea[], dead smallint[], riding integer[], drafts @schema@.draft[],
    in_session uuid, in_nonce uuid, claim_queues text[], kinds text[], versions integer[],
    at_once integer, ahead integer, suspects boolean, lease_ms bigint
) returns table (
    settled smallint[], now_ms bigint, more boolean, wake_at bigint,
    queue text, id uuid, epoch integer, handle bigint, attempts smallint, lost smallint, generation integer,
    created_at bigint, deadline bigint, is_ahead boolean, suspect boolean,
    kind text, payload bytea, timeout_ms bigint, version integer, min_reader integer, max_attempts smallint, codec smallint,
    priority smallint, extras text
) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
begin
    return query select * from @schema@.claim(at_ms, in_session, in_nonce, claim_queues, kinds, versions, at_once, ahead,
        suspects, lease_ms, @schema@.settle_all(@schema@.tick(at_ms), forget, queues, ids, epochs, nonces, lines, ranks, seqs,
            order_given, rulings, plain, afters, messages, panicked, outputs, dead, drafts, riding));
end
$windlass$;
