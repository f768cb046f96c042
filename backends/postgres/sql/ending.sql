-- The end of a job, and all that its end sets free in the same step: the place under a limit, the unique key, the
-- children. Locks are taken in one order: keys, rows of `live`, places; whoever cannot keep to it (a claim) does not wait.
-- Where a cascade breaks it all the same, the server finds the circle and the call is sent again.

-- Locks a key's row, made when it is missing.
create function @schema@.lock_key(q text, k text) returns @schema@.key language plpgsql as $windlass$
declare
    r @schema@.key;
begin
    loop
        select * into r from @schema@.key y where y.queue = q and y.key = k for update;
        if found then
            return r;
        end if;
        insert into @schema@.key (queue, key) values (q, k) on conflict do nothing;
    end loop;
end
$windlass$;

-- Locks the key that a job holds or waits for, before its row is locked. Of a key that is another's nothing is locked: its
-- holder may be about to change in a transaction that takes its time.
create function @schema@.lock_own_key(q text, i uuid) returns void language plpgsql as $windlass$
begin
    perform 1 from @schema@.job j
        join @schema@.key y on y.queue = q and y.key = j.extras -> 'unique' ->> 'key' and (y.holder = i or y.next = i)
        where j.queue = q and j.id = i and j.extras ? 'unique' for update of y;
end
$windlass$;

-- Whether nobody holds a key now. Not under one that waits behind: it is to be let in at the holder's end.
create function @schema@.is_free(r @schema@.key, now_ms bigint) returns boolean language sql immutable as $windlass$
    select r.holder is null or (r.next is null and r.until is not null and r.until <= now_ms)
$windlass$;

-- Until when a job that holds its key holds it whatever becomes of it: the end of its window.
create function @schema@.window_of(j @schema@.job) returns bigint language sql immutable as $windlass$
    select case when j.extras -> 'unique' ->> 'until' = 'window' then
        @schema@.after(j.created_at, ceil((j.extras -> 'unique' ->> 'window_ns')::numeric / 1000000)::bigint)
    end
$windlass$;

-- Makes a job the holder of its unique key.
create function @schema@.hold_key(q text, i uuid) returns void language plpgsql as $windlass$
declare
    j @schema@.job;
begin
    select * into strict j from @schema@.job b where b.queue = q and b.id = i;
    insert into @schema@.key (queue, key, holder, until, next)
    values (q, j.extras -> 'unique' ->> 'key', i, @schema@.window_of(j), null)
    on conflict (queue, key) do update set holder = excluded.holder, until = excluded.until, next = null;
end
$windlass$;

-- Frees the unique key of a job that ended, and lets in the one that waits behind it.
create function @schema@.free_key(q text, i uuid, now_ms bigint) returns void language plpgsql as $windlass$
declare
    k text;
    y @schema@.key;
    behind @schema@.live;
begin
    select j.extras -> 'unique' ->> 'key' into k from @schema@.job j where j.queue = q and j.id = i;
    -- As in `lock_own_key`.
    perform 1 from @schema@.key e where e.queue = q and e.key = k and (e.holder = i or e.next = i);
    if not found then
        return;
    end if;
    select * into y from @schema@.key e where e.queue = q and e.key = k for update;
    if not found then
        return;
    end if;
    if y.next = i then
        update @schema@.key e set next = null where e.queue = q and e.key = k;
        y.next := null;
    end if;
    if y.holder is distinct from i then
        return;
    end if;
    if y.until is null or y.until <= now_ms then
        delete from @schema@.key e where e.queue = q and e.key = k;
    else
        update @schema@.key e set next = null where e.queue = q and e.key = k;
    end if;
    if y.next is not null then
        behind := @schema@.hold(q, y.next);
        if behind.id is not null then
            perform @schema@.hold_key(q, y.next);
            perform @schema@.unblock(behind, now_ms);
        end if;
    end if;
end
$windlass$;

-- Tells the children of a job how it ended (4 Completed, 5 Cancelled, 6 Dead). Returns those that its end calls off.
create function @schema@.tell_children(q text, i uuid, state smallint, now_ms bigint)
returns @schema@.orphaned[] language plpgsql as $windlass$
declare
    e record;
    r @schema@.live;
    was @schema@.live;
    policy text;
    orphans @schema@.orphaned[] := '{}';
begin
    for e in select c.* from @schema@.child c where c.parent_queue = q and c.parent = i order by c.seq loop
        r := @schema@.hold(e.queue, e.id);
        if r.id is null or r.session is not null or r.line not between 4 and 6 then
            delete from @schema@.child c where c.parent_queue = q and c.parent = i and c.seq = e.seq;
            continue;
        end if;
        select coalesce(j.extras ->> 'on_parent_failure', 'cancel') into policy
            from @schema@.job j where j.queue = e.queue and j.id = e.id;
        if state = 6 and policy = 'wait' then
            continue;
        end if;
        delete from @schema@.child c where c.parent_queue = q and c.parent = i and c.seq = e.seq;
        if state = 4 or policy = 'ignore' then
            was := r;
            r.waits := greatest(r.waits - 1, 0);
            perform @schema@.place_at(was, r);
            -- One that waits behind a unique key as well goes on waiting for that.
            if r.line = 4 and r.waits = 0 then
                perform @schema@.unblock(r, now_ms);
            end if;
        else
            orphans := orphans || row (e.queue, e.id, i)::@schema@.orphaned;
        end if;
    end loop;
    return orphans;
