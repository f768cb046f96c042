-- Push: new jobs into storage. Answers: 0 Inserted, 1 SameId, 2 Conflict, 3 Superseded; the last two name the other job.

-- When a job is due.
create function @schema@.due_of(d @schema@.draft, now_ms bigint) returns bigint language sql immutable as $windlass$
    select case when d.after_ms is not null then @schema@.after(now_ms, d.after_ms) else coalesce(d.due_at, now_ms) end
$windlass$;

-- The instant after which a job is not wanted.
create function @schema@.deadline_of(extras jsonb, now_ms bigint) returns bigint language sql immutable as $windlass$
    select case
        when extras is null or not extras ? 'deadline' then null
        when extras -> 'deadline' ? 'after_ns' then
            @schema@.after(now_ms, ceil((extras -> 'deadline' ->> 'after_ns')::numeric / 1000000)::bigint)
        else coalesce((extras -> 'deadline' ->> 'at')::bigint, now_ms)
    end
$windlass$;

-- Counts the parents that a new job waits for. A parent that is not stored counts as one that failed. Returns the new
-- count and a parent whose failure calls the job off.
create function @schema@.bind_parents(q text, i uuid, out waits integer, out failed uuid)
language plpgsql as $windlass$
declare
    x jsonb;
    policy text;
    p record;
    state smallint;
begin
    waits := 0;
    select j.extras, coalesce(j.extras ->> 'on_parent_failure', 'cancel') into strict x, policy
        from @schema@.job j where j.queue = q and j.id = i;
    for p in
        select e.parent ->> 0 as queue, (e.parent ->> 1)::uuid as id
        from jsonb_array_elements(x -> 'parents') with ordinality e (parent, n)
        group by 1, 2 order by max(e.n)
    loop
        -- Locked against its end, and against being forgotten: either would miss the child that is bound here.
        perform @schema@.lock_parent(p.queue, p.id);
        state := @schema@.state_at(p.queue, p.id);
        if state = 4 or ((state is null or state > 4) and policy = 'ignore') then
            continue;
        elsif state is null or state = 5 or (state = 6 and policy <> 'wait') then
            failed := p.id;
        else
            insert into @schema@.child (parent_queue, parent, seq, queue, id)
                values (p.queue, p.id, nextval('@literal@.entry'), q, i);
            waits := waits + 1;
        end if;
    end loop;
end
$windlass$;

-- Locks a job's row in `live` or `done` so that it cannot leave it. Claims and beats are not held up. A fresh job is given its
-- row first: one that somebody waits for is not fresh, so a completion of fresh jobs has nobody to tell.
create function @schema@.lock_parent(q text, i uuid) returns void language plpgsql as $windlass$
declare
    is_fresh boolean;
begin
    for attempt in 1 .. 1000 loop
        perform 1 from @schema@.job j
            join @schema@.live l
                on l.queue = j.queue and l.line = j.line and l.rank = j.rank and l.seq = j.seq and l.id = j.id
            where j.queue = q and j.id = i for key share of l;
        exit when found;
        perform 1 from @schema@.done d where d.queue = q and d.id = i for key share;
        exit when found;
        select j.fresh into is_fresh from @schema@.job j where j.queue = q and j.id = i;
        exit when not found;
        if is_fresh and @schema@.materialise(q, array[i], null, false) = 0 then
            perform @schema@.set_out(q, i);
        end if;
    end loop;
end
$windlass$;

-- Stores what a job is, its pointer still nowhere. False when the id is stored already.
create function @schema@.store(d @schema@.draft, now_ms bigint) returns boolean language plpgsql as $windlass$
begin
    insert into @schema@.job (seq, rank, created_at, deadline, id, timeout_ms, version, min_reader, max_attempts, line,
        codec, priority, fresh, queue, kind, payload, extras)
    values (0, 0, now_ms, @schema@.deadline_of(d.extras, now_ms), d.id, d.timeout_ms, d.version, d.min_reader,
        d.max_attempts, -1, d.codec, d.priority, false, d.queue, d.kind, d.payload, d.extras)
    on conflict do nothing;
    return found;
end
$windlass$;

