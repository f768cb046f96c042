-- Upkeep: bounded rounds, by any worker at any time. What another sweep is at is passed over.

-- Takes back one lease that has expired; its row is locked. Returns the state that leads to.
create function @schema@.reclaim(r @schema@.live, now_ms bigint, forget integer) returns smallint
language plpgsql as $windlass$
declare
    was @schema@.live := r;
begin
    if r.cancel then
        return @schema@.finish(r, 5, now_ms, @schema@.take_reason(r.queue, r.id), null, null, null, forget);
    end if;
    if r.started then
        r.lost := r.lost + 1;
    end if;
    if r.lost >= 3 then
        return @schema@.finish(r, 6, now_ms, null, 2::smallint, null, null, forget);
    end if;
    r := @schema@.at_rest(r);
    r.flags := r.flags | 4;
    r.line := 1;
    r.lane := null;
    r.reader := null;
    perform @schema@.place_at(was, r);
    insert into @schema@.moved (n, gone, came, queue) values (1, 3, 2, r.queue);
    return 2;
end
$windlass$;

-- The row of `live` that a handle of a claim points to.
create function @schema@.line_of(handle bigint) returns smallint language sql immutable as $windlass$
    select (handle >> 60)::smallint
$windlass$;
create function @schema@.rank_of(handle bigint) returns bigint language sql immutable as $windlass$
    select (handle >> 56) & 15
$windlass$;
create function @schema@.seq_of(handle bigint) returns bigint language sql immutable as $windlass$
    select handle & 72057594037927935
$windlass$;

-- Takes back at most `bound` expired leases. `lease` says which rows a claim took; those that still run under it and were
-- extended are looked at again when they expire.
create function @schema@.reclaim_expired(
    bound integer, now_ms bigint, forget integer, out ready integer, out cancelled integer, out buried integer
) language plpgsql as $windlass$
declare
    g record;
    r @schema@.live;
    next_check bigint;
    left_over boolean;
begin
    ready := 0;
    cancelled := 0;
    buried := 0;
    for g in
        select l.ctid as at, l.* from @schema@.lease l where l.check_at <= now_ms order by l.check_at limit 1000
        for update skip locked
    loop
        left_over := false;
        for r in
            select l.* from unnest(g.handles) h
            join @schema@.live l on l.queue = g.queue and l.line = @schema@.line_of(h) and l.rank = @schema@.rank_of(h)
                and l.seq = @schema@.seq_of(h)
            where l.nonce = g.nonce and l.session = g.session and l.until <= now_ms
            for update of l skip locked
        loop
            if ready + cancelled + buried >= bound then
                left_over := true;
                exit;
            end if;
            case @schema@.reclaim(r, now_ms, forget)
                when 5 then cancelled := cancelled + 1;
                when 6 then buried := buried + 1;
                else ready := ready + 1;
            end case;
        end loop;
        exit when left_over;
        select min(l.until) into next_check from unnest(g.handles) h
            join @schema@.live l on l.queue = g.queue and l.line = @schema@.line_of(h) and l.rank = @schema@.rank_of(h)
                and l.seq = @schema@.seq_of(h)
            where l.nonce = g.nonce and l.session = g.session;
        if next_check is null then
            delete from @schema@.lease l where l.ctid = g.at;
        elsif next_check > now_ms then
            update @schema@.lease l set check_at = next_check where l.ctid = g.at;
        end if;
    end loop;
end
$windlass$;

-- Hands back what a session holds, of one claim or of all: at most `bound` jobs.
create function @schema@.hand_back(at_ms bigint, in_session uuid, in_nonce uuid, forget integer, bound integer)
returns integer language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
declare
    clock bigint := @schema@.tick(at_ms);
    g record;
    r @schema@.live;
    ids uuid[];
    n integer := 0;
begin
    for g in
        select s.* from @schema@.span s
        where s.session = in_session and (in_nonce is null or s.nonce = in_nonce) order by s.queue, s.rank, s.first
    loop
        exit when n >= bound;
        select array_agg(f.id) into ids from @schema@.running_in(g.queue, g.rank, g.first, g.last) f;
        if ids is not null then
            n := n + @schema@.materialise(g.queue, ids, null, false);
        end if;
    end loop;
    n := 0;
    for g in
        select l.* from @schema@.lease l
        where l.session = in_session and (in_nonce is null or l.nonce = in_nonce)
    loop
        for r in
            select l.* from unnest(g.handles) h
            join @schema@.live l on l.queue = g.queue and l.line = @schema@.line_of(h) and l.rank = @schema@.rank_of(h)
                and l.seq = @schema@.seq_of(h)
            where l.nonce = g.nonce and l.session = g.session
            for update of l
        loop
            exit when n >= bound;
            perform @schema@.release(r, clock, forget);
            n := n + 1;
        end loop;
        exit when n >= bound;
    end loop;
    return n;
end
$windlass$;

-- Forgets finished jobs whose rows of `done` are locked; their children that still wait are called off.
create function @schema@.forget(q text, ids uuid[], now_ms bigint, forgets integer) returns void
language plpgsql as $windlass$
declare
    orphans @schema@.orphaned[];
