-- tick: what time it is in a namespace, whose clock that is, and that it does not run backwards.
--
-- KEYS[1]: the namespace. ARGV[1]: the instant of a virtual clock in ms, or '' for the server's own. The first call
-- decides which of the two the namespace goes by for life. Returns the time in ms.
-- Cost: 2 to 3 commands.
local FORMAT = 1

local meta = redis.call('HMGET', KEYS[1], 'mode', 'latest', 'format')
local mode = ARGV[1] == '' and 's' or 'v'
if meta[3] and tonumber(meta[3]) > FORMAT then return redis.error_reply('WLFORMAT ' .. meta[3]) end
if meta[1] and meta[1] ~= mode then return redis.error_reply('WLMODE this namespace is timed the other way') end
if not meta[1] then redis.call('HSET', KEYS[1], 'mode', mode, 'format', FORMAT) end
if mode == 's' then
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
local now, latest = tonumber(ARGV[1]), tonumber(meta[2] or '0')
if now <= latest then return string.format('%.0f', latest) end
redis.call('HSET', KEYS[1], 'latest', string.format('%.0f', now))
return string.format('%.0f', now)
