with input as materialized (
    select id, payload, nextval('bare.entry') as seq from unnest($1::uuid[], $2::bytea[]) i (id, payload)
), stored as (
    insert into bare.job (seq, rank, created_at, id, version, min_reader, max_attempts, line, codec, priority, queue, kind,
        payload)
    select seq, 4, (extract(epoch from clock_timestamp()) * 1000)::bigint, id, 1, 1, 1, 0, 0, 5, 'mail', 'greet', payload
    from input returning seq, id
)
insert into bare.live (seq, rank, id, epoch, generation, waits, line, flags, attempts, lost, queue)
select seq, 4, id, 0, 0, 0, 0, 0, 0, 0, 'mail' from stored