-- A row of `live` for a new job, in no line yet.
create function @schema@.new_row(d @schema@.draft) returns @schema@.live language plpgsql as $windlass$
declare
    r @schema@.live;
begin
    r.id := d.id;
    r.queue := d.queue;
    r.flags := d.flags & 15;
    r.epoch := 0;
    r.generation := 0;
    r.waits := 0;
    r.attempts := 0;
    r.lost := 0;
    return r;
end
$windlass$;

-- What a push of a job with this key would meet. Needs the key's row locked, or looked at within a transaction of the
-- caller's. plan: 0 insert, 2 conflict, 3 supersede the holder, 4 supersede the one behind, 5 wait behind.
create function @schema@.plan(y @schema@.key, q text, policy text, now_ms bigint, out plan integer, out other uuid)
language plpgsql as $windlass$
declare
    state smallint;
begin
    if y.key is null or @schema@.is_free(y, now_ms) then
        plan := 0;
        return;
    end if;
    plan := 2;
    other := y.holder;
    state := @schema@.state_at(q, y.holder);
    if policy = 'supersede' and y.next is not null then
        plan := 4;
        other := y.next;
    elsif policy = 'supersede' and state < 3 then
        plan := 3;
    elsif policy = 'queue_one' and y.next is not null then
        other := y.next;
    elsif policy = 'queue_one' and state = 3 then
        plan := 5;
        other := null;
    end if;
end
$windlass$;

-- Blocks a job (whose row is given) behind the running holder of its unique key.
create function @schema@.wait_behind(r @schema@.live, due_at bigint, fresh boolean) returns void
language plpgsql as $windlass$
declare
    was @schema@.live := r;
begin
    r.seq := nextval('@literal@.entry');
    r.line := 6;
    r.due := due_at;
    select 9 - j.priority into strict r.rank from @schema@.job j where j.queue = r.queue and j.id = r.id;
    update @schema@.key y set next = r.id from @schema@.job j
        where j.queue = r.queue and j.id = r.id and y.queue = r.queue and y.key = j.extras -> 'unique' ->> 'key';
    if fresh then
        insert into @schema@.live values (r.*);
        update @schema@.job j set line = r.line, rank = r.rank, seq = r.seq, fresh = false
            where j.queue = r.queue and j.id = r.id;
        insert into @schema@.moved (n, gone, came, queue) values (1, null, 0, r.queue);
    else
        perform @schema@.place_at(was, r);
    end if;
end
$windlass$;

-- Stores a job as Blocked and to be looked at by the next sweep.
create function @schema@.put_off(r @schema@.live, due_at bigint) returns void language plpgsql as $windlass$
begin
    r.seq := nextval('@literal@.entry');
    r.rank := 0;
    r.line := 7;
    r.due := due_at;
    insert into @schema@.live values (r.*);
    update @schema@.job j set line = r.line, rank = r.rank, seq = r.seq, fresh = false
        where j.queue = r.queue and j.id = r.id;
    insert into @schema@.moved (n, gone, came, queue) values (1, null, 0, r.queue);
end
$windlass$;

-- Pushes one valid job with a key, a limit or parents. Its key's row is locked here unless it already is.
create function @schema@.push_one(
    d @schema@.draft, now_ms bigint, forget integer, out answer smallint, out other uuid
) language plpgsql as $windlass$
declare
    policy text := d.extras -> 'unique' ->> 'on_conflict';
    plan integer := 0;
    met uuid;
    failed uuid;
    old @schema@.live;
    r @schema@.live;
    due_at bigint := @schema@.due_of(d, now_ms);