end
$windlass$;

-- Ends one job whose row is locked. `forget` has bit 1, 2, 4 for a state (Completed, Cancelled, Dead) of which nothing is
-- kept. Returns the children that its end calls off.
create function @schema@.end_one(
    r @schema@.live, state smallint, now_ms bigint, why text, dead smallint, successor uuid, result bytea, forget integer
) returns @schema@.orphaned[] language plpgsql as $windlass$
declare
    k text;
    orphans @schema@.orphaned[] := '{}';
    forgets boolean := forget & (1 << (state - 4)) <> 0;
begin
    delete from @schema@.live l
        where l.queue = r.queue and l.line = r.line and l.rank = r.rank and l.seq = r.seq and l.id = r.id;
    if not forgets then
        insert into @schema@.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, dead_reason, queue,
            superseded_by, reason, output)
        values (nextval('@literal@.entry'), now_ms, r.id, r.settled_by, r.epoch, r.generation, state, r.attempts, r.lost,
            dead, r.queue, successor, why, result);
    end if;
    insert into @schema@.moved (n, gone, came, queue)
        values (1, @schema@.state_of(r.line, r.session), case when not forgets then state end, r.queue);
    if r.flags & 2 <> 0 then
        k := @schema@.limit_of(r.queue, r.id);
        if r.line <= 2 then
            perform @schema@.give_back_place(r.queue, k);
        end if;
        -- Also when it only waited for a place: it may have stood in the way of one with a larger number.
        perform @schema@.fill_places(r.queue, k);
    end if;
    if r.flags & 1 <> 0 then
        perform @schema@.free_key(r.queue, r.id, now_ms);
    end if;
    perform 1 from @schema@.child c where c.parent_queue = r.queue and c.parent = r.id limit 1;
    if found then
        orphans := @schema@.tell_children(r.queue, r.id, state, now_ms);
        if forgets then
            orphans := orphans || @schema@.disown(r.queue, r.id);
        end if;
    end if;
    if forgets then
        delete from @schema@.job j where j.queue = r.queue and j.id = r.id;
        delete from @schema@.detail x where x.queue = r.queue and x.id = r.id;
    end if;
    return orphans;
end
$windlass$;

-- The children that still wait for a job which is forgotten: it cannot come back.
create function @schema@.disown(q text, i uuid) returns @schema@.orphaned[] language sql as $windlass$
    with gone as (
        delete from @schema@.child c where c.parent_queue = q and c.parent = i returning c.seq, c.queue, c.id
    )
    select coalesce(array_agg(row (g.queue, g.id, i)::@schema@.orphaned order by g.seq), '{}') from gone g
$windlass$;

-- Calls off those whose parent will not complete, and in turn their children: at most `bound`, the rest is left to the
-- next sweeps. Returns how many are left.
create function @schema@.call_off(
    orphans @schema@.orphaned[], now_ms bigint, forget integer, bound integer default 1000
) returns integer language plpgsql as $windlass$
declare
    o @schema@.orphaned;
    r @schema@.live;
begin
    while cardinality(orphans) > 0 and bound > 0 loop
        o := orphans[cardinality(orphans)];
        orphans := orphans[1:cardinality(orphans) - 1];
        bound := bound - 1;
        perform @schema@.lock_own_key(o.queue, o.id);
        r := @schema@.hold(o.queue, o.id);
        -- It may have been called off meanwhile.
        if r.id is not null and r.session is null and r.line between 4 and 7 then
            orphans := orphans || @schema@.end_one(r, 5::smallint, now_ms,
                'its parent ' || o.parent || ' did not complete', null, null, null, forget);
        end if;
    end loop;
    if cardinality(orphans) > 0 then
        insert into @schema@.orphan (queue, id, parent)
            select u.queue, u.id, u.parent from unnest(orphans) u on conflict do nothing;
    end if;
    return cardinality(orphans);
end
$windlass$;

-- Ends a job whose row is locked, and those that its end calls off.
create function @schema@.finish(
    r @schema@.live, state integer, now_ms bigint, why text, dead smallint, successor uuid, result bytea, forget integer
) returns smallint language plpgsql as $windlass$
declare
    orphans @schema@.orphaned[];
begin
    orphans := @schema@.end_one(r, state::smallint, now_ms, why, dead, successor, result, forget);
    if cardinality(orphans) > 0 then
        perform @schema@.call_off(orphans, now_ms, forget);
    end if;
    return state;
end
$windlass$;
