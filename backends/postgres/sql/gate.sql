-- The gate: which entries claims may take as they come.
--
-- A push draws its numbers before it commits, so a lower number may appear after a higher one. A claim of fresh jobs takes
-- them behind a cursor and never looks back; so it may take only numbers of which all that were drawn have been decided.
-- Pushes hold a shared lock on the generation that `gate` shows, taken before they draw. Whoever wants to know notes the
-- latest number, opens the next generation, and waits for nobody: once the lock of the one before can be had, every number
-- up to the noted one is decided. Nobody's foreign transaction has a part in this.
--
-- gate        the generation that pushes join
-- gate_bound  the latest number when the one before it was closed; `is_called` when somebody found that one still held
-- gate_since  when that was, by the server's clock
-- gate_open   up to here everything is decided
-- gate_stuck  1 while a generation that was given up may still be held

-- Joins the current generation until the end of the transaction. Never waits.
create function @schema@.enter_gate() returns void language plpgsql as $windlass$
declare
    generation bigint;
    latest bigint;
begin
    loop
        select g.last_value into generation from @schema@.gate g;
        if pg_try_advisory_xact_lock_shared(hashtext('windlass gate @text@'), (generation & 2147483647)::integer) then
            select g.last_value into latest from @schema@.gate g;
            exit when latest = generation;
        end if;
    end loop;
end
$windlass$;

-- Up to which entry everything is decided: looks further only if that is below what is wanted. Never waits. A push that
-- keeps its generation for a second (its connection was cut in the middle of a message) is given up: what it may still
-- bring is found when the lease of the span that it falls into has run out.
create function @schema@.decided(wanted bigint) returns bigint language plpgsql as $windlass$
declare
    open bigint;
    generation bigint;
    latest bigint;
    bound bigint;
    found_held boolean;
    now_ms bigint;
begin
    select o.last_value into open from @schema@.gate_open o;
    while open < wanted loop
        select g.last_value into generation from @schema@.gate g;
        select b.last_value, b.is_called into bound, found_held from @schema@.gate_bound b;
        if not pg_try_advisory_xact_lock(hashtext('windlass gate @text@'), ((generation - 1) & 2147483647)::integer) then
            now_ms := floor(extract(epoch from clock_timestamp()) * 1000)::bigint;
            if not found_held then
                perform setval('@literal@.gate_since', now_ms);
                perform setval('@literal@.gate_bound', bound);
                exit;
            end if;
            exit when (select s.last_value from @schema@.gate_since s) > now_ms - 1000;
            exit when not pg_try_advisory_xact_lock(hashtextextended('windlass gate @text@', 0));
            perform setval('@literal@.gate_stuck', 1);
        end if;
        -- The lock of the generation that is asked about is also what lets one alone open the next.
        select g.last_value into latest from @schema@.gate g;
        continue when latest <> generation;
        -- In this order: whoever is ended between two of these steps, or is overtaken there, leaves a bound that is too low.
        -- A bound that comes before its generation would let the pushes of the one before be passed, and what is opened
        -- before it would leave a push that was given up where `is_stuck` does not look for it.
        select e.last_value into latest from @schema@.entry e;
        perform nextval('@literal@.gate');
        perform setval('@literal@.gate_bound', latest, false);
        open := greatest(bound, open);
        perform setval('@literal@.gate_open', open);
    end loop;
    return open;
end
$windlass$;

-- Whether a generation that was given up may still bring something, or has brought what is not counted yet.
create function @schema@.is_stuck() returns boolean language plpgsql as $windlass$
declare
    q text;
    is_counted boolean := true;
begin
    if (select s.last_value from @schema@.gate_stuck s) = 0 then
        return false;
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('windlass gate @text@', 0)) then
        return true;
    end if;
    perform 1 from pg_locks k, @schema@.gate g
    where k.locktype = 'advisory' and k.objsubid = 2 and k.mode = 'ShareLock'
        and k.database = (select d.oid from pg_database d where d.datname = current_database())
        and k.classid::bigint = hashtext('windlass gate @text@')::bigint & 4294967295
        and k.objid::bigint not in (g.last_value & 2147483647, (g.last_value - 1) & 2147483647);
    if found then
        return true;
    end if;
    for q in select n from @schema@.queue_names() n order by n loop
        if not @schema@.wait_for_claim(q) then
            return true;
        end if;
        is_counted := not @schema@.recount(q) and is_counted;
    end loop;
    -- What was corrected holds when it is committed: it is looked at once more.
    if not is_counted then
        return true;
    end if;
    perform setval('@literal@.gate_stuck', 0);
    return false;
end
$windlass$;

-- Waits until the claim of a queue that is under way is over, for a second: it may have counted what it takes before the last
-- of a push that was given up was there. The lane is not kept.
create function @schema@.wait_for_claim(q text) returns boolean language plpgsql as $windlass$
declare
    before text := current_setting('lock_timeout');
begin
    perform set_config('lock_timeout', '1s', true);
    begin
        perform pg_advisory_xact_lock(@schema@.lane_of(q));
        raise exception 'it is over' using errcode = 'WL010';
    exception when sqlstate 'WL010' then
        perform set_config('lock_timeout', before, true);
        return true;
    when lock_not_available then
        perform set_config('lock_timeout', before, true);
        return false;
    end;
end
$windlass$;

-- Counts what runs in a queue, in one snapshot, and puts the counts right: a job of a push that was given up was counted as
-- Ready when it came, and not by the claim whose span it fell into. True when they were wrong.
create function @schema@.recount(q text) returns boolean language plpgsql as $windlass$
begin
    with counted as (
        select coalesce(sum(c.n), 0) as n from (
            select t.n from @schema@.tally t where t.queue = q and t.state = 3
            union all select m.n from @schema@.moved m where m.queue = q and m.came = 3
            union all select -m.n from @schema@.moved m where m.queue = q and m.gone = 3
        ) c
    ), running as (
        select (
            select count(*) from @schema@.span s cross join lateral @schema@.running_in(q, s.rank, s.first, s.last) r
            where s.queue = q
        ) + (
            select count(*) from @schema@.lease g cross join unnest(g.handles) h
            join @schema@.live l on l.queue = q and l.line = @schema@.line_of(h) and l.rank = @schema@.rank_of(h)
                and l.seq = @schema@.seq_of(h)
            where g.queue = q and l.nonce = g.nonce and l.session = g.session
        ) as n
    )
    insert into @schema@.moved (n, gone, came, queue) select r.n - c.n, 2, 3, q from running r, counted c where r.n <> c.n;
    return found;
end
$windlass$;

select nextval('@literal@.entry'), setval('@literal@.gate', 2), setval('@literal@.gate_bound', 1, false),
    setval('@literal@.gate_open', 1);
