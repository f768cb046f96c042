-- outbox: jobs that ride with verdicts into other named queues, at least once: read, pushed by the caller, acknowledged.
--
-- ARGV: .., 3: read or done; read: 4: at most so many; done: 4 and 5: from which number to which.
-- Returns the entries, oldest first, or how many were dropped. Numbers only rise, so what came meanwhile is not dropped.
-- Cost: 1 command.

if ARGV[3] == 'read' then return call('ZRANGE', O, 0, tonumber(ARGV[4]) - 1) end
return call('ZREMRANGEBYSCORE', O, ARGV[4], ARGV[5])
