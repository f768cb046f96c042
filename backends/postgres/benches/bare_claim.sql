with picked as (
    select l.ctid as at from bare.live l where l.queue = 'mail' and l.line = 0 and l.session is null
    order by l.rank, l.seq limit $2 for no key update skip locked
), took as (
    update bare.live l set session = $1, nonce = $1, since = (extract(epoch from clock_timestamp()) * 1000)::bigint,
        until = (extract(epoch from clock_timestamp()) * 1000)::bigint + 30000, started = true, epoch = l.epoch + 1
    from picked p where l.ctid = p.at returning l.id, l.seq, l.epoch
)
select t.id, t.seq, t.epoch, j.payload from took t join bare.job j on j.queue = 'mail' and j.id = t.id order by t.seq
