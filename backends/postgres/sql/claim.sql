-- Claim: Ready to Running, in place. Rows are locked within the ordered scan (chosen first and locked afterwards, most
-- claims of several workers would come back empty), and nobody waits for another's.

-- The heads of the parked lanes of a queue that these kinds can run, behind a place: in order, at most `want` of each.
create function @schema@.parked_heads(
    q text, kinds text[], versions integer[], after_rank bigint, after_seq bigint, want integer
) returns table (at tid, id uuid, rank bigint, seq bigint, flags smallint) language plpgsql as $windlass$
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
                    and (l.rank, l.seq) > (after_rank, after_seq)
                order by l.rank, l.seq limit want for no key update skip locked;
        end loop;
    end loop;
end
$windlass$;

-- Takes from `live` what stands between two places: at most `want` jobs, in order. What these kinds cannot run is parked.
-- `latest` is the place that was come to, null when there was nothing.
create function @schema@.pick_live(
    q text, kinds text[], versions integer[], after_rank bigint, after_seq bigint, to_rank bigint, to_seq bigint,
    want integer, has_parked boolean,
    out places tid[], out parked integer, out looked integer, out latest bigint[], out has_keys boolean
) language plpgsql as $windlass$
declare
    strange uuid[];
begin
    if not has_parked then
        select count(*), array_agg(c.at order by c.rank, c.seq) filter (where c.runs),
            array_agg(c.id order by c.rank, c.seq) filter (where not c.runs), max(array[c.rank, c.seq]),
            coalesce(bool_or(c.flags & 8 <> 0), false)
        into looked, places, strange, latest, has_keys
        from (
            select p.at, p.rank, p.seq, p.id, p.flags,
                coalesce(j.min_reader <= versions[array_position(kinds, j.kind)], false) as runs
            from (
                select l.ctid as at, l.id, l.rank, l.seq, l.flags from @schema@.live l
                where l.queue = q and l.line = 0 and l.session is null
                    and (l.rank, l.seq) > (after_rank, after_seq) and (l.rank, l.seq) < (to_rank, to_seq)
                order by l.rank, l.seq limit want for no key update skip locked
            ) p join @schema@.job j on j.queue = q and j.id = p.id
        ) c;
    else
        -- What was moved aside keeps its place in line.
        select count(*), array_agg(c.at order by c.rank, c.seq) filter (where c.runs),
            array_agg(c.id order by c.rank, c.seq) filter (where not c.runs), max(array[c.rank, c.seq]),
            coalesce(bool_or(c.flags & 8 <> 0), false)
        into looked, places, strange, latest, has_keys
        from (
            select m.at, m.rank, m.seq, m.id, m.flags,
                coalesce(j.min_reader <= versions[array_position(kinds, j.kind)], false) as runs
            from (
                select * from (
                    select * from (
                        select l.ctid as at, l.id, l.rank, l.seq, l.flags from @schema@.live l
                        where l.queue = q and l.line = 0 and l.session is null
                            and (l.rank, l.seq) > (after_rank, after_seq) and (l.rank, l.seq) < (to_rank, to_seq)
                        order by l.rank, l.seq limit want for no key update skip locked
                    ) ready
                    union all
                    select h.at, h.id, h.rank, h.seq, h.flags
                    from @schema@.parked_heads(q, kinds, versions, after_rank, after_seq, want) h
                    where (h.rank, h.seq) < (to_rank, to_seq)
                ) both_lines
                order by rank, seq limit want
            ) m join @schema@.job j on j.queue = q and j.id = m.id
        ) c;
    end if;
    places := coalesce(places, '{}');
    parked := coalesce(cardinality(strange), 0);
    if parked > 0 then
        perform @schema@.park(q, strange);
    end if;
end
$windlass$;

-- Takes fresh jobs of one rank between two entries: at most `want`, in order. What these kinds cannot run is parked. `latest`
-- is the entry that was come to, null when there was none; `ahead_from` the first job of those beyond `starts`.
create function @schema@.pick_fresh(
    q text, kinds text[], versions integer[], of_rank bigint, after_seq bigint, to_seq bigint, want integer, starts integer,
    out n integer, out parked integer, out latest bigint, out ahead_from bigint
) language plpgsql as $windlass$
declare
    strange uuid[];
    likely text := kinds[1];
    reads integer;