begin
    answer := 1;
    perform 1 from @schema@.job j where j.queue = d.queue and j.id = d.id;
    if found then
        return;
    end if;
    if policy is not null then
        select p.plan, p.other into plan, met
            from @schema@.plan(@schema@.lock_key(d.queue, d.extras -> 'unique' ->> 'key'), d.queue, policy, now_ms) p;
        if plan in (3, 4) then
            old := @schema@.hold(d.queue, met);
            -- A claim came first.
            if old.session is not null then
                plan := 2;
            end if;
        end if;
        if plan = 2 then
            answer := 2;
            other := met;
            return;
        end if;
    end if;
    if not @schema@.store(d, now_ms) then
        return;
    end if;
    answer := 0;
    if old.id is not null then
        answer := 3;
        other := old.id;
        perform @schema@.finish(old, 5, now_ms, 'superseded by ' || d.id, null, d.id, null, forget);
    end if;
    r := @schema@.new_row(d);
    if d.extras ? 'parents' then
        select b.waits, b.failed into r.waits, failed from @schema@.bind_parents(d.queue, d.id) b;
    end if;
    if plan in (4, 5) then
        perform @schema@.wait_behind(r, due_at, true);
    else
        if policy is not null then
            perform @schema@.hold_key(d.queue, d.id);
        end if;
        perform @schema@.admit(r, due_at, 1, now_ms, null, true);
    end if;
    if failed is not null then
        perform @schema@.finish(@schema@.hold(d.queue, d.id), 5, now_ms,
            'its parent ' || failed || ' did not complete', null, null, null, forget);
    end if;
end
$windlass$;

-- As `push_one`, within a caller's transaction: locks no row that a worker may need before that transaction ends. Jobs with
-- a limit or parents, and those that wait behind a holder, are put off to the next sweep.
create function @schema@.push_one_in(
    d @schema@.draft, now_ms bigint, forget integer, out answer smallint, out other uuid
) language plpgsql as $windlass$
declare
    policy text := d.extras -> 'unique' ->> 'on_conflict';
    k text := d.extras -> 'unique' ->> 'key';
    y @schema@.key;
    plan integer := 0;
    met uuid;
    old @schema@.live;
    due_at bigint := @schema@.due_of(d, now_ms);
    later boolean := d.flags & 2 <> 0 or coalesce(d.extras ? 'parents', false);
begin
    answer := 1;
    perform 1 from @schema@.job j where j.queue = d.queue and j.id = d.id;
    if found then
        return;
    end if;
    if policy is not null then
        loop
            -- Waits for another transaction only if that one is about to take the same key for a job of its own.
            insert into @schema@.key (queue, key, holder) values (d.queue, k, d.id) on conflict do nothing;
            exit when found;
            select * into y from @schema@.key e where e.queue = d.queue and e.key = k;
            continue when not found;
            select p.plan, p.other into plan, met from @schema@.plan(y, d.queue, policy, now_ms) p;
            if plan = 0 then
                update @schema@.key e set holder = d.id, until = null, next = null
                    where e.queue = d.queue and e.key = k and e.holder is not distinct from y.holder
                        and @schema@.is_free(e, now_ms);
                exit when found;
                continue;
            elsif plan = 3 then
                old := @schema@.hold(d.queue, met);
                if old.id is null or old.session is not null then
                    old := null;
                    continue;
                end if;
                exit;
            elsif plan in (4, 5) then
                later := true;
                exit;
            end if;
            answer := 2;
            other := met;
            return;
        end loop;
    end if;
    if not @schema@.store(d, now_ms) then
        delete from @schema@.key e where e.queue = d.queue and e.key = k and e.holder = d.id;
        return;
    end if;
    answer := 0;
    if old.id is not null then
        answer := 3;
        other := old.id;
        perform @schema@.finish(old, 5, now_ms, 'superseded by ' || d.id, null, d.id, null, forget);
    end if;
    if policy is not null and (old.id is not null or plan = 0) then
        perform @schema@.hold_key(d.queue, d.id);
    end if;
    if later then
        perform @schema@.put_off(@schema@.new_row(d), due_at);
    else
        perform @schema@.admit(@schema@.new_row(d), due_at, 1, now_ms, null, true);
    end if;
end
$windlass$;

-- Looks at a job that was put off; its row is locked. One whose key somebody holds whom it cannot wait behind stays.
create function @schema@.take_up(r @schema@.live, now_ms bigint, forget integer) returns void
language plpgsql as $windlass$
declare
    j @schema@.job;
    y @schema@.key;
    plan integer := 0;
    met uuid;
    failed uuid;
    was @schema@.live := r;
    behind boolean := false;
