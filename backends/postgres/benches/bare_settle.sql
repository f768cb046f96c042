with held as (
    select j.id from unnest($1::bigint[]) u (seq)
    cross join lateral (
        select s.nonce, s.last from bare.span s where s.queue = 'mail' and s.rank = 4 and s.first <= u.seq
        order by s.first desc limit 1
    ) p
    cross join lateral (
        select b.id from bare.job b
        where b.queue = 'mail' and b.rank = 4 and b.seq = u.seq and b.fresh
        order by b.seq limit 1 for no key update
    ) j
    where p.nonce = $2 and p.last >= u.seq
)
insert into bare.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, queue)
select nextval('bare.entry'), (extract(epoch from clock_timestamp()) * 1000)::bigint, id, $2, 1, 0, 4, 1, 0, 'mail'
from held
