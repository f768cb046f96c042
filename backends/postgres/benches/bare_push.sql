insert into bare.job (seq, rank, created_at, id, version, min_reader, max_attempts, line, codec, priority, fresh, queue, kind,
    payload)
select nextval('bare.entry'), 4, (extract(epoch from clock_timestamp()) * 1000)::bigint, id, 1, 1, 1, 0, 0, 5, true, 'mail',
    'greet', payload
from unnest($1::uuid[], $2::bytea[]) i (id, payload)
