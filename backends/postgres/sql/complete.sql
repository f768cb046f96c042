-- The completion of fresh jobs: the way that most jobs go, without a row in `live`.

-- Completes the fresh jobs among these whose lease stands and to which nothing unusual happened, in a transaction of the
-- engine's own: one row of `done` each, and no lock but one on each span (`sql/fresh.sql`). A span is held by nobody else for
-- longer than a verb takes. Returns their numbers; null when one of them has ended before, and then none of them was.
create function @schema@.complete_spans(
    now_ms bigint, forget integer,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    order_given integer[], plain boolean[], outputs bytea[], numbers bigint[]
) returns integer[] language plpgsql as $windlass$
#variable_conflict use_column
declare
    g record;
    p record;
    has_rows boolean;
    n integer;
    part integer[];
    settled integer[] := '{}';
begin
    for g in
        -- One claim has one span of a queue and rank. They are sorted by place, so those of a span stand together.
        select s.queue, s.rank, s.nonce, count(*) as size, min(s.n) as from_n, max(s.n) as to_n,
            min(s.seq) as low, max(s.seq) as high
        from unnest(queues, epochs, nonces, lines, ranks, seqs, plain) with ordinality
            s (queue, epoch, nonce, line, rank, seq, plain, n)
        where s.line = 7 and s.plain and s.epoch = 1
        group by s.queue, s.rank, s.nonce order by from_n
    loop
        select s.last, s.nonce into p from @schema@.span s
            where s.queue = g.queue and s.rank = g.rank and s.first <= g.low
            order by s.first desc limit 1 for key share;
        continue when not found or p.nonce <> g.nonce or p.last < g.high;
        -- Statements of their own: they see what was done before the span was locked.
        has_rows := exists (
            select from @schema@.live l
            where l.queue = g.queue and l.line = 0 and l.rank = g.rank and l.seq between g.low and g.high
        );
        if forget & 1 <> 0 then
            with found as materialized (
                select s.ord, j.at
                from unnest(ids[g.from_n:g.to_n], epochs[g.from_n:g.to_n], nonces[g.from_n:g.to_n], lines[g.from_n:g.to_n],
                    seqs[g.from_n:g.to_n], order_given[g.from_n:g.to_n], plain[g.from_n:g.to_n])
                    s (id, epoch, nonce, line, seq, ord, plain)
                cross join lateral (
                    select b.id, b.ctid as at from @schema@.job b
                    where b.queue = g.queue and b.rank = g.rank and b.seq = s.seq and b.fresh limit 1
                ) j
                left join lateral (
                    select l.id from @schema@.live l
                    where has_rows and l.queue = g.queue and l.line = 0 and l.rank = g.rank and l.seq = s.seq and l.id = s.id
                    limit 1
                ) l on true
                where s.line = 7 and s.plain and s.epoch = 1 and s.nonce = g.nonce and j.id = s.id and l.id is null
            ), gone as (
                delete from @schema@.job j using found f where j.ctid = f.at returning f.ord
            )
            select array_agg(g.ord) into part from gone g;
            n := coalesce(cardinality(part), 0);
        else
            insert into @schema@.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, queue, output)
            select numbers[s.ord], now_ms, j.id, g.nonce, 1, 0, 4, 1, 0, g.queue, s.output
            from unnest(ids[g.from_n:g.to_n], epochs[g.from_n:g.to_n], nonces[g.from_n:g.to_n], lines[g.from_n:g.to_n],
                seqs[g.from_n:g.to_n], order_given[g.from_n:g.to_n], plain[g.from_n:g.to_n], outputs[g.from_n:g.to_n])
                s (id, epoch, nonce, line, seq, ord, plain, output)
            cross join lateral (
                select b.id from @schema@.job b where b.queue = g.queue and b.rank = g.rank and b.seq = s.seq and b.fresh limit 1
            ) j
            left join lateral (
                select l.id from @schema@.live l
                where has_rows and l.queue = g.queue and l.line = 0 and l.rank = g.rank and l.seq = s.seq and l.id = s.id
                limit 1
            ) l on true
            where s.line = 7 and s.plain and s.epoch = 1 and s.nonce = g.nonce and j.id = s.id and l.id is null;
            get diagnostics n = row_count;
            if n = g.size and g.to_n - g.from_n + 1 = n then
                part := order_given[g.from_n:g.to_n];
            else
                select array_agg(s.ord) into part
                from unnest(ids[g.from_n:g.to_n], order_given[g.from_n:g.to_n]) s (id, ord)
                cross join lateral (
                    select d.seq from @schema@.done d where d.id = s.id and d.queue = g.queue limit 1
                ) d
                where d.seq = numbers[s.ord];
            end if;
        end if;
        if n > 0 then
            settled := settled || part;
            insert into @schema@.moved (n, gone, came, queue)
            values (n, 3, case when forget & 1 = 0 then 4 end, g.queue);
        end if;
    end loop;
    return settled;
exception when unique_violation then
    return null;
end
$windlass$;

-- Completions as most of them come: of fresh jobs of one queue and rank, in order of place, in a transaction of the engine's
-- own. All of them or none: false when one of them is not as it should be or has children, and then nothing was done. `ends` says
-- up to which of them each nonce goes. The jobs of a span are read as one stretch and matched by a hash: a probe for each costs
-- three times as much. Where nothing is kept the jobs themselves go, and a row of `job` can be deleted once.
create function @schema@.complete_alike(
    at_ms bigint, forget integer, q text, of_rank bigint, nonces uuid[], ends integer[], ids uuid[], seqs bigint[],
    outputs bytea[]
) returns boolean language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off as $windlass$
declare
    now_ms bigint := @schema@.tick(at_ms);
    from_n integer := 1;
    to_n integer;
    p record;
    n integer;
