-- Settle: Running to whatever the worker says, if its lease still stands. Rulings: 0 complete, 1 retry, 2 snooze, 3 cancel,
-- 4 bury, 5 release. Answers: 0 to 6 the state it led to, 7 applied before, 8 lease lost.

-- Keeps the last error of a job.
create function @schema@.note_error(q text, i uuid, message text, panicked boolean) returns void language sql as $windlass$
    insert into @schema@.detail as x (queue, id, error, panicked) values (q, i, message, panicked)
    on conflict (queue, id) do update set error = excluded.error, panicked = excluded.panicked
$windlass$;

-- The reason why somebody wants a job called off; taken, so that it holds once.
create function @schema@.take_reason(q text, i uuid) returns text language plpgsql as $windlass$
declare
    why text;
begin
    select x.cancel_reason into why from @schema@.detail x where x.queue = q and x.id = i;
    update @schema@.detail x set cancel_reason = null where x.queue = q and x.id = i;
    return coalesce(why, '');
end
$windlass$;

-- Ready at once at its old place, whose row is locked; it keeps the place it holds under a limit.
create function @schema@.release(r @schema@.live, now_ms bigint, forget integer) returns smallint
language plpgsql as $windlass$
declare
    was @schema@.live := r;
begin
    if r.cancel then
        return @schema@.finish(r, 5, now_ms, @schema@.take_reason(r.queue, r.id), null, null, null, forget);
    end if;
    perform @schema@.place_at(was, @schema@.at_rest(r));
    insert into @schema@.moved (n, gone, came, queue) values (1, 3, 2, r.queue);
    return 2;
end
$windlass$;

-- Tells a repeat of a verdict that was applied from one whose lease is lost. `r` is the job's row, if it has one.
create function @schema@.refused(r @schema@.live, q text, i uuid, in_epoch integer, in_nonce uuid) returns smallint
language plpgsql as $windlass$
begin
    if r.id is not null then
        return case when r.session is null and r.epoch = in_epoch and r.settled_by = in_nonce then 7 else 8 end;
    end if;
    perform 1 from @schema@.done d where d.queue = q and d.id = i and d.epoch = in_epoch and d.settled_by = in_nonce;
    return case when found then 7 else 8 end;
end
$windlass$;

-- One verdict of any sort.
create function @schema@.settle_one(
    q text, i uuid, in_epoch integer, in_nonce uuid, ruling smallint, after_ms bigint, message text, panicked boolean,
    result bytea, dead smallint, now_ms bigint, forget integer
) returns smallint language plpgsql as $windlass$
declare
    r @schema@.live := @schema@.hold(q, i, true);
begin
    if r.id is null or r.session is null or r.epoch <> in_epoch or r.nonce <> in_nonce then
        return @schema@.refused(r, q, i, in_epoch, in_nonce);
    end if;
    r.settled_by := r.nonce;
    if ruling <> 5 then
        r.flags := r.flags & ~4;
    end if;
    if ruling not in (2, 5) then
        r.attempts := least(r.attempts + 1, 32767);
    end if;
    if ruling in (1, 4) then
        perform @schema@.note_error(q, i, message, panicked);
    end if;
    if ruling = 0 then
        return @schema@.finish(r, 4, now_ms, null, null, null, result, forget);
    elsif ruling = 3 then
        return @schema@.finish(r, 5, now_ms, message, null, null, null, forget);
    elsif ruling = 4 then
        return @schema@.finish(r, 6, now_ms, null, dead, null, null, forget);
    elsif ruling = 5 then
        return @schema@.release(r, now_ms, forget);
    elsif r.cancel then
        return @schema@.finish(r, 5, now_ms, @schema@.take_reason(q, i), null, null, null, forget);
    end if;
    return @schema@.readmit(r, @schema@.after(now_ms, after_ms), case ruling when 1 then 2 else 3 end, now_ms);
end
$windlass$;

-- The verdicts of one call: answers in the order given. `plain` marks completions that give rise to nothing and are the first
-- for their job; those of jobs without key and limit are one statement. `lines`, `ranks` and `seqs` are the lease's handle:
-- where the row stands (line 7 if the job was fresh), never believed without id, epoch and nonce. The caller sorts by them, so that rows are locked in
-- one order. `drafts` ride with the verdicts numbered `riding`. `mine` says whether the transaction is the caller's.
create function @schema@.settle_all(
    now_ms bigint, forget integer,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    order_given integer[], rulings smallint[], plain boolean[], afters bigint[], messages text[], panicked boolean[],
    outputs bytea[], dead smallint[], drafts @schema@.draft[], riding integer[], mine boolean
) returns smallint[] language plpgsql as $windlass$
#variable_conflict use_column
declare
    answers smallint[] := array_fill(8::smallint, array[cardinality(ids)]);
    was_fresh boolean;
    numbers bigint[];
    settled integer[];
    parents integer[];
    v record;
    d @schema@.draft;
    answer smallint;
    at integer;