begin
    select * into strict j from @schema@.job b where b.queue = r.queue and b.id = r.id;
    if r.flags & 1 <> 0 then
        y := @schema@.lock_key(r.queue, j.extras -> 'unique' ->> 'key');
        if y.holder is distinct from r.id then
            select p.plan, p.other into plan, met
                from @schema@.plan(y, r.queue, j.extras -> 'unique' ->> 'on_conflict', now_ms) p;
            if plan = 2 then
                return;
            elsif plan in (3, 4) then
                perform @schema@.finish(@schema@.hold(r.queue, met), 5, now_ms, 'superseded by ' || r.id, null, r.id,
                    null, forget);
            end if;
            behind := plan in (4, 5);
            if not behind then
                perform @schema@.hold_key(r.queue, r.id);
            end if;
        end if;
    end if;
    if j.extras ? 'parents' then
        select b.waits, b.failed into r.waits, failed from @schema@.bind_parents(r.queue, r.id) b;
        perform @schema@.place_at(was, r);
    end if;
    if behind then
        perform @schema@.wait_behind(r, r.due, false);
    else
        perform @schema@.admit(r, r.due, 1, now_ms, 0::smallint, false);
    end if;
    if failed is not null then
        perform @schema@.finish(@schema@.hold(r.queue, r.id), 5, now_ms,
            'its parent ' || failed || ' did not complete', null, null, null, forget);
    end if;
end
$windlass$;

-- Refuses a batch with a parent that is neither stored nor earlier in it. A repeat needs no parents any more.
create function @schema@.check_parents(drafts @schema@.draft[]) returns void language plpgsql as $windlass$
declare
    missing record;
begin
    select p.queue, p.id into missing
    from unnest(drafts) with ordinality d
    cross join lateral (
        select e ->> 0 as queue, (e ->> 1)::uuid as id from jsonb_array_elements(d.extras -> 'parents') e
    ) p
    where d.extras ? 'parents'
        and not exists (select from @schema@.job j where j.queue = d.queue and j.id = d.id)
        and not exists (select from @schema@.job j where j.queue = p.queue and j.id = p.id)
        and not exists (
            select from unnest(drafts) with ordinality o
            where o.ordinality < d.ordinality and o.queue = p.queue and o.id = p.id
        )
    limit 1;
    if found then
        raise exception 'parent %/% is not stored: dispatch it first, or earlier in the same batch; a finished job is kept '
            'for its retention only', missing.queue, missing.id using errcode = 'WL002';
    end if;
end
$windlass$;

-- Locks, in one order, what a batch of jobs with keys, limits and parents will need.
create function @schema@.lock_for(drafts @schema@.draft[]) returns void language plpgsql as $windlass$
declare
    e record;
begin
    for e in
        select distinct p ->> 0 as queue, (p ->> 1)::uuid as id
        from unnest(drafts) d, jsonb_array_elements(d.extras -> 'parents') p where d.extras ? 'parents' order by 1, 2
    loop
        perform @schema@.lock_parent(e.queue, e.id);
    end loop;
    for e in
        select distinct d.queue, d.extras -> 'unique' ->> 'key' as key from unnest(drafts) d
        where d.flags & 1 <> 0 order by 1, 2
    loop
        perform @schema@.lock_key(e.queue, e.key);
    end loop;
    for e in
        select distinct d.queue, d.extras -> 'limit' ->> 'key' as key from unnest(drafts) d
        where d.flags & 2 <> 0 order by 1, 2
    loop
        perform @schema@.lock_place(e.queue, e.key);
    end loop;
end
$windlass$;

-- Takes jobs in, all or none, in this order; one answer each. `mine` says whether the transaction is the caller's.
-- Jobs without key, limit and parents go in as one statement; those that are due at once are fresh, unless flag 64 says
-- that they are to have rows in `live`. No two of them have one id: the caller marks a repeat within its batch with a flag.
create function @schema@.push_many(
    at_ms bigint, mine boolean, forget integer,
    ids uuid[], queues text[], kinds text[], payloads bytea[], timeouts bigint[], versions integer[], readers integer[],
    max_attempts smallint[], codecs smallint[], priorities smallint[], flags smallint[], afters bigint[], dues bigint[],
    extras text[], out answer smallint, out other uuid
) returns setof record language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $windlass$
#variable_conflict use_column
declare
    now_ms bigint := @schema@.tick(at_ms);
    drafts @schema@.draft[];
    d @schema@.draft;
    as_fresh boolean := not 64 = any (flags);
