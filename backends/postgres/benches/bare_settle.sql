with gone as (
    delete from bare.live l using unnest($1::bigint[], $2::integer[]) s (seq, epoch)
    where l.queue = 'mail' and l.line = 0 and l.rank = 4 and l.seq = s.seq and l.epoch = s.epoch and l.nonce = $3
    returning l.id, l.epoch, l.nonce
)
insert into bare.done (seq, at, id, settled_by, epoch, generation, state, attempts, lost, queue)
select nextval('bare.entry'), (extract(epoch from clock_timestamp()) * 1000)::bigint, id, nonce, epoch, 0, 4, 1, 0, 'mail'
from gone
