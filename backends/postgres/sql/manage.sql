-- Operators' verbs. Answers: -1 when no such job is stored.

-- Calls a job off. Returns 0 when it waited and is Cancelled, 1 when it runs and its session is told, or the final state it
-- had already (4, 5, 6).
create function @schema@.cancel(at_ms bigint, q text, i uuid, why text, forget integer, out answer integer, out told uuid)
language plpgsql as $windlass$
declare
    clock bigint := @schema@.tick(at_ms);
    r @schema@.live;
begin
    perform @schema@.lock_own_key(q, i);
    r := @schema@.hold(q, i);
    if r.id is null then
        answer := coalesce(@schema@.state_at(q, i), -1);
    elsif r.session is not null then
        answer := 1;
        told := r.session;
        -- The first reason stands.
        insert into @schema@.detail as x (queue, id, cancel_reason) values (q, i, why)
            on conflict (queue, id) do update set cancel_reason = coalesce(x.cancel_reason, excluded.cancel_reason);
        update @schema@.live l set cancel = true
            where l.queue = q and l.line = r.line and l.rank = r.rank and l.seq = r.seq and l.id = i;
        insert into @schema@.control (session) values (r.session) on conflict do nothing;
    else
        answer := 0;
        perform @schema@.finish(r, 5, clock, why, null, null, null, forget);
    end if;
end
$windlass$;

-- Dead to Ready as a new generation. Returns -2 when its unique key is another's (`other`), or the state it was in.
create function @schema@.revive(at_ms bigint, q text, i uuid, out answer integer, out other uuid)
language plpgsql as $windlass$
declare
    clock bigint := @schema@.tick(at_ms);
    d @schema@.done;
    k text;
    y @schema@.key;
    r @schema@.live;
begin
    select * into d from @schema@.done f where f.queue = q and f.id = i for update;
    if not found then
        answer := coalesce(@schema@.state_at(q, i), -1);
        return;
    end if;
    answer := d.state;
    if d.state <> 6 then
        return;
    end if;
    select j.extras -> 'unique' ->> 'key' into k from @schema@.job j where j.queue = q and j.id = i;
    if k is not null then
        y := @schema@.lock_key(q, k);
        if y.holder is distinct from i and not @schema@.is_free(y, clock) then
            answer := -2;
            other := y.holder;
            return;
        end if;
        perform @schema@.hold_key(q, i);
    end if;
    perform @schema@.hold_spans(q, array[i]);
    delete from @schema@.done f where f.queue = q and f.id = i;
    update @schema@.detail x set cancel_reason = null where x.queue = q and x.id = i;
    r.id := i;
    r.queue := q;
    r.epoch := d.epoch;
    r.generation := d.generation + 1;
    r.waits := 0;
    r.attempts := 0;
    r.lost := 0;
    r.settled_by := d.settled_by;
    select case when j.extras ? 'limit' then 2 else 0 end
        | case when j.extras ? 'unique' then 1 else 0 end
        | case when j.extras -> 'unique' ->> 'until' = 'start' then 8 else 0 end
    into r.flags from @schema@.job j where j.queue = q and j.id = i;
    r.flags := coalesce(r.flags, 0);
    perform @schema@.admit(r, clock, 1, clock, 6::smallint, true);
end
$windlass$;

-- Makes a Scheduled job due now. Returns the state it was in.
create function @schema@.run_now(at_ms bigint, q text, i uuid) returns integer language plpgsql as $windlass$
declare
    clock bigint := @schema@.tick(at_ms);
    r @schema@.live := @schema@.hold(q, i);
begin
    if r.id is null then
        return coalesce(@schema@.state_at(q, i), -1);
    end if;
    if r.session is null and r.line = 3 then
        perform @schema@.readmit(r, clock, 1, clock);
        return 1;
    end if;
    return @schema@.state_of(r.line, r.session);
end
$windlass$;

-- Forgets a finished job. Returns the state it was in.
create function @schema@.delete(at_ms bigint, q text, i uuid, forgets integer) returns integer
language plpgsql as $windlass$
declare
    clock bigint := @schema@.tick(at_ms);
    was smallint;
begin
    select d.state into was from @schema@.done d where d.queue = q and d.id = i for update;
    if not found then
        return coalesce(@schema@.state_at(q, i), -1);
    end if;
    perform @schema@.forget(q, array[i], clock, forgets);
    return was;
end
$windlass$;

-- Stops claims from a queue, or lets them go on.
create function @schema@.set_paused(at_ms bigint, q text, wanted boolean) returns void language plpgsql as $windlass$
begin
    perform @schema@.tick(at_ms);
    insert into @schema@.pause (queue, paused) values (q, wanted)
        on conflict (queue) do update set paused = excluded.paused;
end
$windlass$;