begin
    if want >= 32 then
        select j.kind into likely from @schema@.job j
            where j.queue = q and j.rank = of_rank and j.fresh and j.seq > after_seq order by j.seq limit 1;
    end if;
    -- To look each one's kind up among those that can be run costs more than the rest of this.
    reads := coalesce(versions[array_position(kinds, likely)], 0);
    select count(*) filter (where c.runs), max(c.seq), array_agg(c.id) filter (where not c.runs)
    into n, latest, strange
    from (
        select j.seq, j.id, case when j.kind = likely then j.min_reader <= reads
            else coalesce(j.min_reader <= versions[array_position(kinds, j.kind)], false) end as runs
        from @schema@.job j
        where j.queue = q and j.rank = of_rank and j.fresh and j.seq > after_seq and j.seq < to_seq
        order by j.seq limit want
    ) c;
    parked := coalesce(cardinality(strange), 0);
    if parked > 0 then
        perform @schema@.park_fresh(q, strange);
    end if;
    if n > starts then
        select j.seq into ahead_from from @schema@.job j
            where j.queue = q and j.rank = of_rank and j.fresh and j.seq > after_seq
            order by j.seq offset greatest(starts, 0) limit 1;
    end if;
end
$windlass$;

-- One queue's share of a claim, in order of place: by turns what stands in `live` in front of the next fresh job, and the
-- fresh jobs in front of the next one in `live`. Of `live` the rows are returned, and whether each starts at once; of the
-- fresh, the stretches. What these kinds cannot run is parked: `aside` is how much of the bound on that is left. `before`
-- jobs were taken already, of `at_once` that start. Without the lane no fresh job is taken. `more` says whether there is
-- more behind.
create function @schema@.pick(
    q text, kinds text[], versions integer[], want integer, before integer, at_once integer, has_lane boolean,
    inout aside integer, out stretches @schema@.stretch[], out places tid[], out starts boolean[], out more boolean,
    out has_keys boolean
) language plpgsql as $windlass$
declare
    has_parked boolean;
    has_line boolean;
    ranks bigint[] := '{}';
    passed bigint[];
    heads bigint[];
    nth integer := 1;
    head bigint;
    t @schema@.stretch;
    live record;
    fresh record;
    open bigint;
    looked boolean := false;
    taken integer := before;
    floor_rank bigint := -1;
    floor_seq bigint := 0;
    to_rank bigint;
    to_seq bigint;
    room integer;
begin
    stretches := '{}';
    places := '{}';
    starts := '{}';
    more := not has_lane;
    has_keys := false;
    want := want + before;
    perform 1 from @schema@.live l where l.queue = q and l.line = 2 and l.lane = any (kinds) and l.session is null limit 1;
    has_parked := found;
    perform 1 from @schema@.live l where l.queue = q and l.line = 0 and l.session is null limit 1;
    has_line := found or has_parked;
    if has_lane then
        select array_agg(h.rank order by h.rank), array_agg(h.passed order by h.rank), array_agg(h.head order by h.rank)
            into ranks, passed, heads from @schema@.fresh_heads(q) h;
        ranks := coalesce(ranks, '{}');
        select o.last_value into open from @schema@.gate_open o;
    end if;
    loop
        -- The next fresh job that may be taken.
        head := null;
        while nth <= cardinality(ranks) loop
            head := heads[nth];
            if head is null then
                select j.seq into head from @schema@.job j
                    where j.queue = q and j.rank = ranks[nth] and j.fresh and j.seq > passed[nth] order by j.seq limit 1;
                heads[nth] := head;
            end if;
            if head > open and not looked then
                looked := true;
                open := @schema@.decided(e.last_value) from @schema@.entry e;
            end if;
            exit when head <= open;
            more := more or head is not null;
            head := null;
            nth := nth + 1;
        end loop;
        if taken >= want or aside <= 0 then
            more := more or head is not null or aside <= 0 or (has_line and (has_parked or exists (
                select from @schema@.live l
                where l.queue = q and l.line = 0 and (l.rank, l.seq) > (floor_rank, floor_seq) and l.session is null
            )));
            return;
        end if;
        if has_line then
            to_rank := coalesce(ranks[nth], 99);
            to_seq := coalesce(head, 0);
            room := least(want - taken, aside);
            select p.* into live from @schema@.pick_live(q, kinds, versions, floor_rank, floor_seq, to_rank, to_seq, room,
                has_parked) p;
            places := places || live.places;
            starts := starts || array(select taken + g <= at_once from generate_series(1, cardinality(live.places)) g);
            taken := taken + cardinality(live.places);
            aside := aside - live.parked;
            has_keys := has_keys or live.has_keys;
            if live.looked >= room then
                floor_rank := live.latest[1];
                floor_seq := live.latest[2];
                continue;
            end if;
            floor_rank := to_rank;
            floor_seq := to_seq;
        end if;
        if head is null then
            return;
        end if;
        to_seq := open + 1;
        if has_line then
            -- Up to the next one in `live`, if that has this rank.
            select least(to_seq, min(n.place)) into to_seq from (
                (select l.seq as place from @schema@.live l
                where l.queue = q and l.line = 0 and l.rank = ranks[nth] and l.seq > head and l.session is null
                order by l.seq limit 1)
                union all
                select h.seq from @schema@.parked_heads(q, kinds, versions, ranks[nth], head, 1) h
                where has_parked and h.rank = ranks[nth]
            ) n;
        end if;
        select p.* into fresh from @schema@.pick_fresh(q, kinds, versions, ranks[nth], passed[nth], to_seq,
            least(want - taken, aside), at_once - taken) p;
        t := stretches[cardinality(stretches)];
        if t.rank is distinct from ranks[nth] then
            t := row (q, ranks[nth], passed[nth] + 1, 0, null, 0)::@schema@.stretch;
            stretches := stretches || t;
        end if;
        t.last := fresh.latest;
        t.ahead_from := coalesce(t.ahead_from, fresh.ahead_from);
        t.n := t.n + fresh.n;
        stretches[cardinality(stretches)] := t;
        taken := taken + fresh.n;
        aside := aside - fresh.parked;
        passed[nth] := fresh.latest;
        heads[nth] := null;
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
    update @schema@.job j set line = 2, fresh = false from moved_aside m where j.queue = q and j.id = m.id
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
-- the next Scheduled job is due; each further row is a claimed job, in claim order. Of fresh jobs much is alike, and costs more
-- to send and to read than to compare: what is as in the first row is null, and so is what every fresh job has (epoch 1, no
-- attempts, no lost leases, generation 0, not ahead, no suspect); -1 stands for no time limit. Cost for a queue with work and without
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
    p record;
    first tid;
    places tid[] := '{}';
    starts boolean[] := '{}';
    stretches @schema@.stretch[] := '{}';
    has_lane boolean;
    waited boolean := false;
    taken integer := 0;
    aside integer := 1000;
    promotable integer := 1000;
    n integer;
    due bigint;
    has_more boolean := false;
    has_keys boolean := false;
    wake bigint;
    like_queue text;
    like_kind text;
    like_timeout bigint;
    like_version integer;
    like_reader integer;
    like_attempts smallint;
    like_codec smallint;
    like_priority smallint;
