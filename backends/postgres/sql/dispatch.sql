-- Dispatch from SQL, for triggers and other languages: the job exists if and only if the transaction commits. Returns its id.
-- The payload is JSON, as the library's default codec writes it (codec 0).
create function @schema@.dispatch(
    queue text, kind text, payload jsonb, priority integer default 5, max_attempts integer default 1,
    delay interval default '0', id uuid default gen_random_uuid(), version integer default 1, unique_key text default null,
    timeout interval default null
) returns uuid language plpgsql as $windlass$
declare
    answer record;
begin
    if queue !~ '^[a-z0-9][a-z0-9_.-]{0,127}$' or kind !~ '^[a-z0-9][a-z0-9_.-]{0,127}$' then
        raise exception 'queue "%" and kind "%" must be 1 to 128 bytes of a-z, 0-9, ''_'', ''.'', ''-'', beginning with a '
            'letter or a digit', queue, kind using errcode = '22023';
    end if;
    if priority not between 0 and 9 or max_attempts not between 1 and 10000 or version not between 1 and 65535
        or delay < '0' or timeout <= '0' or unique_key = '' or octet_length(unique_key) > 256 then
        raise exception 'priority is 0 to 9, max_attempts 1 to 10000, version 1 to 65535, delay not negative, timeout more '
            'than 0, unique_key 1 to 256 bytes' using errcode = '22023';
    end if;
    select p.* into answer from @schema@.push(
        (select case when m.virtual then c.last_value end from @schema@.meta m, @schema@.clock c), true, 0,
        array[id], array[queue], array[kind], array[convert_to(payload::text, 'UTF8')],
        array[(extract(epoch from timeout) * 1000)::bigint], array[version], array[1],
        array[max_attempts::smallint], array[0::smallint], array[priority::smallint],
        array[case when unique_key is null then 0 else 1 end::smallint],
        array[(extract(epoch from delay) * 1000)::bigint], array[null::bigint],
        array[case when unique_key is not null then json_build_object('unique', json_build_object(
            'key', unique_key, 'on_conflict', 'skip', 'until', 'end'))::text end]
    ) p;
    return coalesce(answer.other, id);
end
$windlass$;