begin
    for g in 1 .. cardinality(nonces) loop
        to_n := ends[g];
        select s.last, s.nonce into p from @schema@.span s
            where s.queue = q and s.rank = of_rank and s.first <= seqs[from_n] order by s.first desc limit 1 for key share;
        if not found or p.nonce <> nonces[g] or p.last < seqs[to_n] then
            raise exception using errcode = 'WL010';
        end if;
        -- Statements of their own: they see what was done before the span was locked.
        perform 1 from @schema@.live l
            where l.queue = q and l.line = 0 and l.rank = of_rank and l.seq between seqs[from_n] and seqs[to_n] limit 1;
        if found then
            raise exception using errcode = 'WL010';
        end if;
        if forget & 1 <> 0 then
            delete from @schema@.job j using unnest(ids[from_n:to_n], seqs[from_n:to_n]) s (id, seq)
            where j.queue = q and j.rank = of_rank and j.fresh and j.seq >= seqs[from_n] and j.seq <= seqs[to_n]
                and j.seq = s.seq and j.id = s.id;
            get diagnostics n = row_count;
        else
            select count(*) into n
            from unnest(ids[from_n:to_n], seqs[from_n:to_n]) s (id, seq)
            join (
                select j.id, j.seq from @schema@.job j
                where j.queue = q and j.rank = of_rank and j.fresh and j.seq >= seqs[from_n] and j.seq <= seqs[to_n]
            ) j on j.seq = s.seq and j.id = s.id;
        end if;
        if n <> to_n - from_n + 1 then
            raise exception using errcode = 'WL010';
        end if;
        if forget & 1 = 0 then
            insert into @schema@.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, queue, output)
            select nextval('@literal@.entry'), now_ms, s.id, nonces[g], 1, 0, 4, 1, 0, q, s.output
            from unnest(ids[from_n:to_n], outputs[from_n:to_n]) s (id, output);
        end if;
        from_n := to_n + 1;
    end loop;
    insert into @schema@.moved (n, gone, came, queue)
        values (cardinality(ids), 3, case when forget & 1 = 0 then 4 end, q);
    -- A statement of its own: a child that was bound before is seen here.
    perform 1 from @schema@.child c limit 1;
    if found and exists (select from @schema@.child c where c.parent_queue = q and c.parent = any (ids)) then
        raise exception using errcode = 'WL010';
    end if;
    return true;
exception when unique_violation or sqlstate 'WL010' then
    return false;
end
$windlass$;

-- As `complete_spans`, with a lock on each job's row instead: for the transactions of others, which may take their time, and
-- where one of the jobs has ended before.
create function @schema@.complete_fresh(
    now_ms bigint, forget integer,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    order_given integer[], plain boolean[], outputs bytea[], numbers bigint[]
) returns integer[] language plpgsql as $windlass$
#variable_conflict use_column
declare
    locked integer[];
    settled integer[];
    has_rows boolean;
begin
    select array_agg(k.n) into locked from (
        select s.n
        from unnest(queues, ids, lines, ranks, seqs, plain) with ordinality s (queue, id, line, rank, seq, plain, n)
        join @schema@.job j on j.queue = s.queue and j.rank = s.rank and j.seq = s.seq and j.id = s.id and j.fresh
        where s.line = 7 and s.plain
        for no key update of j
    ) k;
    if locked is null then
        return null;
    end if;
    -- Statements of their own: they see what was done to a job while its row was waited for.
    has_rows := exists (
        select from (
            select s.queue, s.rank, min(s.seq) as low, max(s.seq) as high
            from unnest(queues, ranks, seqs, lines) s (queue, rank, seq, line) where s.line = 7 group by s.queue, s.rank
        ) b
        join @schema@.live l on l.queue = b.queue and l.line = 0 and l.rank = b.rank and l.seq between b.low and b.high
    );
    with good as materialized (
        select s.*
        from unnest(locked) k (n)
        cross join lateral (
            select queues[k.n] as queue, ids[k.n] as id, epochs[k.n] as epoch, nonces[k.n] as nonce, ranks[k.n] as rank,
                seqs[k.n] as seq, order_given[k.n] as ord, outputs[k.n] as output
        ) s
        cross join lateral (
            select p.last, p.nonce from @schema@.span p where p.queue = s.queue and p.rank = s.rank and p.first <= s.seq
            order by p.first desc limit 1
        ) p
        left join lateral (select d.id from @schema@.done d where d.id = s.id and d.queue = s.queue limit 1) d on true
        left join lateral (
            select l.id from @schema@.live l
            where has_rows and l.queue = s.queue and l.line = 0 and l.rank = s.rank and l.seq = s.seq and l.id = s.id limit 1
        ) l on true
        where s.epoch = 1 and p.last >= s.seq and p.nonce = s.nonce and d.id is null and l.id is null
    ), ended as (
        insert into @schema@.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, queue, output)
        select numbers[g.ord], now_ms, g.id, g.nonce, 1, 0, 4, 1, 0, g.queue, g.output from good g where forget & 1 = 0
        -- Who holds the span may be completing the same job.
        on conflict do nothing returning id, queue
    ), kept as (
        select g.* from good g where forget & 1 <> 0 or (g.id, g.queue) in (select e.id, e.queue from ended e)
    ), counted as (
        insert into @schema@.moved (n, gone, came, queue)
        select count(*), 3, case when forget & 1 = 0 then 4 end, k.queue from kept k group by k.queue
    )
    select array_agg(k.ord) into settled from kept k;
    return settled;
end
$windlass$;