begin
    if cardinality(ids) = 0 then
        return;
    end if;
    if not mine and not exists (select from unnest(flags) f where f & ~64 <> 0) then
        if as_fresh then
            perform @schema@.enter_gate();
            -- Nobody's open transaction with one of these ids may keep this one in the gate: it fails, and is sent again
            -- with flag 64.
            perform set_config('lock_timeout', '100ms', true);
        end if;
        -- Without ON CONFLICT, whose second record for each row is a twentieth of a job's WAL: of two pushes of one id at the
        -- same time the later fails as a whole, is sent again and sees the id.
        return query
        with input as materialized (
            select i.*, nextval('@literal@.entry') as seq,
                case when i.after_ms is not null then @schema@.after(now_ms, i.after_ms) else coalesce(i.due_at, now_ms) end
                    as due,
                o.id is null as is_new
            from unnest(ids, queues, kinds, payloads, timeouts, versions, readers, max_attempts, codecs, priorities,
                afters, dues, extras) with ordinality
                as i (id, queue, kind, payload, timeout_ms, version, min_reader, max_attempts, codec, priority, after_ms,
                    due_at, extras, ord)
            -- With a limit, or the planner may read the whole table once instead of a probe for each.
            left join lateral (
                select j.id from @schema@.job j where j.queue = i.queue and j.id = i.id limit 1
            ) o on true
        ), stored as (
            insert into @schema@.job as j (seq, rank, created_at, deadline, id, timeout_ms, version, min_reader,
                max_attempts, line, codec, priority, fresh, queue, kind, payload, extras)
            select i.seq, case when i.due > now_ms then i.due else 9 - i.priority end, now_ms,
                @schema@.deadline_of(i.extras::jsonb, now_ms), i.id, i.timeout_ms, i.version, i.min_reader,
                i.max_attempts, case when i.due > now_ms then 3 else 0 end, i.codec, i.priority,
                as_fresh and i.due <= now_ms, i.queue, i.kind, i.payload, i.extras::jsonb
            from input i where i.is_new
            returning j.seq, j.rank, j.id, j.line, j.fresh, j.queue
        ), lined as (
            insert into @schema@.live (seq, rank, id, epoch, generation, waits, line, flags, attempts, lost, queue, why)
            select s.seq, s.rank, s.id, 0, 0, 0, s.line, 0, 0, 0, s.queue, case when s.line = 3 then 1 end from stored s
            where not s.fresh
        ), counted as (
            insert into @schema@.moved (n, gone, came, queue)
            select count(*), null, case when s.line = 3 then 1 else 2 end, s.queue from stored s group by s.queue, s.line
        )
        select case when i.is_new then 0 else 1 end::smallint, null::uuid from input i order by i.ord;
        return;
    end if;
    select array_agg(row (i.id, i.queue, i.kind, i.payload, i.timeout_ms, i.version, i.min_reader, i.max_attempts, i.codec,
        i.priority, i.flags, i.after_ms, i.due_at, i.extras::jsonb)::@schema@.draft order by i.ord) into drafts
    from unnest(ids, queues, kinds, payloads, timeouts, versions, readers, max_attempts, codecs, priorities, flags, afters,
        dues, extras) with ordinality
        as i (id, queue, kind, payload, timeout_ms, version, min_reader, max_attempts, codec, priority, flags, after_ms,
            due_at, extras, ord);
    perform @schema@.check_parents(drafts);
    if not mine then
        perform @schema@.lock_for(drafts);
    end if;
    foreach d in array drafts loop
        if mine then
            select p.answer, p.other into answer, other from @schema@.push_one_in(d, now_ms, forget) p;
        else
            select p.answer, p.other into answer, other from @schema@.push_one(d, now_ms, forget) p;
        end if;
        return next;
    end loop;
    if not mine then
        -- Keys that were locked for jobs which did not come in.
        delete from @schema@.key y using unnest(drafts) e
            where y.queue = e.queue and y.key = e.extras -> 'unique' ->> 'key' and y.holder is null;
    end if;