begin
    -- With one snapshot for all its statements a claim would not see the cursor that it waited for, and take jobs twice.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'claims need transactions at READ COMMITTED: set default_transaction_isolation so for the pool''s sessions'
            using errcode = 'WL003';
    end if;
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
                places := places || first;
                starts := starts || true;
            end if;
        end if;
        -- One at a time moves a queue's cursors. Nobody waits for a second lane while holding one.
        if not waited then
            perform pg_advisory_xact_lock(@schema@.lane_of(q));
            has_lane := true;
            waited := true;
        else
            has_lane := pg_try_advisory_xact_lock(@schema@.lane_of(q));
        end if;
        select k.* into p from @schema@.pick(q, kinds, versions, at_once + ahead - taken, taken, at_once, has_lane, aside) k;
        aside := p.aside;
        has_more := has_more or p.more;
        has_keys := has_keys or p.has_keys;
        places := places || p.places;
        starts := starts || p.starts;
        stretches := stretches || p.stretches;
        taken := taken + cardinality(p.places) + coalesce((select sum(t.n) from unnest(p.stretches) t), 0)::integer;
        due := null;
        select l.rank into due from @schema@.live l where l.queue = q and l.line = 3 order by l.rank, l.seq limit 1;
        wake := least(wake, due);
    end loop;
    if taken >= 32 and places = '{}' then
        select j.queue, j.kind, coalesce(j.timeout_ms, -1), j.version, j.min_reader, j.max_attempts, j.codec, j.priority
            into like_queue, like_kind, like_timeout, like_version, like_reader, like_attempts, like_codec, like_priority
            from @schema@.job j
            where j.queue = stretches[1].queue and j.rank = stretches[1].rank and j.fresh and j.seq >= stretches[1].first
            order by j.seq limit 1;
    end if;
    return query select answers, clock, has_more, wake, like_queue, null::uuid, null::integer, null::bigint, null::smallint,
        null::smallint, null::integer, null::bigint, null::bigint, null::boolean, null::boolean, like_kind, null::bytea,
        like_timeout, like_version, like_reader, like_attempts, like_codec, like_priority, null::text;
    if has_keys then
        select array_agg(u.at order by u.n), array_agg(u.begins order by u.n) into places, starts
            from unnest(places, starts) with ordinality u (at, begins, n)
            where u.at = any (@schema@.startable(places));
    end if;
    if cardinality(stretches) > 0 then
        insert into @schema@.span (first, last, ahead_from, since, until, check_at, session, nonce, rank, queue)
        select t.first, t.last, t.ahead_from, clock, @schema@.after(clock, lease_ms), @schema@.after(clock, lease_ms),
            in_session, in_nonce, t.rank, t.queue
        from unnest(stretches) t;
        insert into @schema@.moved (n, gone, came, queue)
        select sum(t.n), 2, 3, t.queue from unnest(stretches) t group by t.queue having sum(t.n) > 0;
        if coalesce(cardinality(places), 0) = 0 then
            return query
            select null::smallint[], null::bigint, null::boolean, null::bigint, nullif(j.queue, like_queue), j.id, null::integer,
                (7::bigint << 60) | (j.rank << 56) | j.seq, null::smallint, null::smallint, null::integer, j.created_at,
                j.deadline, nullif(j.seq >= t.ahead_from, false), null::boolean, nullif(j.kind, like_kind), j.payload,
                nullif(coalesce(j.timeout_ms, -1), like_timeout), nullif(j.version, like_version),
                nullif(j.min_reader, like_reader), nullif(j.max_attempts, like_attempts), nullif(j.codec, like_codec),
                nullif(j.priority, like_priority), j.extras::text
            from unnest(stretches) with ordinality t (queue, rank, first, last, ahead_from, n, ord)
            join lateral (
                select b.* from @schema@.job b
                where b.queue = t.queue and b.rank = t.rank and b.fresh and b.seq between t.first and t.last
                order by b.seq
            ) j on true;
            get diagnostics n = row_count;
            perform @schema@.is_what_was_chosen(n, stretches, 0);
            return;
        end if;
    end if;
    if coalesce(cardinality(places), 0) = 0 then
        return;
    end if;
    return query
    with took as (
        update @schema@.live l
        set session = in_session, nonce = in_nonce, since = clock, until = @schema@.after(clock, lease_ms),
            started = u.begins, epoch = l.epoch + 1, settled_by = null
        from unnest(places, starts) u (at, begins)
        where l.ctid = u.at
        returning u.begins, l.queue, l.id, l.epoch, l.attempts, l.lost, l.generation, l.flags, l.line, l.rank, l.seq,
            (l.line::bigint << 60) | (l.rank << 56) | l.seq as handle
    ), leased as (
        insert into @schema@.lease (check_at, session, nonce, queue, handles)
        select @schema@.after(clock, lease_ms), in_session, in_nonce, t.queue, array_agg(t.handle order by t.handle)
        from took t group by t.queue
    ), counted as (
        insert into @schema@.moved (n, gone, came, queue) select count(*), 2, 3, t.queue from took t group by t.queue
    ), freed as (
        -- A key that its holder keeps only until it starts.
        delete from @schema@.key y using took t, @schema@.job j
        where t.flags & 8 <> 0 and j.queue = t.queue and j.id = t.id
            and y.queue = j.queue and y.key = j.extras -> 'unique' ->> 'key' and y.holder = t.id
    ), taken_all as (
        select t.queue, t.id, t.epoch, t.handle, t.attempts, t.lost, t.generation, not t.begins as is_ahead,
            t.flags & 4 <> 0 as suspect, t.line, t.rank, t.seq
        from took t
        union all
        select t.queue, b.id, 1, (7::bigint << 60) | (b.rank << 56) | b.seq, 0::smallint, 0::smallint, 0,
            coalesce(b.seq >= t.ahead_from, false), false, 0::smallint, b.rank, b.seq
        from unnest(stretches) t
        join @schema@.job b
            on b.queue = t.queue and b.rank = t.rank and b.fresh and b.seq >= t.first and b.seq <= t.last
    )
    select null::smallint[], null::bigint, null::boolean, null::bigint, t.queue, t.id, t.epoch, t.handle, t.attempts, t.lost,
        t.generation, j.created_at, j.deadline, t.is_ahead, t.suspect, j.kind, j.payload, j.timeout_ms, j.version,
        j.min_reader, j.max_attempts, j.codec, j.priority, j.extras::text
    from taken_all t join @schema@.job j on j.queue = t.queue and j.id = t.id
    order by array_position(queues, t.queue), t.line <> 1, t.rank, t.seq;
    get diagnostics n = row_count;
    perform @schema@.is_what_was_chosen(n, stretches, cardinality(places));
end
$windlass$;

-- A push that was given up may commit between the choice of a claim and its answer, which would then hold more than was chosen,
-- counted and parked: the claim is sent again.
create function @schema@.is_what_was_chosen(answered integer, stretches @schema@.stretch[], of_live integer) returns void
language plpgsql as $windlass$
begin
    if answered <> of_live + coalesce((select sum(t.n) from unnest(stretches) t), 0) then
        raise exception 'a push that was given up came in the middle of a claim' using errcode = '40001';
    end if;
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
            order_given, rulings, plain, afters, messages, panicked, outputs, dead, drafts, riding, false));
end
$windlass$;
