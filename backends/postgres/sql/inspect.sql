-- Looking without touching.

-- Everything that is stored of a job, in one snapshot.
create view @schema@.record as
select j.queue, j.id,
    case
        when d.id is not null then d.state
        when l.id is not null then @schema@.state_of(l.line, l.session)
        when j.fresh then case when p.nonce is null then 2 else 3 end
    end::smallint as state,
    j.kind, j.payload, j.timeout_ms, j.version, j.min_reader, j.max_attempts, j.codec, j.priority, j.extras,
    j.created_at, j.deadline,
    coalesce(d.attempts, l.attempts, 0::smallint) as attempts, coalesce(d.lost, l.lost, 0::smallint) as lost,
    coalesce(d.generation, l.generation, 0) as generation,
    coalesce(d.epoch, l.epoch, case when p.nonce is null then 0 else 1 end) as epoch,
    coalesce(l.line, 0::smallint) as line, l.rank, l.waits, l.why, coalesce(l.session, p.session) as session,
    coalesce(l.since, p.since) as since, coalesce(l.until, p.until) as until,
    coalesce(l.started, p.ahead_from is null or j.seq < p.ahead_from) as started, coalesce(l.cancel, false) as cancel,
    d.at, d.output, d.reason, d.dead_reason, d.superseded_by,
    x.error, x.panicked, x.percent, x.note, x.log
from @schema@.job j
left join @schema@.done d on d.queue = j.queue and d.id = j.id
left join @schema@.live l
    on l.queue = j.queue and l.line = j.line and l.rank = j.rank and l.seq = j.seq and l.id = j.id and d.id is null
left join lateral (
    select s.* from @schema@.span s where s.queue = j.queue and s.rank = j.rank and s.first <= j.seq
    order by s.first desc limit 1
) p on p.last >= j.seq and j.fresh and d.id is null and l.id is null
left join @schema@.detail x on x.queue = j.queue and x.id = j.id;

create function @schema@.get(at_ms bigint, q text, i uuid) returns setof @schema@.record
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
begin
    perform @schema@.tick(at_ms);
    return query select r.* from @schema@.record r where r.queue = q and r.id = i;
end
$windlass$;

-- The addresses of the next `bound` jobs after one, by id and queue: of one queue or of all.
create function @schema@.addresses(q text, after_id uuid, after_queue text, bound integer)
returns table (queue text, id uuid) language sql stable as $windlass$
    select p.queue, p.id
    from (select q as name where q is not null union all select n from @schema@.queue_names() n where q is null) names
    cross join lateral (
        select j.queue, j.id from @schema@.job j
        where j.queue = names.name and j.id >= coalesce(after_id, '00000000-0000-0000-0000-000000000000')
            and (after_id is null or (j.id, j.queue) > (after_id, after_queue))
        order by j.id limit bound
    ) p
    order by p.id, p.queue limit bound
$windlass$;

-- A page: looks at `bound` jobs after the given one and returns those that pass. `is_last` marks the last one looked at, which
-- is returned whether it passes or not. Without bitmaps, which have no order: each page would read and sort all that comes
-- after it.
create function @schema@.list(
    at_ms bigint, q text, states smallint[], of_kind text, tag text, after_id uuid, after_queue text, bound integer
) returns table (passes boolean, is_last boolean, looked bigint, rec @schema@.record)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off set jit = off as $windlass$
#variable_conflict use_column
begin
    perform @schema@.tick(at_ms);
    return query
    select * from (
        select (cardinality(states) = 0 or r.state = any (states)) and (of_kind is null or r.kind = of_kind)
                and (tag is null or coalesce(r.extras -> 'tags' ? tag, false)) as passes,
            row_number() over (order by a.id desc, a.queue desc) = 1 as is_last, count(*) over () as looked,
            r::@schema@.record as rec
        from @schema@.addresses(q, after_id, after_queue, bound) a
        -- One at a time, whatever the planner knows of the tables.
        cross join lateral (select b.* from @schema@.record b where b.queue = a.queue and b.id = a.id offset 0) r
    ) p where p.passes or p.is_last
    order by (p.rec).id, (p.rec).queue;
end
$windlass$;

-- All queues with their counts: totals, and what moved since.
create function @schema@.queues(at_ms bigint) returns table (queue text, paused boolean, counts bigint[])
language plpgsql set jit = off as $windlass$
#variable_conflict use_column
begin
    perform @schema@.tick(at_ms);
    return query
    with part as (
        select t.queue, t.state, t.n from @schema@.tally t
        union all select m.queue, m.came, m.n from @schema@.moved m
        union all select m.queue, m.gone, -m.n from @schema@.moved m
    ), total as (
        select p.queue, p.state, sum(p.n)::bigint as n from part p group by p.queue, p.state
    )
    select s.queue, coalesce(bool_or(p.paused), false),
        array(
            select coalesce((select t.n from total t where t.queue = s.queue and t.state = g), 0)
            from generate_series(0, 6) g order by g
        )
    from (select t.queue from total t union select p.queue from @schema@.pause p) s
    left join @schema@.pause p on p.queue = s.queue
    group by s.queue order by s.queue;
end
$windlass$;

-- How jobs ended; the state of those that have not.
create function @schema@.outcomes(at_ms bigint, queues text[], ids uuid[])
returns table (ord bigint, state smallint, codec smallint, output bytea, reason text, dead_reason smallint, error text,
    panicked boolean)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
#variable_conflict use_column
begin
    perform @schema@.tick(at_ms);
    return query
    select u.ord, coalesce(d.state, case when j.id is not null then 0 end::smallint), j.codec, d.output, d.reason,
        d.dead_reason, x.error, x.panicked
    from unnest(queues, ids) with ordinality u (queue, id, ord)
    left join @schema@.job j on j.queue = u.queue and j.id = u.id
    left join @schema@.done d on d.queue = j.queue and d.id = j.id
    left join @schema@.detail x on x.queue = d.queue and x.id = d.id
    order by u.ord;
end
$windlass$;

-- What there is to do for a session: 0 nothing, 1 work, 2 a cancellation to hear of. `due` is the next due time that the
-- caller knows of.
create function @schema@.peek(in_session uuid, queues text[], due bigint) returns integer
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $windlass$
declare
    q text;
begin
    delete from @schema@.control c where c.session = in_session;
    if found then
        return 2;
    end if;
    foreach q in array queues loop
        continue when exists (select from @schema@.pause p where p.queue = q and p.paused);
        if exists (select from @schema@.fresh_heads(q))
            or exists (select from @schema@.live l where l.queue = q and l.line = 0 and l.session is null)
        then
            return 1;
        end if;
        perform 1 from (
            select l.rank from @schema@.live l where l.queue = q and l.line = 3 order by l.rank limit 1
        ) n where due is null or n.rank < due;
        if found then
            return 1;
        end if;
    end loop;
    return 0;
end
$windlass$;