end
$windlass$;

-- Push, as it is called. A lone job without key, limit and parents needs no plan that could go wrong, so it does without the
-- settings of `push_many`, which cost more than its writes.
create function @schema@.push(
    at_ms bigint, mine boolean, forget integer,
    ids uuid[], queues text[], kinds text[], payloads bytea[], timeouts bigint[], versions integer[], readers integer[],
    max_attempts smallint[], codecs smallint[], priorities smallint[], flags smallint[], afters bigint[], dues bigint[],
    extras text[], out answer smallint, out other uuid
) returns setof record language plpgsql as $windlass$
#variable_conflict use_column
declare
    now_ms bigint;
    due_ms bigint;
    number bigint;
    place smallint;
    as_fresh boolean;
begin
    if cardinality(ids) <> 1 or flags[1] & ~64 <> 0 then
        return query select p.answer, p.other from @schema@.push_many(at_ms, mine, forget, ids, queues, kinds, payloads, timeouts,
            versions, readers, max_attempts, codecs, priorities, flags, afters, dues, extras) p;
        return;
    end if;
    now_ms := @schema@.tick(at_ms);
    due_ms := case when afters[1] is not null then @schema@.after(now_ms, afters[1]) else coalesce(dues[1], now_ms) end;
    place := case when due_ms > now_ms then 3 else 0 end;
    as_fresh := place = 0 and flags[1] = 0 and not mine;
    if as_fresh then
        perform @schema@.enter_gate();
        perform set_config('lock_timeout', '100ms', true);
    end if;
    number := nextval('@literal@.entry');
    insert into @schema@.job (seq, rank, created_at, deadline, id, timeout_ms, version, min_reader, max_attempts, line, codec,
        priority, fresh, queue, kind, payload, extras)
    values (number, case when place = 3 then due_ms else 9 - priorities[1] end, now_ms,
        @schema@.deadline_of(extras[1]::jsonb, now_ms), ids[1], timeouts[1], versions[1], readers[1], max_attempts[1], place,
        codecs[1], priorities[1], as_fresh, queues[1], kinds[1], payloads[1], extras[1]::jsonb)
    on conflict do nothing;
    if not found then
        answer := 1;
        return next;
        return;
    end if;
    if not as_fresh then
        insert into @schema@.live (seq, rank, id, epoch, generation, waits, line, flags, attempts, lost, queue, why)
        values (number, case when place = 3 then due_ms else 9 - priorities[1] end, ids[1], 0, 0, 0, place, 0, 0, 0,
            queues[1], case when place = 3 then 1 end);
    end if;
    insert into @schema@.moved (n, gone, came, queue) values (1, null, case when place = 3 then 1 else 2 end, queues[1]);
    answer := 0;
    return next;
end
$windlass$;

-- A batch of jobs that differ in id and payload only, and of which each is due at once and has no key, limit, parents or
-- extras. One of them that is stored already undoes it all: false, and the batch goes the general way.
create function @schema@.push_alike(
    at_ms bigint, q text, of_kind text, time_limit bigint, of_version integer, reader integer, most_attempts smallint,
    of_codec smallint, of_priority smallint, ids uuid[], payloads bytea[]
) returns boolean language plpgsql as $windlass$
declare
    now_ms bigint := @schema@.tick(at_ms);
begin
    perform @schema@.enter_gate();
    -- As in `push_many`.
    perform set_config('lock_timeout', '100ms', true);
    insert into @schema@.job (seq, rank, created_at, id, timeout_ms, version, min_reader, max_attempts, line, codec, priority,
        fresh, queue, kind, payload)
    select nextval('@literal@.entry'), 9 - of_priority, now_ms, i.id, time_limit, of_version, reader, most_attempts,
        0, of_codec, of_priority, true, q, of_kind, i.payload
    from unnest(ids, payloads) i (id, payload);
    insert into @schema@.moved (n, gone, came, queue) values (cardinality(ids), null, 2, q);
    return true;
exception when unique_violation then
    return false;
end
$windlass$;