begin
    if cardinality(ids) = 0 then
        return '{}';
    end if;
    was_fresh := 7 = any (lines);
    if true = any (plain) then
        numbers := array(select nextval('@literal@.entry') from generate_series(1, cardinality(ids)));
        if was_fresh and not mine then
            settled := @schema@.complete_spans(now_ms, forget, queues, ids, epochs, nonces, lines, ranks, seqs, order_given,
                plain, outputs, numbers);
        end if;
        if was_fresh and coalesce(cardinality(settled), 0) < (
            select count(*) from unnest(lines, plain) s (line, plain) where s.line = 7 and s.plain
        ) then
            settled := settled || @schema@.complete_fresh(now_ms, forget, queues, ids, epochs, nonces, lines, ranks, seqs,
                order_given, plain, outputs, numbers);
        end if;
    end if;
    if was_fresh and cardinality(settled) is distinct from cardinality(ids) then
        -- Where the rows of those stand, or will stand, that have one by now.
        lines := array(select u.line % 7 from unnest(lines) with ordinality u (line, n) order by u.n);
    end if;
    if true = any (plain) then
        if cardinality(settled) is distinct from cardinality(ids) then
            with said as materialized (
                select s.* from unnest(queues, ids, epochs, nonces, lines, ranks, seqs, order_given, plain, outputs)
                    as s (queue, id, epoch, nonce, line, rank, seq, ord, plain, output)
            ), gone as (
                delete from @schema@.live l using said s
                where s.plain and l.queue = s.queue and l.line = s.line and l.rank = s.rank and l.seq = s.seq and l.id = s.id
                    and l.session is not null and l.epoch = s.epoch and l.nonce = s.nonce and l.flags & 3 = 0
                returning s.ord, s.output, l.queue, l.id, l.epoch, l.generation, l.nonce, l.attempts, l.lost
            ), ended as (
                insert into @schema@.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, queue, output)
                select numbers[g.ord], now_ms, g.id, g.nonce, g.epoch, g.generation, 4,
                    least(g.attempts + 1, 32767), g.lost, g.queue, g.output
                from gone g where forget & 1 = 0
            ), counted as (
                insert into @schema@.moved (n, gone, came, queue)
                select count(*), 3, case when forget & 1 = 0 then 4 end, g.queue from gone g group by g.queue
            )
            select settled || array_agg(g.ord order by g.ord) into settled from gone g;
        end if;
        if settled is not null then
            if cardinality(settled) = cardinality(ids) then
                answers := array_fill(4::smallint, array[cardinality(ids)]);
            else
                foreach at in array settled loop
                    answers[at] := 4;
                end loop;
            end if;
            -- A statement of its own: a child that was bound while the delete waited for it is seen here.
            perform 1 from @schema@.child c limit 1;
            if found then
                select array_agg(distinct s.ord) into parents
                from unnest(queues, ids, order_given) s (queue, id, ord)
                join @schema@.child c on c.parent_queue = s.queue and c.parent = s.id
                where s.ord = any (settled);
            end if;
            if forget & 1 <> 0 then
                delete from @schema@.job j using unnest(queues, ids, order_given) s (queue, id, ord)
                    where s.ord = any (settled) and j.queue = s.queue and j.id = s.id;
                delete from @schema@.detail x using unnest(queues, ids, order_given) s (queue, id, ord)
                    where s.ord = any (settled) and x.queue = s.queue and x.id = s.id;
            end if;
        end if;
        if cardinality(settled) = cardinality(ids) and parents is null then
            return answers;
        end if;
    end if;
    if was_fresh then
        for v in
            select s.queue, array_agg(s.id order by s.rank, s.seq) as ids, array_agg(s.nonce order by s.rank, s.seq) as nonces
            from unnest(queues, ids, nonces, ranks, seqs, order_given) s (queue, id, nonce, rank, seq, ord)
            where answers[s.ord] = 8 group by s.queue order by s.queue
        loop
            perform @schema@.materialise(v.queue, v.ids, v.nonces, false);
        end loop;
    end if;
    -- In one order first, so that two calls over the same keys and rows cannot wait for each other.
    for v in
        select j.queue, j.id
        from unnest(queues, lines, ranks, seqs) s (queue, line, rank, seq)
        join @schema@.live l on l.queue = s.queue and l.line = s.line and l.rank = s.rank and l.seq = s.seq
        join @schema@.job j on j.queue = l.queue and j.id = l.id
        where l.flags & 1 <> 0 order by j.queue, j.extras -> 'unique' ->> 'key'
    loop
        perform @schema@.lock_own_key(v.queue, v.id);
    end loop;
    perform 1 from unnest(queues, lines, ranks, seqs) s (queue, line, rank, seq)
        join @schema@.live l on l.queue = s.queue and l.line = s.line and l.rank = s.rank and l.seq = s.seq
        for update of l;
    for v in
        select s.* from unnest(queues, ids, epochs, nonces, order_given, rulings, afters, messages, panicked, outputs, dead)
            as s (queue, id, epoch, nonce, ord, ruling, after_ms, message, panicked, output, dead)
        where answers[s.ord] = 8 or s.ord = any (parents) order by s.ord
    loop
        -- What one verdict lets in enters before what the next one does.
        if answers[v.ord] = 4 then
            perform @schema@.tell_children(v.queue, v.id, 4::smallint, now_ms);
            continue;
        end if;
        answer := @schema@.settle_one(v.queue, v.id, v.epoch, v.nonce, v.ruling, v.after_ms, v.message, v.panicked, v.output,
            v.dead, now_ms, forget);
        answers[v.ord] := answer;
        if answer < 7 and v.ord = any (riding) then
            for at in select u.ord from unnest(riding) with ordinality u (verdict, ord) where u.verdict = v.ord loop
                d := drafts[at];
                perform @schema@.push_one(d, now_ms, forget);
            end loop;
        end if;
    end loop;
    return answers;
