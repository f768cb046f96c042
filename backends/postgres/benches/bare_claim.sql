with taken as materialized (
    select j.seq, j.id, j.payload from bare.job j
    where j.queue = 'mail' and j.rank = 4 and j.fresh and j.seq > coalesce((
        select s.last from bare.span s where s.queue = 'mail' and s.rank = 4 order by s.first desc limit 1
    ), 0)
    order by j.seq limit $2
), leased as (
    insert into bare.span (first, last, since, until, check_at, session, nonce, rank, queue)
    select min(t.seq), max(t.seq), 0, (extract(epoch from clock_timestamp()) * 1000)::bigint + 30000, 0, $1, $1, 4, 'mail'
    from taken t having count(*) > 0
)
select t.id, t.seq, t.payload from taken t order by t.seq