begin
    perform @schema@.hold_spans(q, ids);
    with gone as (
        delete from @schema@.done d using unnest(ids) u (id) where d.queue = q and d.id = u.id returning d.state, d.id
    ), unstored as (
        delete from @schema@.job j using gone g where j.queue = q and j.id = g.id
    ), undetailed as (
        delete from @schema@.detail x using gone g where x.queue = q and x.id = g.id
    )
    insert into @schema@.moved (n, gone, came, queue) select count(*), g.state, null, q from gone g group by g.state;
    with gone as (
        delete from @schema@.child c using unnest(ids) u (id) where c.parent_queue = q and c.parent = u.id
        returning c.queue, c.id, c.parent
    )
    select array_agg(row (g.queue, g.id, g.parent)::@schema@.orphaned) into orphans from gone g;
    if orphans is not null then
        perform @schema@.call_off(orphans, now_ms, forgets);
    end if;
end
$windlass$;

-- Forgets what is out of retention in one queue and state: at most `bound` jobs, the oldest ends first.
create function @schema@.prune(
    q text, of_state smallint, keep_count bigint, keep_ms bigint, bound integer, now_ms bigint, forgets integer
) returns integer language plpgsql as $windlass$
declare
    surplus bigint;
    ids uuid[];
begin
    if bound <= 0 then
        return 0;
    end if;
    -- The total is looked at first; where it is high, the index says exactly.
    if (select t.n from @schema@.tally t where t.queue = q and t.state = of_state) > keep_count then
        select d.seq into surplus from @schema@.done d where d.queue = q and d.state = of_state
            order by d.seq desc offset keep_count limit 1;
    end if;
    select array_agg(o.id) into ids from (
        select d.id, d.seq, d.at from @schema@.done d where d.queue = q and d.state = of_state
        order by d.seq limit bound for update skip locked
    ) o where o.seq <= surplus or o.at <= now_ms - keep_ms;
    if ids is null then
        return 0;
    end if;
    perform @schema@.forget(q, ids, now_ms, forgets);
    return cardinality(ids);
end
$windlass$;

-- Adds up what moved, by one sweep at a time.
create function @schema@.fold() returns void language plpgsql as $windlass$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('windlass fold @text@', 0)) then
        return;
    end if;
    with gone as (
        delete from @schema@.moved m where m.ctid = any (array(select f.ctid from @schema@.moved f limit 50000))
        returning m.queue, m.n, m.gone, m.came
    ), change as (
        select c.queue, c.state, sum(c.n) as n from (
            select g.queue, g.came as state, g.n from gone g
            union all
            select g.queue, g.gone, -g.n from gone g
        ) c where c.state is not null group by c.queue, c.state
    )
    insert into @schema@.tally as t (queue, state, n) select c.queue, c.state, c.n from change c order by 1, 2
    on conflict (queue, state) do update set n = t.n + excluded.n;
end
$windlass$;

-- The names of all queues that ever held a job.
create function @schema@.queue_names() returns setof text language sql stable as $windlass$
    select t.queue from @schema@.tally t union select m.queue from @schema@.moved m
$windlass$;

-- One round of upkeep. `counts` and `ages` say how many Completed, Cancelled and Dead jobs are kept, and for how long.
create function @schema@.sweep(
    at_ms bigint, bound integer, forgets integer, counts bigint[], ages bigint[],
    out promoted bigint, out reclaimed bigint, out cancelled bigint, out buried bigint, out pruned bigint, out more boolean
) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
#variable_conflict use_column
declare
    clock bigint := @schema@.tick(at_ms);
    q text;
    r @schema@.live;
    taken record;
    i integer;
    orphans @schema@.orphaned[];
begin
    promoted := 0;
    pruned := 0;
    more := false;
    perform @schema@.fold();
    with gone as (
        delete from @schema@.orphan o where o.ctid = any (
            array(select f.ctid from @schema@.orphan f limit bound for update skip locked)
        ) returning o.queue, o.id, o.parent
    )
    select array_agg(row (g.queue, g.id, g.parent)::@schema@.orphaned) into orphans from gone g;
    if orphans is not null then
        more := @schema@.call_off(orphans, clock, forgets, bound) > 0;
    end if;
    for q in select n from @schema@.queue_names() n order by n loop
        for r in
            select l.* from @schema@.live l where l.queue = q and l.line = 7 order by l.rank, l.seq limit bound
            for update skip locked
        loop
            perform @schema@.take_up(r, clock, forgets);
        end loop;
        promoted := promoted + @schema@.promote(q, (bound - promoted)::integer, clock);
    end loop;
    more := @schema@.lapse(bound, clock) or more;
    select * into taken from @schema@.reclaim_expired(bound, clock, forgets);
    reclaimed := taken.ready;
    cancelled := taken.cancelled;
    buried := taken.buried;
    for q in select n from @schema@.queue_names() n order by n loop
        for i in 1 .. 3 loop
            pruned := pruned
                + @schema@.prune(q, (3 + i)::smallint, counts[i], ages[i], (bound - pruned)::integer, clock, forgets);
        end loop;
    end loop;
    -- Windows of unique keys that have ended.
    delete from @schema@.key y where y.ctid = any (array(
        select e.ctid from @schema@.key e where e.until <= clock and e.next is null order by e.until limit bound
        for update skip locked
    ));
    more := more or promoted >= bound or reclaimed + cancelled + buried >= bound or pruned >= bound;
end
$windlass$;