end
$windlass$;

-- Jobs that ride with verdicts, as they come in.
create function @schema@.drafts(
    ids uuid[], queues text[], kinds text[], payloads bytea[], timeouts bigint[], versions integer[], readers integer[],
    max_attempts smallint[], codecs smallint[], priorities smallint[], flags smallint[], afters bigint[], dues bigint[],
    extras text[]
) returns @schema@.draft[] language sql immutable as $windlass$
    select coalesce(array_agg(row (i.id, i.queue, i.kind, i.payload, i.timeout_ms, i.version, i.min_reader, i.max_attempts,
        i.codec, i.priority, i.flags, i.after_ms, i.due_at, i.extras::jsonb)::@schema@.draft order by i.ord), '{}')
    from unnest(ids, queues, kinds, payloads, timeouts, versions, readers, max_attempts, codecs, priorities, flags, afters,
        dues, extras) with ordinality
        as i (id, queue, kind, payload, timeout_ms, version, min_reader, max_attempts, codec, priority, flags, after_ms,
            due_at, extras, ord)
$windlass$;

create function @schema@.settle(
    at_ms bigint, forget integer,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    order_given integer[], rulings smallint[], plain boolean[], afters bigint[], messages text[], panicked boolean[],
    outputs bytea[], dead smallint[], riding integer[], drafts @schema@.draft[], mine boolean
) returns smallint[] language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
begin
    return @schema@.settle_all(@schema@.tick(at_ms), forget, queues, ids, epochs, nonces, lines, ranks, seqs, order_given,
        rulings, plain, afters, messages, panicked, outputs, dead, drafts, riding, mine);
end
$windlass$;

-- The beat of fresh jobs: their spans last longer. What runs in a span and is not named gets a row in `live`, where it
-- lapses in its time, unless somebody is just ending it; and so do those named if some were begun out of order. Returns the
-- numbers of those that a span still covers.
create function @schema@.extend_fresh(
    clock bigint, in_session uuid, lease_ms bigint,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    begun boolean[], out ord integer
) returns setof integer language plpgsql as $windlass$
#variable_conflict use_column
declare
    g record;
    s record;
    named uuid[];
    running uuid[];
    others uuid[];
    ahead bigint;
    late bigint;
