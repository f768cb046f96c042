-- Admission: where a job that is not running goes next. The order of the gates: parents, the unique key's running holder,
-- the due time, the concurrency limit, then the line.

-- Locks a limit's row, made when it is missing, and returns how many places are taken.
create function @schema@.lock_place(q text, k text) returns integer language plpgsql as $windlass$
declare
    n integer;
begin
    loop
        select p.taken into n from @schema@.place p where p.queue = q and p.key = k for update;
        if found then
            return n;
        end if;
        insert into @schema@.place (queue, key, taken) values (q, k, 0) on conflict do nothing;
    end loop;
end
$windlass$;

-- Takes a place under a limit. Jobs that already wait for one go first, so that one which fails and comes back at once
-- cannot keep them out.
create function @schema@.take_place(q text, k text, at_most bigint) returns boolean language plpgsql as $windlass$
begin
    if @schema@.lock_place(q, k) >= at_most then
        return false;
    end if;
    perform 1 from @schema@.live l where l.queue = q and l.line = 5 and l.lane = k limit 1;
    if found then
        return false;
    end if;
    update @schema@.place p set taken = taken + 1 where p.queue = q and p.key = k;
    return true;
end
$windlass$;

-- Sends a job through the gates: one that is new (`fresh`), or one whose row is locked, from state `gone`. Returns the
-- state it comes to.
create function @schema@.admit(
    r @schema@.live, due_at bigint, why_later integer, now_ms bigint, gone smallint, fresh boolean
) returns smallint language plpgsql as $windlass$
declare
    was @schema@.live := r;
    body record;
    came smallint;
begin
    select j.priority, j.extras -> 'limit' ->> 'key' as key, (j.extras -> 'limit' ->> 'at_most')::bigint as at_most
        into strict body from @schema@.job j where j.queue = r.queue and j.id = r.id;
    r := @schema@.at_rest(r);
    r.seq := nextval('@literal@.entry');
    r.rank := 9 - body.priority;
    r.lane := null;
    r.reader := null;
    r.due := null;
    r.why := null;
    if r.waits > 0 then
        r.line := 4;
        r.due := due_at;
        came := 0;
    elsif due_at > now_ms then
        r.line := 3;
        r.rank := due_at;
        r.why := why_later;
        came := 1;
    elsif body.key is not null and not @schema@.take_place(r.queue, body.key, body.at_most) then
        r.line := 5;
        r.lane := body.key;
        r.reader := 0;
        came := 0;
    else
        r.line := case when r.flags & 4 <> 0 then 1 else 0 end;
        came := 2;
    end if;
    if fresh then
        insert into @schema@.live values (r.*);
        update @schema@.job j set line = r.line, rank = r.rank, seq = r.seq, fresh = false
            where j.queue = r.queue and j.id = r.id;
    else
        perform @schema@.place_at(was, r);
    end if;
    insert into @schema@.moved (n, gone, came, queue) values (1, gone, came, r.queue);
    return came;
end
$windlass$;

-- Lets in those who wait for a place under a limit, first come first served within a priority. Rows that somebody is just
-- ending are passed over: whoever ends them comes here as well.
create function @schema@.fill_places(q text, k text) returns void language plpgsql as $windlass$
declare
    n integer;
    was @schema@.live;
    r @schema@.live;
    body record;
begin
    loop
        n := @schema@.lock_place(q, k);
        select l.* into r from @schema@.live l where l.queue = q and l.line = 5 and l.lane = k
            order by l.rank, l.seq limit 1 for no key update skip locked;
        if not found then
            if n = 0 then
                delete from @schema@.place p where p.queue = q and p.key = k;
            end if;
            return;
        end if;
        select (j.extras -> 'limit' ->> 'at_most')::bigint as at_most, j.priority into strict body
            from @schema@.job j where j.queue = q and j.id = r.id;
        if n >= body.at_most then
            return;
        end if;
        update @schema@.place p set taken = taken + 1 where p.queue = q and p.key = k;
        was := r;
        r.seq := nextval('@literal@.entry');
        r.rank := 9 - body.priority;
        r.line := case when r.flags & 4 <> 0 then 1 else 0 end;
        r.lane := null;
        r.reader := null;
        perform @schema@.place_at(was, r);
        insert into @schema@.moved (n, gone, came, queue) values (1, 0, 2, q);
    end loop;
