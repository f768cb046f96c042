-- look: what a named queue holds, in numbers. Writes nothing.
--
-- Returns {paused, Blocked, Scheduled, Ready, Running, Completed, Cancelled, Dead, in line, next due or ''}: in line are
-- the Ready jobs that are no suspects and were not moved aside.
-- Cost: 11 commands.

local line = call('LLEN', W) - holes + call('ZCARD', Z)
local first = call('ZRANGE', D, 0, 0, 'WITHSCORES')
return {
  meta[2] and 1 or 0, call('SCARD', BS), call('ZCARD', D), line + call('ZCARD', P) + call('ZCARD', K), running,
  call('LLEN', C), call('ZCARD', CN), call('ZCARD', DD), line, first[2] and num(tonumber(first[2])) or '',
}