begin
    for g in
        select distinct f.queue, f.rank, p.first, p.last
        from unnest(queues, lines, ranks, seqs, nonces, epochs) f (queue, line, rank, seq, nonce, epoch)
        cross join lateral (
            select p.* from @schema@.span p where p.queue = f.queue and p.rank = f.rank and p.first <= f.seq
            order by p.first desc limit 1
        ) p
        where f.line = 7 and f.epoch = 1 and p.last >= f.seq and p.nonce = f.nonce and p.session = in_session
        order by 1, 2, 3
    loop
        select p.* into s from @schema@.span p
            where p.queue = g.queue and p.rank = g.rank and p.first = g.first and p.session = in_session for no key update;
        continue when not found;
        select array_agg(r.id) into running from @schema@.running_in(g.queue, g.rank, g.first, g.last) r;
        select array_agg(f.id), min(f.seq) filter (where not f.begun and f.seq >= s.ahead_from),
            max(f.seq) filter (where f.begun and f.seq >= s.ahead_from)
        into named, ahead, late
        from unnest(queues, ids, lines, ranks, seqs, nonces, epochs, begun) f (queue, id, line, rank, seq, nonce, epoch, begun)
        where f.queue = g.queue and f.line = 7 and f.rank = g.rank and f.seq between g.first and g.last
            and f.nonce = s.nonce and f.epoch = 1 and f.id = any (running);
        continue when named is null;
        if late > ahead then
            perform @schema@.materialise(g.queue, named, null, false);
            continue;
        end if;
        if cardinality(named) < cardinality(running) then
            others := array(select u from unnest(running) u where u <> all (named));
            perform @schema@.materialise(g.queue, others, null, true);
        end if;
        update @schema@.span p
        set until = greatest(p.until, @schema@.after(clock, lease_ms)),
            ahead_from = case when late is null then p.ahead_from else ahead end
        where p.queue = g.queue and p.rank = g.rank and p.first = g.first;
        return query
            select f.ord::integer
            from unnest(queues, ids, lines, ranks) with ordinality f (queue, id, line, rank, ord)
            where f.queue = g.queue and f.line = 7 and f.rank = g.rank and f.id = any (named);
    end loop;
end
$windlass$;

-- The beat: the named leases last for another `lease_ms`. Answers by number: 0 kept, 1 a cancellation is asked for; what
-- does not appear is lost.
create function @schema@.extend(
    at_ms bigint, in_session uuid, lease_ms bigint,
    queues text[], ids uuid[], epochs integer[], nonces uuid[], lines smallint[], ranks bigint[], seqs bigint[],
    begun boolean[], out ord integer, out answer smallint
) returns setof record language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
#variable_conflict use_column
declare
    clock bigint := @schema@.tick(at_ms);
begin
    delete from @schema@.control c where c.session = in_session;
    if 7 = any (lines) then
        return query select f.ord, 0::smallint
            from @schema@.extend_fresh(clock, in_session, lease_ms, queues, ids, epochs, nonces, lines, ranks, seqs, begun) f;
    end if;
    return query
    update @schema@.live l
    set until = greatest(l.until, @schema@.after(clock, lease_ms)), started = l.started or s.begun
    from unnest(queues, ids, epochs, nonces, lines, ranks, seqs, begun) with ordinality
        s (queue, id, epoch, nonce, line, rank, seq, begun, ord)
    where l.queue = s.queue and l.line = s.line % 7 and l.rank = s.rank and l.seq = s.seq and l.id = s.id
        and l.session = in_session and l.epoch = s.epoch and l.nonce = s.nonce
    returning s.ord::integer, case when l.cancel then 1 else 0 end::smallint;
end
$windlass$;

-- Progress and log lines of one running job. False when the lease does not stand.
create function @schema@.annotate(
    at_ms bigint, q text, i uuid, in_epoch integer, in_nonce uuid, in_percent smallint, in_note text, lines text[]
) returns boolean language plpgsql as $windlass$
declare
    clock bigint := @schema@.tick(at_ms);
    r @schema@.live;
begin
    perform @schema@.materialise(q, array[i], array[in_nonce], false);
    select l.* into r from @schema@.job j join @schema@.live l
        on l.queue = j.queue and l.line = j.line and l.rank = j.rank and l.seq = j.seq and l.id = j.id
    where j.queue = q and j.id = i and l.session is not null and l.epoch = in_epoch and l.nonce = in_nonce
    for no key update of l;
    if not found then
        return false;
    end if;
    insert into @schema@.detail (queue, id) values (q, i) on conflict do nothing;
    update @schema@.detail x
    set percent = coalesce(in_percent, x.percent), note = case when in_percent is null then x.note else in_note end,
        log = case when cardinality(lines) = 0 then x.log else (
            select jsonb_agg(e.line order by e.n) from (
                select u.line, u.n from (
                    select y.line, y.n from jsonb_array_elements(coalesce(x.log, '[]')) with ordinality y (line, n)
                    union all
                    select jsonb_build_array(clock, t.line), 1000 + t.n from unnest(lines) with ordinality t (line, n)
                ) u order by u.n desc limit 100
            ) e
        ) end
    where x.queue = q and x.id = i;
    return true;
end
$windlass$;