end
$windlass$;

-- Gives back the place that a job held. `fill_places` must follow.
create function @schema@.give_back_place(q text, k text) returns void language plpgsql as $windlass$
begin
    perform @schema@.lock_place(q, k);
    update @schema@.place p set taken = taken - 1 where p.queue = q and p.key = k;
end
$windlass$;

-- The key of a job's limit.
create function @schema@.limit_of(q text, i uuid) returns text language sql stable as $windlass$
    select j.extras -> 'limit' ->> 'key' from @schema@.job j where j.queue = q and j.id = i
$windlass$;

-- Moves a job from the state it is in to the gates, giving back the place it held.
create function @schema@.readmit(r @schema@.live, due_at bigint, why_later integer, now_ms bigint)
returns smallint language plpgsql as $windlass$
declare
    gone smallint := @schema@.state_of(r.line, r.session);
    k text;
    came smallint;
begin
    if r.flags & 2 <> 0 and r.line <= 2 then
        k := @schema@.limit_of(r.queue, r.id);
        perform @schema@.give_back_place(r.queue, k);
    end if;
    came := @schema@.admit(r, due_at, why_later, now_ms, gone, false);
    if k is not null then
        perform @schema@.fill_places(r.queue, k);
        came := @schema@.state_at(r.queue, r.id);
    end if;
    return came;
end
$windlass$;

-- Makes Ready what is due in a queue, at most `bound` jobs, in due order. One at a time for each queue: two would enter
-- their jobs mixed. Whoever finds another at it leaves it to that one. Returns how many.
create function @schema@.promote(q text, bound integer, now_ms bigint) returns integer language plpgsql as $windlass$
declare
    r @schema@.live;
    n integer := 0;
    simple boolean;
begin
    perform 1 from @schema@.live l where l.queue = q and l.line = 3 and l.rank <= now_ms limit 1;
    if not found or bound <= 0 then
        return 0;
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('windlass promote @text@/' || q, 0)) then
        return 0;
    end if;
    select bool_and(d.flags & 6 = 0) into simple from (
        select l.flags from @schema@.live l where l.queue = q and l.line = 3 and l.rank <= now_ms
        order by l.rank, l.seq limit bound
    ) d;
    if simple then
        with due as materialized (
            select l.ctid as at, l.id from @schema@.live l
            where l.queue = q and l.line = 3 and l.rank <= now_ms and l.flags & 6 = 0
            order by l.rank, l.seq limit bound for no key update skip locked
        ), placed as materialized (
            select d.at, d.id, j.priority, nextval('@literal@.entry') as seq
            from due d join @schema@.job j on j.queue = q and j.id = d.id
        ), entered as (
            update @schema@.live l set line = 0, rank = 9 - p.priority, seq = p.seq, why = null
            from placed p where l.ctid = p.at returning l.id, l.rank, l.seq
        ), pointed as (
            update @schema@.job j set line = 0, rank = e.rank, seq = e.seq, fresh = false from entered e
            where j.queue = q and j.id = e.id returning 1
        )
        select count(*) into n from pointed;
        if n > 0 then
            insert into @schema@.moved (n, gone, came, queue) values (n, 1, 2, q);
        end if;
        return n;
    end if;
    for r in
        select l.* from @schema@.live l where l.queue = q and l.line = 3 and l.rank <= now_ms
        order by l.rank, l.seq limit bound for no key update skip locked
    loop
        perform @schema@.admit(r, now_ms, 1, now_ms, 1::smallint, false);
        n := n + 1;
    end loop;
    return n;
end
$windlass$;

-- Unblocks a job: what it waited for is over.
create function @schema@.unblock(r @schema@.live, now_ms bigint) returns void language plpgsql as $windlass$
begin
    perform @schema@.admit(r, coalesce(r.due, now_ms), 1, now_ms, 0::smallint, false);
end
$windlass$;
